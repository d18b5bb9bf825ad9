"""Routes of the audit log: nodes and the runtime add to it, operators read it."""

from typing import Final

from google.protobuf import struct_pb2
from quart import Response, request
from quart_trio import QuartTrio

from control.actors.node_audit import NodeAudit
from control.adapters.http.requests import number_argument
from control.core.node_audit import (
    PAGE_DEFAULT,
    AuditGap,
    AuditPage,
    AuditQuery,
    AuditRecord,
    NodeAction,
    NodeBatch,
    NodeEvent,
    Unwritten,
    check_node_batch,
    check_runtime_batch,
)
from khala_contracts import http_messages as m
from khala_contracts import strict_json
from khala_contracts.wire_enums import EnumMap
from khala_service.admin_routes import AdminToken
from khala_service.http_edge import read_body, respond
from khala_service.service_auth import ServiceCredentials

_ROUTE: Final = "/internal/v1/audit"
_ACTIONS: Final = EnumMap(NodeAction, m.NodeAuditAction.DESCRIPTOR)
_GAPS: Final = EnumMap(AuditGap, m.AuditGap.DESCRIPTOR)


def add_audit_routes(
    app: QuartTrio,
    audit: NodeAudit,
    *,
    nodes: ServiceCredentials,
    runtimes: ServiceCredentials,
    admin: AdminToken | None,
) -> None:
    """Register them; without an admin token there is none to read."""

    @app.post(_ROUTE)
    async def append() -> Response:
        authorization = request.headers.get("Authorization")
        is_node = nodes.caller_of(authorization) is not None
        if not is_node:
            runtimes.require(authorization)
        batch = _read_batch(await read_body(m.AppendAuditRequest))
        check = check_node_batch if is_node else check_runtime_batch
        check(batch)
        return respond(m.AppendAuditResponse(written=await audit.append(batch)))

    if admin is None:
        return

    @app.get(_ROUTE)
    async def read() -> Response:
        admin.require()
        asked = request.args.get
        page = await audit.read(
            AuditQuery(
                after=number_argument("after") or 0,
                connection_id=asked("connection_id"),
                request_id=asked("request_id"),
                session_id=asked("session_id"),
                user_id=asked("user_id"),
                action=asked("action"),
                from_ms=number_argument("from"),
                before_ms=number_argument("before"),
                limit=PAGE_DEFAULT if (limit := number_argument("limit")) is None else limit,
            )
        )
        return respond(page_message(page))


def page_message(page: AuditPage) -> m.ListAuditResponse:
    """Return a page of the log."""
    return m.ListAuditResponse(
        rows=[_row_message(row) for row in page.rows], next_after=page.next_after, has_more=page.has_more
    )


def _row_message(row: AuditRecord) -> m.AuditRow:
    # Numbers of a Struct are floats, which hold no seq above 2^53 exactly: integers travel as text, as everywhere.
    detail = strict_json.fill(_as_text(row.detail), struct_pb2.Struct)
    return m.AuditRow(
        audit_id=row.audit_id,
        occurred_at=row.occurred_at_ms,
        action=row.action,
        outcome=row.outcome,
        reason=row.reason,
        request_id=row.request_id,
        principal_kind=row.principal_kind,
        principal_id=row.principal_id,
        user_id=row.user_id,
        session_id=row.session_id,
        device_id=row.device_id,
        key_id=row.key_id,
        org_id=row.org_id,
        jti=row.jti,
        connection_id=row.connection_id,
        node_id=row.node_id,
        detail=detail,
    )


def _as_text(value: object) -> object:
    if isinstance(value, dict):
        return {name: _as_text(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _read_batch(body: m.AppendAuditRequest) -> NodeBatch:
    return NodeBatch(
        node_id=body.node_id,
        batch_id=body.batch_id,
        events=tuple(_read_event(event) for event in body.events),
        unwritten=tuple(
            Unwritten(
                action=_ACTIONS.from_wire_untrusted(unwritten.action, "unwritten.action"),
                reason=unwritten.reason,
                gap=_GAPS.from_wire_untrusted(unwritten.gap, "unwritten.gap"),
                count=unwritten.count,
                since_ms=unwritten.since,
            )
            for unwritten in body.unwritten
        ),
    )


def _read_event(event: m.NodeAuditEvent) -> NodeEvent:
    kind = event.principal_kind
    return NodeEvent(
        action=_ACTIONS.from_wire_untrusted(event.action, "events.action"),
        reason=event.reason,
        cause=event.cause,
        noted_at_ms=event.noted_at,
        connection_id=event.connection_id,
        request_id=event.request_id,
        user_id=event.user_id,
        session_id=event.session_id,
        device_id=event.device_id,
        principal_kind=m.PRINCIPAL_KINDS.from_wire_untrusted(kind, "events.principal_kind") if kind else None,
        principal_id=event.principal_id,
        jti=event.jti,
        topic=event.topic,
        positions=tuple((position.topic, position.seq) for position in event.positions),
        topic_count=event.topic_count,
        limit=event.limit,
        limit_value=event.limit_value,
    )
