"""Signing in through the identity provider, and the cookies of browsers.

A browser gets its refresh token as a cookie that scripts cannot read, and is sent on to the page that it came
for; a program that accepts JSON gets the tokens in the body. Either way the same flow ran.
"""

from typing import Final
from urllib.parse import urlsplit

import attrs
from quart import Response, request
from quart_trio import QuartTrio

from control.actors.session_commands import IssuedTokens
from control.actors.sign_in_flow import SignInFlow
from control.adapters.http.messages import tokens_message
from control.adapters.http.requests import request_id
from control.core.oidc import PENDING_LIFETIME_S
from control.core.refusals import forbidden, invalid_argument
from control.core.sessions import MS_PER_S
from khala_contracts.sync_claims import Surface
from khala_service.http_edge import respond

__all__ = ["CALLBACK_PATH", "RefreshCookie", "add_sign_in_routes", "cookie_answer"]

CALLBACK_PATH: Final = "/api/auth/callback"
_BINDING_COOKIE: Final = "khala_sign_in"
_REFRESH_COOKIE: Final = "khala_refresh"
_AUTH_PATH: Final = "/api/auth"
_JSON: Final = "application/json"


@attrs.frozen
class RefreshCookie:
    """The refresh token of a browser: HttpOnly, for our own pages only, sent to /api/auth and nowhere else."""

    public_url: str

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
        if token and origin is not None and origin != _origin(self.public_url):
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
    """Register the two ends of the flow."""

    @app.get("/api/auth/start")
    async def start() -> Response:
        started = await flow.start(
            device_id=request.args.get("device_id", ""),
            surface=_surface(request.args.get("surface", "")),
            return_to=request.args.get("return_to", ""),
            login_hint=request.args.get("login_hint", ""),
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
        tokens = completed.tokens
        if request.accept_mimetypes.best_match([_JSON, "text/html"]) == _JSON:
            response = respond(tokens_message(tokens))
        else:
            response = _redirect(completed.return_to)
            cookie.put(response, tokens, now_ms=tokens.person.session.created_at_ms)
        response.delete_cookie(_BINDING_COOKIE, path=CALLBACK_PATH, secure=cookie.is_secure, httponly=True)
        return response


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
