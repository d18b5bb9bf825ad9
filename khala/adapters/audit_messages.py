"""A node's audit events as the message that control reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from khala.core.access_audit import AuditAction, AuditGap
from khala_contracts import http_messages as m
from khala_contracts.wire_enums import EnumMap

if TYPE_CHECKING:
    from khala.core.access_audit import AuditBatch, AuditEvent

__all__ = ["batch_message"]

_ACTIONS: Final = EnumMap(AuditAction, m.NodeAuditAction.DESCRIPTOR)
_GAPS: Final = EnumMap(AuditGap, m.AuditGap.DESCRIPTOR)


def batch_message(batch: AuditBatch, *, node_id: str) -> m.AppendAuditRequest:
    """Return a batch as it travels."""
    return m.AppendAuditRequest(
        node_id=node_id,
        batch_id=batch.batch_id,
        events=[_event_message(event) for event in batch.events],
        unwritten=[
            m.UnwrittenAudit(
                action=_ACTIONS.to_wire(count.action),
                reason=count.reason,
                gap=_GAPS.to_wire(count.gap),
                count=count.count,
                since=count.since_ms,
            )
            for count in batch.unwritten
        ],
    )


def _event_message(event: AuditEvent) -> m.NodeAuditEvent:
    message = m.NodeAuditEvent(
        action=_ACTIONS.to_wire(event.action),
        reason="" if event.reason is None else event.reason.name,
        cause=event.cause,
        noted_at=event.noted_at_ms,
        connection_id=event.connection_id,
        request_id=event.request_id,
        topic=event.topic,
        positions=[m.TopicPosition(topic=topic, seq=seq) for topic, seq in event.positions],
        topic_count=event.topic_count,
        limit=event.limit,
        limit_value=event.limit_value,
    )
    subject = event.subject
    if subject is not None:
        message.MergeFrom(
            m.NodeAuditEvent(
                user_id=subject.user_id,
                session_id=subject.session_id,
                device_id=subject.device_id,
                principal_kind=m.PRINCIPAL_KINDS.to_wire(subject.principal_kind),
                principal_id=subject.principal_id,
                jti=subject.jti,
            )
        )
    return message
