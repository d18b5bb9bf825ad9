"""Signing in through the identity provider, and the cookies of browsers.

A browser gets its refresh token as a cookie that scripts cannot read, and is sent on to the page that it came
for; a program that accepts JSON or protobuf gets the tokens in the body; a command that had a browser opened
gets a code at its own port, and exchanges it. Whichever it is, the same flow ran.
"""

from typing import Final
from urllib.parse import urlsplit

import attrs
from quart import Response, request
from quart_trio import QuartTrio

from control.actors.session_commands import IssuedTokens
from control.actors.sign_in_flow import HandedToCommand, SignInFlow
from control.adapters.http.messages import tokens_message
from control.adapters.http.requests import request_id
from control.adapters.http.static_host import is_other_name
from control.core.oidc import PENDING_LIFETIME_S
from control.core.refusals import forbidden, invalid_argument
from control.core.sessions import MS_PER_S
from khala_contracts import http_messages as m
from khala_contracts.sync_claims import Surface
from khala_service.http_bodies import JSON, PROTOBUF, read_body, respond

__all__ = ["CALLBACK_PATH", "RefreshCookie", "add_sign_in_routes", "cookie_answer"]

CALLBACK_PATH: Final = "/api/auth/callback"
_START_PATH: Final = "/api/auth/start"
_BINDING_COOKIE: Final = "khala_sign_in"
_REFRESH_COOKIE: Final = "khala_refresh"
_AUTH_PATH: Final = "/api/auth"


@attrs.frozen
class RefreshCookie:
    """The refresh token of a browser: HttpOnly, for our own pages only, sent to /api/auth and nowhere else."""

    public_url: str
    # Pages of these may use it, too, as far as SameSite lets browsers send it for them.
    cors_origins: tuple[str, ...] = ()

    @property
    def is_secure(self) -> bool:
        """Whether the browser must keep it from plain HTTP; only a loopback address is served without TLS."""
        return self.public_url.startswith("https:")

    def read(self) -> str:
        """Return the browser's token, empty if it has none.

        Raises:
            Refused: forbidden; a page of another origin makes the browser ask.
        """
        token = request.cookies.get(_REFRESH_COOKIE, "")
        origin = request.headers.get("Origin")
        if token and origin not in (None, _origin(self.public_url), *self.cors_origins):
            raise forbidden("cookie_across_origins")
        return token

    def put(self, response: Response, tokens: IssuedTokens, *, now_ms: int) -> None:
        """Give the browser a token."""
        response.set_cookie(
            _REFRESH_COOKIE,
            tokens.refresh_token,
            max_age=max(0, (tokens.refresh_expires_at_ms - now_ms) // MS_PER_S),
            path=_AUTH_PATH,
            secure=self.is_secure,
            httponly=True,
            samesite="Strict",
        )

    def remove(self, response: Response) -> None:
        """Have the browser forget it."""
        response.delete_cookie(
            _REFRESH_COOKIE, path=_AUTH_PATH, secure=self.is_secure, httponly=True, samesite="Strict"
        )


def add_sign_in_routes(app: QuartTrio, flow: SignInFlow, cookie: RefreshCookie) -> None:
    """Register the ends of the flow."""

    @app.get(_START_PATH)
    async def start() -> Response:
        if is_other_name(request.host, cookie.public_url):
            # The cookie belongs to a name of this machine, and the provider leads back to the other one.
            return _redirect(f"{cookie.public_url}{_START_PATH}?{request.query_string.decode('ascii')}")
        loopback_port = request.args.get("loopback_port", "")
        if loopback_port and request.headers.get("Sec-Fetch-Site", "none") != "none":
            # A page sent the browser here, not the person who typed a command: another user of the machine
            # could have it hand over the session of whoever is signed in at the provider.
            raise forbidden("loopback_from_a_page")
        started = await flow.start(
            device_id=request.args.get("device_id", ""),
            surface=_surface(request.args.get("surface", "")),
            return_to=request.args.get("return_to", ""),
            login_hint=request.args.get("login_hint", ""),
            loopback_port=loopback_port,
            code_challenge=request.args.get("code_challenge", ""),
            request_id=request_id(),
        )
        response = _redirect(started.url)
        response.set_cookie(
            _BINDING_COOKIE,
            started.binding,
            max_age=PENDING_LIFETIME_S,
            path=CALLBACK_PATH,
            secure=cookie.is_secure,
            httponly=True,
            # Lax: the provider's redirect is a top-level navigation from another site.
            samesite="Lax",
        )
        return response

    @app.get(CALLBACK_PATH)
    async def callback() -> Response:
        completed = await flow.complete(
            state=request.args.get("state", ""),
            code=request.args.get("code", ""),
            error=request.args.get("error", ""),
            binding=request.cookies.get(_BINDING_COOKIE, ""),
            request_id=request_id(),
        )
        if isinstance(completed, HandedToCommand):
            response = _redirect(completed.url)
        elif request.accept_mimetypes.best_match([JSON, "text/html", PROTOBUF]) in (JSON, PROTOBUF):
            response = respond(tokens_message(completed.tokens))
        else:
            tokens = completed.tokens
            response = _redirect(completed.return_to)
            cookie.put(response, tokens, now_ms=tokens.person.session.created_at_ms)
        response.delete_cookie(_BINDING_COOKIE, path=CALLBACK_PATH, secure=cookie.is_secure, httponly=True)
        return response

    @app.post("/api/auth/exchange")
    async def exchange() -> Response:
        body = await read_body(m.ExchangeCodeRequest)
        tokens = await flow.exchange(code=body.code, verifier=body.code_verifier, request_id=request_id())
        return respond(tokens_message(tokens))


def cookie_answer(tokens: IssuedTokens, cookie: RefreshCookie, *, now_ms: int) -> Response:
    """Return the answer to a refresh by cookie: the new token is in the new cookie and nowhere else."""
    message = tokens_message(tokens)
    message.refresh_token = ""
    response = respond(message)
    cookie.put(response, tokens, now_ms=now_ms)
    return response


def _redirect(url: str) -> Response:
    # 303: whatever brought the browser here, it goes on with a GET. The URL holds a state, or was checked
    # to be ours.
    return Response(
        b"", 303, {"Location": url, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    )


def _surface(word: str) -> Surface | None:
    if not word:
        return None
    for surface in Surface:
        if surface.value == word:
            return surface
    raise invalid_argument("surface", ", ".join(surface.value for surface in Surface))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
