"""Rows of projections to domain values and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from khala_contracts.topics import TopicName
from runtime.adapters.postgres.rows import to_datetime, to_us
from runtime.core.projection_step import LockedSource, SourcePage
from runtime.core.projections import PROJECTOR, RunSummary, SourceEvent
from runtime.core.run_state_machine import RunState
from runtime.core.summary_pace import Published
from runtime.ports import SourcePosition, StoredSummary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from khala_service.adapters.postgres import Row
    from runtime.core.journal_calls import AppendResult
    from runtime.core.projection_step import CheckpointMove

__all__ = [
    "checkpoint_args",
    "locked_source",
    "source_page",
    "source_position",
    "stored_summary",
    "summary_args",
    "summary_row",
]


def summary_row(row: Row) -> RunSummary:
    """Return a row of the read model."""
    return RunSummary(
        run_id=row["run_id"],
        owner_user_id=row["owner_user_id"],
        org_id=row["org_id"],
        name=row["name"],
        title=row["title"],
        state=RunState(row["state"]),
        event_count=row["event_count"],
        step_count=row["step_count"],
        started_at_us=_us(row["started_at"]),
        last_event_at_us=_us(row["last_event_at"]),
        finished_at_us=_us(row["finished_at"]),
        applied_seq=row["applied_seq"],
    )


def summary_args(summaries: Sequence[RunSummary]) -> list[object]:
    """Return the arguments of apply_run_summaries_v1."""
    return [
        [summary.run_id for summary in summaries],
        [summary.owner_user_id for summary in summaries],
        [summary.org_id for summary in summaries],
        [summary.name for summary in summaries],
        [summary.title for summary in summaries],
        [summary.state.value for summary in summaries],
        [summary.event_count for summary in summaries],
        [summary.step_count for summary in summaries],
        [to_datetime(summary.started_at_us) for summary in summaries],
        [to_datetime(summary.last_event_at_us) for summary in summaries],
        [to_datetime(summary.finished_at_us) for summary in summaries],
        [summary.applied_seq for summary in summaries],
    ]


def locked_source(row: Row, summaries: Mapping[str, RunSummary]) -> LockedSource:
    """Return what lock_checkpoints_v2 found, with the row of the read model."""
    published = None
    if row["published_at"] is not None:
        published = Published(
            row["published_seq"],
            RunState(row["published_state"]),
            row["published_title"],
            to_us(row["published_at"]),
        )
    topic = TopicName(row["topic"])
    return LockedSource(
        topic, row["owner_user_id"], row["org_id"], row["applied_seq"], published, summaries.get(topic)
    )


def source_page(row: Row, topic: TopicName) -> SourcePage:
    """Return a page of a source."""
    columns = zip(row["seqs"], row["kinds"], row["payloads"], row["committed_ats"], strict=True)
    return SourcePage(
        topic,
        tuple(SourceEvent(seq, kind, payload, to_us(at)) for seq, kind, payload, at in columns),
    )


def checkpoint_args(moves: Sequence[CheckpointMove], appended: AppendResult | None) -> list[object]:
    """Return the arguments of write_checkpoints_v1."""
    return [
        PROJECTOR,
        [move.topic for move in moves],
        [move.seq_before for move in moves],
        [move.summary.applied_seq for move in moves],
        [move.summary.applied_seq if move.told else None for move in moves],
        [move.summary.state.value if move.told else None for move in moves],
        [move.summary.title if move.told else None for move in moves],
        None if appended is None else to_datetime(appended.committed_at_us),
    ]


def source_position(row: Row) -> SourcePosition:
    """Return where a source and its checkpoint stand."""
    return SourcePosition(TopicName(row["topic"]), row["head_seq"], row["applied_seq"])


def stored_summary(row: Row) -> StoredSummary:
    """Return a source with its checkpoint and its row of the read model."""
    summary = None
    if row["run_id"] is not None:
        summary = summary_row(row)
    return StoredSummary(
        topic=TopicName(row["topic"]),
        owner_user_id=row["source_owner_user_id"],
        org_id=row["source_org_id"],
        head_seq=row["head_seq"],
        checkpoint_seq=row["checkpoint_seq"],
        summary=summary,
    )


def _us(at: datetime | None) -> int | None:
    return None if at is None else to_us(at)
