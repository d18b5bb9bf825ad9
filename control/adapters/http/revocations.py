"""Routes that end sessions, and the log of revocations for nodes."""

from typing import Final

from quart import Response, request
from quart_trio import QuartTrio

from control.actors.revocation_commands import (
    AllSessions,
    OtherSessions,
    RevocationCommands,
    RevokeScope,
    ThisDevice,
    ThisSession,
)
from control.adapters.http.requests import number_argument, presented_credential, request_id
from control.core.refusals import invalid_argument
from control.core.revocations import PAGE_MAX, RevocationKind, RevocationPage
from khala_contracts import http_messages as m
from khala_contracts.wire_enums import EnumMap
from khala_service.http_edge import read_body, respond
from khala_service.service_auth import ServiceCredentials

_KINDS: Final = EnumMap(RevocationKind, m.RevocationKind.DESCRIPTOR)


def add_revocation_routes(app: QuartTrio, commands: RevocationCommands, *, nodes: ServiceCredentials) -> None:
    """Register them."""

    @app.post("/api/auth/sessions/revoke")
    async def revoke_sessions() -> Response:
        body = await read_body(m.RevokeSessionsRequest)
        ended = await commands.revoke(presented_credential(), _scope(body), request_id=request_id())
        return respond(m.RevokeSessionsResponse(session_ids=ended))

    @app.post("/api/auth/revoke-subject")
    async def revoke_subject() -> Response:
        body = await read_body(m.RevokeSubjectRequest)
        ended = await commands.revoke_subject(
            presented_credential(),
            external_user_id=body.user_id,
            device_id=body.device_id,
            request_id=request_id(),
        )
        return respond(m.RevokeSessionsResponse(session_ids=ended))

    @app.get("/internal/v1/revocations")
    async def read_revocations() -> Response:
        nodes.require(request.headers.get("Authorization"))
        limit = number_argument("limit")
        page = await commands.read_log(
            number_argument("after") or 0, limit=PAGE_MAX if limit is None else limit
        )
        return respond(page_message(page))


def page_message(page: RevocationPage) -> m.RevocationsResponse:
    """Return a page of the log."""
    return m.RevocationsResponse(
        revocations=[
            m.Revocation(
                seq=row.seq,
                kind=_KINDS.to_wire(row.revocation.kind),
                session_id=row.revocation.session_id or "",
                key_id=row.revocation.key_id or "",
                org_id=row.revocation.org_id or "",
                user_id=row.revocation.user_id or "",
                revoked_at=row.revoked_at_ms,
            )
            for row in page.rows
        ],
        head_seq=page.head_seq,
        floor_seq=page.floor_seq,
    )


def _scope(body: m.RevokeSessionsRequest) -> RevokeScope:
    """Return what a request wants ended.

    Raises:
        Refused: invalid_argument; no scope, or an id that belongs to another scope.
    """
    named = {name for name in ("session_id", "device_id") if getattr(body, name)}
    scopes: dict[int, tuple[RevokeScope, set[str]]] = {
        m.REVOKE_SCOPE_SESSION: (ThisSession(body.session_id), {"session_id"}),
        m.REVOKE_SCOPE_DEVICE: (ThisDevice(body.device_id), {"device_id"}),
        m.REVOKE_SCOPE_OTHERS: (OtherSessions(), set()),
        m.REVOKE_SCOPE_ALL: (AllSessions(), set()),
    }
    found = scopes.get(body.scope)
    if found is None:
        raise invalid_argument("scope", "SESSION, DEVICE, OTHERS or ALL")
    scope, wanted = found
    for name in sorted(named ^ wanted):
        raise invalid_argument(name, "named for its own scope, and only for that")
    return scope
