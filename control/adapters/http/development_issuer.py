"""Routes of the development issuer: discovery, the sign-in page, tokens, keys. Registered in dev mode only."""

import html
from typing import Final
from urllib.parse import parse_qsl, urlencode

from quart import Response, jsonify, request
from quart_trio import QuartTrio

from control.adapters.identity.development import AuthorizeRequest, CodeRefused, DevelopmentIssuer
from control.core.refusals import Refused
from khala_service.http_edge import read_bytes

__all__ = ["ISSUER_PATH", "add_development_issuer_routes"]

ISSUER_PATH: Final = "/dev/issuer"
_FORM: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in (development)</title>
<meta name="viewport" content="width=device-width, initial-scale=1"></head>
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


def _form(problem: str) -> Response:
    fields = "".join(
        f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
        for name, value in request.args.items()
        if name != "login_hint"
    )
    said = f"<p>{html.escape(problem)}</p>" if problem else ""
    response = Response(_FORM.format(fields=fields, problem=said), content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
    return response
