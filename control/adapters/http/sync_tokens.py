"""POST /api/sync/token: a token that opens one WebSocket connection."""

from quart import Response
from quart_trio import QuartTrio

from control.actors.sync_token_commands import SyncTokenCommands
from control.adapters.http.messages import minted_message, read_surface
from control.adapters.http.requests import presented_credential, request_id
from control.core.sync_tokens import Subject
from khala_contracts import http_messages as m
from khala_service.http_edge import read_body, respond


def add_sync_token_routes(app: QuartTrio, commands: SyncTokenCommands) -> None:
    """Register the route."""

    @app.post("/api/sync/token")
    async def mint() -> Response:
        body = await read_body(m.SyncTokenRequest)
        subject = None
        if body.HasField("subject"):
            subject = Subject(external_user_id=body.subject.user_id, device_id=body.subject.device_id)
        minted = await commands.mint(
            presented_credential(),
            topics=tuple(body.topics),
            ttl_s=body.ttl_s,
            device_id=body.device_id,
            surface=read_surface(body.surface),
            subject=subject,
            request_id=request_id(),
        )
        return respond(minted_message(minted))
