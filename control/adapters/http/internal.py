"""Routes for the other services, each open to the one caller that needs it.

The proxy in front of a deployment does not pass /internal on; the credential is required all the same.
"""

from quart import Response, request
from quart_trio import QuartTrio

from control.actors.org_commands import OrgCommands
from control.actors.session_commands import SessionCommands
from control.actors.sync_token_commands import SyncTokenCommands
from control.adapters.http.messages import member_message, principal_message, redeemed_message
from control.adapters.http.requests import request_id
from control.core.redemptions import Redemption
from khala_contracts import http_messages as m
from khala_service.http_edge import read_body, respond
from khala_service.service_auth import ServiceCredentials


def add_internal_routes(
    app: QuartTrio,
    *,
    sessions: SessionCommands,
    sync_tokens: SyncTokenCommands,
    orgs: OrgCommands,
    nodes: ServiceCredentials,
    runtimes: ServiceCredentials,
) -> None:
    """Register the routes: redeem for the credentials of nodes, the others for those of runtimes."""

    @app.post("/internal/v1/sync-tokens/redeem")
    async def redeem() -> Response:
        nodes.require(request.headers.get("Authorization"))
        body = await read_body(m.RedeemRequest)
        outcomes = await sync_tokens.redeem([_read_redemption(redemption) for redemption in body.redemptions])
        return respond(redeemed_message(outcomes))

    @app.post("/internal/v1/principals/resolve")
    async def resolve() -> Response:
        runtimes.require(request.headers.get("Authorization"))
        body = await read_body(m.ResolvePrincipalRequest)
        resolved = await sessions.resolve_untrusted(body.credential, request_id=request_id())
        return respond(principal_message(resolved))

    @app.get("/internal/v1/orgs/<org_id>/members/<user_id>")
    async def find_member(org_id: str, user_id: str) -> Response:
        runtimes.require(request.headers.get("Authorization"))
        return respond(member_message(await orgs.find_member(org_id, user_id)))


def _read_redemption(redemption: m.Redemption) -> Redemption:
    return Redemption(
        jti=redemption.jti,
        connection_id=redemption.connection_id,
        node_id=redemption.node_id,
        session_id=redemption.session_id,
        principal_id=redemption.principal_id,
        user_id=redemption.user_id,
        device_id=redemption.device_id,
        token_expires_at_ms=redemption.token_expires_at,
        token_issued_at_ms=redemption.token_issued_at,
    )
