"""Domain values of reads as messages of openagents.runtime.v1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from khala_contracts import http_messages as m
from runtime.core.responses import run_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from khala_contracts.topics import TopicName
    from runtime.ports import EventPage, RunRecord, TopicRecord

__all__ = ["events_message", "owners_message", "record_message", "topic_message"]


def record_message(record: RunRecord) -> m.Run:
    """Return a run as it was read."""
    return run_message(
        record.facts,
        record.state,
        created_at_us=record.created_at_us,
        finished_at_us=record.finished_at_us,
        lineage=record.lineage,
        head_seq=record.head_seq,
        head_chain=record.head_chain,
    )


def events_message(page: EventPage, *, after_seq: int) -> m.ListEventsResponse:
    """Return a page of history; its watermark is the position of its last event."""
    topic = page.topic
    last_seq = page.events[-1].seq if page.events else after_seq
    return m.ListEventsResponse(
        events=[
            m.Event(
                event_id=event.event_id,
                topic=topic.topic,
                seq=event.seq,
                kind=event.kind,
                payload_bytes=event.payload,
                schema_version=event.schema_version,
                committed_at_us=event.committed_at_us,
                request_id=event.request_id,
                actor=event.actor,
            )
            for event in page.events
        ],
        watermark=m.Watermark(topic=topic.topic, lineage=topic.lineage, seq=last_seq, chain=page.last_chain),
        head_seq=topic.head_seq,
        floor_seq=topic.floor_seq,
        chain_before=page.chain_before,
    )


def topic_message(record: TopicRecord) -> m.TopicInfo:
    """Return where a topic stands."""
    return m.TopicInfo(
        topic=record.topic,
        topic_class=record.topic_class,
        lineage=record.lineage,
        head_seq=record.head_seq,
        head_chain=record.head_chain,
        floor_seq=record.floor_seq,
        floor_chain=record.floor_chain,
        floor_reason=record.floor_reason,
        retained_bytes=record.head_bytes_total - record.floor_bytes_total,
    )


def owners_message(names: Iterable[str], found: Mapping[TopicName, TopicRecord]) -> m.TopicOwnersResponse:
    """Return the owners in the order of the question; what is no topic is not known."""
    by_name: Mapping[str, TopicRecord] = {str(topic): record for topic, record in found.items()}
    owners = []
    for name in names:
        record = by_name.get(name)
        owners.append(
            m.TopicOwner(topic=name)
            if record is None
            else m.TopicOwner(
                topic=name, known=True, owner_user_id=record.owner_user_id or "", org_id=record.org_id or ""
            )
        )
    return m.TopicOwnersResponse(owners=owners)
