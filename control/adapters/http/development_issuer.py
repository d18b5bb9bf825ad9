"""Routes of the development issuer: discovery, the sign-in page, tokens, keys. Registered in dev mode only."""

import base64
import hashlib
import html
import ipaddress
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from quart import Response, jsonify, request
from quart_trio import QuartTrio

from control.adapters.identity.development import AuthorizeRequest, CodeRefused, DevelopmentIssuer
from control.core.refusals import Refused, forbidden
from khala_service.http_edge import read_bytes

__all__ = ["ISSUER_PATH", "add_development_issuer_routes"]

ISSUER_PATH: Final = "/dev/issuer"
# As the live page looks (control/web_shell/src/style.css), in few lines: it is the step before it.
_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 Inter, system-ui, sans-serif; }
body { margin: 0; min-height: 100vh; display: grid; place-content: center; background: light-dark(#fcfcfa, #121413);
  color: light-dark(#1d1f1c, #e5e7e2); }
main { width: min(22rem, 100vw - 3rem); padding-bottom: 18vh; }
h1 { font-size: 26px; font-weight: 600; letter-spacing: -0.02em; margin: 0 0 8px; }
p { color: light-dark(#5d625b, #a3a9a0); margin: 0 0 24px; }
label { display: grid; gap: 6px; font-size: 13px; }
input, button { font: inherit; border-radius: 7px; padding: 8px 12px; }
input { font-size: 15px; border: 1px solid light-dark(#c9cbc4, #3a3f3b); background: transparent; color: inherit; }
button { margin-top: 16px; border: 0; padding: 8px 16px; font-weight: 500; cursor: pointer;
  background: light-dark(#1d1f1c, #e5e7e2); color: light-dark(#fcfcfa, #121413); }
:focus-visible { outline: 2px solid light-dark(#0d6e61, #6ad0bb); outline-offset: 2px; }
"""
_POLICY: Final = (
    "default-src 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_FORM: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in (development)</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>
<body><main><h1>Development sign-in</h1>
<p>Any name is believed. This page exists in dev mode only.</p>
<form method="get" action="authorize">{fields}
<label>Name <input name="login_hint" autofocus required maxlength="64" value="dev"></label>
<button>Sign in</button></form>{problem}</main></body></html>"""


def add_development_issuer_routes(app: QuartTrio, issuer: DevelopmentIssuer) -> None:
    """Register them."""

    @app.get(f"{ISSUER_PATH}/.well-known/openid-configuration")
    async def discover() -> Response:
        return jsonify(issuer.metadata())

    @app.get(f"{ISSUER_PATH}/jwks")
    async def keys() -> Response:
        return jsonify(issuer.jwks())

    @app.get(f"{ISSUER_PATH}/authorize")
    async def authorize() -> Response:
        _refuse_foreign_names()
        asked = AuthorizeRequest(
            client_id=request.args.get("client_id", ""),
            redirect_uri=request.args.get("redirect_uri", ""),
            state=request.args.get("state", ""),
            nonce=request.args.get("nonce", ""),
            code_challenge=request.args.get("code_challenge", ""),
        )
        # Before anything is sent anywhere: a wrong redirect URI must not be redirected to.
        if not issuer.is_known(asked):
            return Response(
                "This is not a request of the registered client.\n", 400, content_type="text/plain"
            )
        login = request.args.get("login_hint", "")
        problem = ""
        if login:
            try:
                code = issuer.grant(asked, login)
            except Refused as refused:
                problem = refused.details.get("problem", "")
            else:
                query = urlencode({"code": code, "state": asked.state})
                return Response(b"", 303, {"Location": f"{asked.redirect_uri}?{query}"})
        return _form(problem)

    @app.post(f"{ISSUER_PATH}/token")
    async def token() -> Response:
        form = dict(parse_qsl((await read_bytes()).decode("ascii", errors="replace")))
        try:
            if form.get("grant_type") != "authorization_code":
                raise CodeRefused
            id_token = issuer.exchange(
                form.get("code", ""),
                client_id=form.get("client_id", ""),
                redirect_uri=form.get("redirect_uri", ""),
                code_verifier=form.get("code_verifier", ""),
            )
        except CodeRefused:
            response = jsonify({"error": "invalid_grant"})
            response.status_code = 400
            return response
        response = jsonify(
            {"id_token": id_token, "token_type": "Bearer", "access_token": "none", "expires_in": 0}
        )
        response.headers["Cache-Control"] = "no-store"
        return response


def _refuse_foreign_names() -> None:
    """Refuse a browser that came under a name that is not this machine's own.

    Loopback keeps other machines out, not other pages: one whose own name resolves to 127.0.0.1 (DNS
    rebinding) sends its name as Host.

    Raises:
        Refused: forbidden.
    """
    host = urlsplit(f"//{request.host}").hostname or ""
    try:
        is_ours = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_ours = False
    if not is_ours:
        raise forbidden("development_issuer_by_name")


def _form(problem: str) -> Response:
    fields = "".join(
        f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
        for name, value in request.args.items()
        if name != "login_hint"
    )
    said = f"<p>{html.escape(problem)}</p>" if problem else ""
    response = Response(
        _FORM.format(style=_STYLE, fields=fields, problem=said), content_type="text/html; charset=utf-8"
    )
    response.headers["Content-Security-Policy"] = _POLICY
    return response
