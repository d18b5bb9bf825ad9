"""Writes what the runtime refused for a limit into control's audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from khala_contracts import http_messages as m
from khala_service.errors import PeerRefused, Unavailable
from runtime.actors.limit_audit import LimitBatchRefused

if TYPE_CHECKING:
    from khala_service.adapters.http_client import ServiceHttpClient
    from runtime.actors.limit_audit import ExceededLimit, LimitBatch

__all__ = ["HttpLimitAuditLog"]

AUDIT_ROUTE: Final = "/internal/v1/audit"
# Statuses that are about our credential or the route, and may pass.
_NOT_THE_BATCH: Final = frozenset({401, 403, 404, 405})


class HttpLimitAuditLog:
    """LimitAuditLog over control's internal route."""

    def __init__(self, control: ServiceHttpClient, runtime_id: str) -> None:
        """Write as ``runtime_id``, where a node would write its own id."""
        self._control = control
        self._runtime_id = runtime_id

    async def append(self, batch: LimitBatch) -> None:
        """Have a batch written; see LimitAuditLog."""
        request = m.AppendAuditRequest(
            node_id=self._runtime_id,
            batch_id=batch.batch_id,
            events=[_event(row) for row in batch.rows],
            unwritten=[
                m.UnwrittenAudit(
                    action=m.NODE_AUDIT_ACTION_LIMIT,
                    reason=reason,
                    gap=m.AUDIT_GAP_RATIONED,
                    count=count,
                    since=batch.since_ms,
                )
                for reason, count in batch.counted.items()
            ],
        )
        try:
            await self._control.post(AUDIT_ROUTE, request, m.AppendAuditResponse)
        except PeerRefused as refused:
            if refused.http_status in _NOT_THE_BATCH:
                raise Unavailable(f"control_{refused.code}") from refused
            raise LimitBatchRefused(refused.code) from refused


def _event(row: ExceededLimit) -> m.NodeAuditEvent:
    event = m.NodeAuditEvent(
        action=m.NODE_AUDIT_ACTION_LIMIT,
        reason=row.reason.name,
        noted_at=row.noted_at_ms,
        # There is no connection: the request stands for it.
        connection_id=row.request_id,
        request_id=row.request_id,
        limit=row.limit,
        limit_value=row.value,
    )
    if row.principal is not None:
        event.MergeFrom(
            m.NodeAuditEvent(
                user_id=row.principal.user_id,
                device_id=row.principal.device_id,
                principal_kind=m.PRINCIPAL_KINDS.to_wire(row.principal.kind),
                principal_id=row.principal.principal_id,
            )
        )
    return event
