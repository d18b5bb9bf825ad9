"""Routes below /api/auth of whoever has a session: refreshing, signing out, reading sessions."""

from quart import Response, request
from quart_trio import QuartTrio

from control.actors.session_commands import SessionCommands
from control.adapters.http.messages import (
    person_message,
    session_message,
    tokens_message,
)
from control.adapters.http.requests import presented_credential, request_id
from control.adapters.http.sign_in import RefreshCookie, cookie_answer
from control.core.sessions import MS_PER_S
from control.ports import Clock
from khala_contracts import http_messages as m
from khala_service.http_edge import read_body, respond


def add_session_routes(
    app: QuartTrio, commands: SessionCommands, *, cookie: RefreshCookie, clock: Clock
) -> None:
    """Register the routes."""

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
