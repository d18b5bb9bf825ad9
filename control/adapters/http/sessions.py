"""Routes below /api/auth: signing in (dev mode), refreshing, signing out, reading sessions."""

import ipaddress
from urllib.parse import urlsplit

from quart import Response, request
from quart_trio import QuartTrio

from control.actors.session_commands import SessionCommands
from control.adapters.http.messages import (
    person_message,
    read_surface,
    session_message,
    tokens_message,
)
from control.adapters.http.requests import presented_credential, request_id
from control.adapters.http.sign_in import RefreshCookie, cookie_answer
from control.core.refusals import forbidden
from control.core.sessions import MS_PER_S
from control.ports import Clock
from khala_contracts import http_messages as m
from khala_service.http_edge import read_body, respond


def add_session_routes(
    app: QuartTrio, commands: SessionCommands, *, cookie: RefreshCookie, clock: Clock
) -> None:
    """Register the routes that exist in every mode."""

    @app.post("/api/auth/refresh")
    async def refresh() -> Response:
        body = await read_body(m.RefreshRequest)
        held = "" if body.refresh_token else cookie.read()
        tokens = await commands.refresh(
            refresh_token=body.refresh_token or held, device_id=body.device_id, request_id=request_id()
        )
        if held:
            return cookie_answer(tokens, cookie, now_ms=int(clock.now() * MS_PER_S))
        return respond(tokens_message(tokens))

    @app.post("/api/auth/logout")
    async def log_out() -> Response:
        await read_body(m.LogoutRequest)
        await commands.log_out(presented_credential(), request_id=request_id())
        response = respond(m.LogoutResponse())
        cookie.remove(response)
        return response

    @app.get("/api/auth/session")
    async def read_session() -> Response:
        person = await commands.read_session(presented_credential(), request_id=request_id())
        return respond(person_message(person))

    @app.get("/api/auth/sessions")
    async def list_sessions() -> Response:
        person, sessions = await commands.list_sessions(
            presented_credential(), device_id=request.args.get("device_id"), request_id=request_id()
        )
        return respond(
            m.ListSessionsResponse(sessions=[session_message(session, of=person) for session in sessions])
        )


def add_dev_routes(app: QuartTrio, commands: SessionCommands) -> None:
    """Register development sign-in; called in dev mode only, so that no other mode has the route."""

    @app.post("/api/auth/dev/sign-in")
    async def sign_in() -> Response:
        _refuse_foreign_pages()
        body = await read_body(m.DevSignInRequest)
        tokens = await commands.sign_in_dev(
            login=body.login,
            device_id=body.device_id,
            surface=read_surface(body.surface),
            request_id=request_id(),
        )
        return respond(tokens_message(tokens))


def _refuse_foreign_pages() -> None:
    """Refuse a browser that was sent here by somebody else's page.

    Loopback keeps other machines out, not other pages: one whose own name resolves to 127.0.0.1 (DNS
    rebinding) sends its name as Host, and one that posts across origins sends its Origin.

    Raises:
        Refused: forbidden.
    """
    if not _is_loopback_name(urlsplit(f"//{request.host}").hostname or ""):
        raise forbidden("dev_sign_in_by_name")
    origin = request.headers.get("Origin")
    if origin is not None and not _is_loopback_name(urlsplit(origin).hostname or ""):
        raise forbidden("dev_sign_in_across_origins")


def _is_loopback_name(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
