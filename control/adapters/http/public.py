"""What needs no credential: public keys, compatibility, and a page that says what this is."""

import base64
import hashlib
import json
from importlib import resources
from typing import Final

from quart import Response, request
from quart_trio import QuartTrio

from control.adapters.signing_keys import KeyRing
from khala_contracts import http_messages as m
from khala_service.http_edge import respond

# A rotated-in key must reach every node before it signs: keep it second in the ring for longer than this.
JWKS_MAX_AGE_S: Final = 300
_STYLE_START: Final = "<style>"
_STYLE_END: Final = "</style>"


def add_public_routes(app: QuartTrio, *, ring: KeyRing, compat: m.CompatResponse) -> None:
    """Register the routes."""
    jwks = json.dumps(ring.public_jwks(), sort_keys=True, separators=(",", ":")).encode()
    jwks_tag = hashlib.sha256(jwks).hexdigest()[:32]
    page = resources.files("control").joinpath("web_shell", "index.html").read_text("utf-8")
    page_headers = {
        "Content-Security-Policy": _content_policy(page),
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }

    @app.get("/.well-known/jwks.json")
    async def publish_keys() -> Response:
        response = Response(jwks, content_type="application/json")
        response.headers["Cache-Control"] = f"public, max-age={JWKS_MAX_AGE_S}"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.set_etag(jwks_tag)
        return await response.make_conditional(request)

    @app.get("/api/compat")
    async def say_compat() -> Response:
        return respond(compat)

    @app.get("/")
    async def show_page() -> Response:
        return Response(page, content_type="text/html; charset=utf-8", headers=page_headers)


def _content_policy(page: str) -> str:
    """Return a policy that allows the page's own style block, by hash, and nothing else."""
    style = page.partition(_STYLE_START)[2].partition(_STYLE_END)[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
