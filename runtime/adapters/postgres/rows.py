"""Rows to domain values and back: column names, times and JSON are known here only."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from khala_contracts.chain import chain_start
from khala_contracts.topics import Lineage, TopicName, format_run_events
from runtime.core.commands import RunFacts
from runtime.core.journal_calls import AppendResult, Locked, StoredKey
from runtime.core.message_pages import PageStart
from runtime.core.run_state_machine import RunState
from runtime.ports import EventPage, EventRow, MessagePage, RunRecord, TopicRecord

if TYPE_CHECKING:
    from khala_service.adapters.postgres import Row
    from runtime.core.journal_calls import AppendCall, FinishCall, LockCall

__all__ = [
    "append_args",
    "append_result",
    "event_page",
    "finish_args",
    "lock_args",
    "locked_state",
    "message_page",
    "run_record",
    "topic_record",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_EVENT_COLUMNS: Final = (
    "event_ids",
    "kinds",
    "payloads",
    "schema_versions",
    "actors",
    "request_ids",
    "committed_ats",
)


def to_us(value: datetime) -> int:
    """Return a timestamptz as Unix microseconds, exactly."""
    return (value - _EPOCH) // _MICROSECOND


def to_datetime(us: int | None) -> datetime | None:
    """Return Unix microseconds as what the driver takes for a timestamptz."""
    return None if us is None else _EPOCH + us * _MICROSECOND


def lock_args(generation: int, call: LockCall) -> list[object]:
    """Return the arguments of lock_batch_v1."""
    keys = list(call.keys.values())
    ordinals = {key_id: ordinal for ordinal, key_id in enumerate(call.keys, start=1)}
    facts = [new_run.command.facts for new_run in call.new_runs]
    return [
        generation,
        [key.scope for key in keys],
        [key.key for key in keys],
        [key.fingerprint for key in keys],
        [key.lifetime_s for key in keys],
        list(call.run_ids),
        [run.run_id for run in facts],
        [ordinals[new_run.key] for new_run in call.new_runs],
        [run.owner_user_id for run in facts],
        [run.org_id for run in facts],
        [run.name or None for run in facts],
        [run.agent for run in facts],
        [run.source for run in facts],
        [json.dumps(dict(run.attributes)) for run in facts],
        [target.topic for target in call.targets],
        # The head of a run's topic was made with the run; no command may make one for a ghost.
        [target.topic_class if target.run_id is None else None for target in call.targets],
        [target.owner_user_id for target in call.targets],
        [target.org_id for target in call.targets],
    ]


def locked_state(row: Row, call: LockCall) -> Locked:
    """Return what lock_batch_v1 found; its arrays are aligned with the call."""
    known_keys: dict[tuple[str, str], StoredKey] = {}
    stored = zip(call.keys, row["key_is_new"] or (), strict=True)
    for index, (key_id, is_new) in enumerate(stored):
        if not is_new:
            answer = row["stored_responses"][index]
            assert answer is not None, "a committed key has an answer"
            known_keys[key_id] = StoredKey(row["stored_fingerprints"][index], answer)
    run_states = zip(call.run_ids, row["run_states"] or (), strict=True)
    holders = zip(call.new_runs, row["name_holders"] or (), strict=True)
    head_seqs = zip(call.targets, row["head_seqs"] or (), strict=True)
    return Locked(
        known_keys=known_keys,
        run_states={run_id: RunState(state) for run_id, state in run_states if state is not None},
        name_holders={
            new_run.command.facts.run_id: holder for new_run, holder in holders if holder is not None
        },
        head_seqs={target.topic: head_seq for target, head_seq in head_seqs if head_seq is not None},
        locked_at_us=to_us(row["locked_at"]),
    )


def append_args(generation: int, call: AppendCall) -> list[object]:
    """Return the arguments of append_v1."""
    targets = call.targets
    return [
        generation,
        [target.topic for target in targets],
        [target.topic_class for target in targets],
        [target.owner_user_id for target in targets],
        [target.org_id for target in targets],
        call.event_counts,
        call.event_ids,
        call.kinds,
        call.payloads,
        call.schema_versions,
        call.actors,
        call.request_ids,
        [None] * len(call.event_ids) if call.compaction_keys is None else call.compaction_keys,
    ]


def append_result(row: Row) -> AppendResult:
    """Return what append_v1 wrote."""
    return AppendResult(
        seqs_before=row["seqs_before"],
        chains_before=row["chains_before"],
        chains=row["chains"],
        committed_at_us=to_us(row["committed_at"]),
    )


def finish_args(call: FinishCall) -> list[object]:
    """Return the arguments of finish_batch_v1."""
    updates = call.run_updates
    return [
        [scope for scope, _ in call.answers],
        [key for _, key in call.answers],
        [None if stored is None else stored.fingerprint for stored in call.answers.values()],
        [None if stored is None else stored.answer for stored in call.answers.values()],
        [update.run_id for update in updates],
        [update.state.value for update in updates],
        [to_datetime(update.finished_at_us) for update in updates],
    ]


def topic_record(row: Row) -> TopicRecord:
    """Return a head row."""
    return TopicRecord(
        topic=TopicName(row["topic"]),
        topic_class=row["topic_class"],
        lineage=Lineage(row["lineage"]),
        head_seq=row["head_seq"],
        head_chain=row["head_chain"],
        head_bytes_total=row["head_bytes_total"],
        floor_seq=row["floor_seq"],
        floor_chain=row["floor_chain"],
        floor_bytes_total=row["floor_bytes_total"],
        floor_reason=row["floor_reason"],
        owner_user_id=row["owner_user_id"],
        org_id=row["org_id"],
    )


def run_record(row: Row) -> RunRecord:
    """Return a run with the position of its topic."""
    attributes: dict[str, Any] = json.loads(row["attributes"])
    facts = RunFacts(
        run_id=row["run_id"],
        topic=format_run_events(row["run_id"]),
        owner_user_id=row["owner_user_id"],
        org_id=row["org_id"],
        name=row["name"] or "",
        agent=row["agent"],
        source=row["source"],
        attributes=attributes,
    )
    return RunRecord(
        facts=facts,
        state=RunState(row["state"]),
        created_at_us=to_us(row["created_at"]),
        finished_at_us=None if row["finished_at"] is None else to_us(row["finished_at"]),
        lineage=Lineage(row["lineage"]),
        head_seq=row["head_seq"],
        head_chain=row["head_chain"],
    )


def event_page(row: Row, *, after_seq: int) -> EventPage:
    """Return a page of the log."""
    topic = topic_record(row)
    columns = (row[name] or () for name in _EVENT_COLUMNS)
    events = tuple(
        EventRow(event_id, seq, kind, payload, version, actor, request_id, to_us(committed_at))
        for seq, (event_id, kind, payload, version, actor, request_id, committed_at) in enumerate(
            zip(*columns, strict=True), start=after_seq + 1
        )
    )
    chain_before = row["chain_before"] or b""
    if after_seq == 0:
        chain_before = chain_start(topic.topic)
    elif after_seq == topic.floor_seq - 1:
        chain_before = topic.floor_chain
    return EventPage(topic, events, chain_before, (row["last_chain"] or b"") if events else chain_before)


def message_page(row: Row, *, after_seq: int) -> MessagePage:
    """Return a page of the journal."""
    topic = topic_record(row)
    start = PageStart(
        topic=topic.topic,
        lineage=topic.lineage,
        head_seq=topic.head_seq,
        floor_seq=topic.floor_seq,
        floor_chain=topic.floor_chain,
        floor_reason=topic.floor_reason,
        chain_before=row["chain_before"] or b"",
    )
    last_seq, last_chain = row["last_seq"] or after_seq, row["last_chain"] or b""
    return MessagePage(topic, start, row["entries"] or b"", last_seq, last_chain)
