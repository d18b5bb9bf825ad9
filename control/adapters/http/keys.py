"""Routes below /api/keys: service keys of the orgs that the caller administers."""

from quart import Response, request
from quart_trio import QuartTrio

from control.actors.key_commands import KeyCommands
from control.adapters.http.messages import key_message
from control.adapters.http.requests import presented_credential, request_id
from khala_contracts import http_messages as m
from khala_service.http_edge import read_body, respond


def add_key_routes(app: QuartTrio, commands: KeyCommands) -> None:
    """Register the routes."""

    @app.post("/api/keys")
    async def create() -> Response:
        body = await read_body(m.CreateKeyRequest)
        created = await commands.create(
            presented_credential(),
            org_id=body.org_id,
            name=body.name,
            rights=tuple(body.rights),
            topics=tuple(body.topics),
            ttl_s=body.ttl_s,
            request_id=request_id(),
        )
        return respond(m.CreateKeyResponse(key=key_message(created.key), secret=created.secret), 201)

    @app.get("/api/keys")
    async def list_keys() -> Response:
        keys = await commands.list_keys(
            presented_credential(), org_id=request.args.get("org_id", ""), request_id=request_id()
        )
        return respond(m.ListKeysResponse(keys=[key_message(key) for key in keys]))

    @app.post("/api/keys/<key_id>/rotate")
    async def rotate(key_id: str) -> Response:
        body = await read_body(m.RotateKeyRequest)
        rotated = await commands.rotate(
            presented_credential(),
            key_id=key_id,
            overlap_s=body.overlap_s if body.HasField("overlap_s") else None,
            ttl_s=body.ttl_s,
            request_id=request_id(),
        )
        return respond(m.RotateKeyResponse(key=key_message(rotated.key), secret=rotated.secret))

    @app.post("/api/keys/<key_id>/revoke")
    async def revoke(key_id: str) -> Response:
        key = await commands.revoke(presented_credential(), key_id=key_id, request_id=request_id())
        return respond(m.RevokeKeyResponse(key=key_message(key)))
