"""What needs no credential: public keys and compatibility."""

import hashlib
import json
from typing import Final

from quart import Response, request
from quart_trio import QuartTrio

from control.adapters.signing_keys import KeyRing
from khala_contracts import http_messages as m
from khala_service.http_edge import respond

# A rotated-in key must reach every node before it signs: keep it second in the ring for longer than this.
JWKS_MAX_AGE_S: Final = 300


def add_public_routes(app: QuartTrio, *, ring: KeyRing, compat: m.CompatResponse) -> None:
    """Register the routes."""
    jwks = json.dumps(ring.public_jwks(), sort_keys=True, separators=(",", ":")).encode()
    jwks_tag = hashlib.sha256(jwks).hexdigest()[:32]

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
