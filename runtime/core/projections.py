"""The read model of runs: a pure fold of each run's events, and the one hash of it.

Pure. The fold knows nothing but the events and whose run it is, so that a rebuild from the first event
gives what live application gave, byte for byte (INV-19). Applying is idempotent: what is at or below
``applied_seq`` is discarded, so no event counts twice; a hole is an error, never skipped.

The title is what the agent itself calls the run: the attribute ``title`` of run.started, then whatever
a ``custom`` event with the name ``run.title`` says. Nothing else of a payload gets into a summary.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final, Protocol, cast

import attrs
from google.protobuf.message import DecodeError

from khala_contracts import kinds
from runtime.core.run_state_machine import (
    KIND_FINISHED,
    KIND_STARTED,
    KIND_STATE_CHANGED,
    RunState,
    fold_state,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.struct_pb2 import Value

__all__ = [
    "FOLDED_KINDS",
    "PROJECTOR",
    "TITLE_CHARACTERS_MAX",
    "ProjectionFailed",
    "RunSummary",
    "SourceEvent",
    "fold_events",
    "hash_summaries",
]

# Name of this projector in its checkpoints.
PROJECTOR: Final = "run_summaries"
KIND_STEP: Final = "step.started"
KIND_CUSTOM: Final = "custom"
TITLE_EVENT: Final = "run.title"
TITLE_ATTRIBUTE: Final = "title"
# A line in a list. Longer: a frame of user_runs could outgrow its class.
TITLE_CHARACTERS_MAX: Final = 200
# Kinds whose payload the fold reads; of all others the kind alone counts.
FOLDED_KINDS: Final = (KIND_STARTED, KIND_STATE_CHANGED, KIND_FINISHED, KIND_CUSTOM)
_STATE_PREFIX: Final = "RUN_STATE_"
_UNDECODABLE: Final = "payload_base64"


class ProjectionFailed(Exception):
    """An event cannot be applied: a hole before it, or a payload that is not what its kind says."""


@attrs.frozen(kw_only=True)
class RunSummary:
    """One row of the read model: everything up to ``applied_seq``, nothing after it.

    Invariant: ``event_count == applied_seq``, because a topic has no holes.
    """

    run_id: str
    owner_user_id: str
    org_id: str | None
    name: str = ""
    title: str = ""
    state: RunState = RunState.CREATED
    event_count: int = 0
    step_count: int = 0
    # Unix microseconds, the database's clock.
    started_at_us: int | None = None
    last_event_at_us: int | None = None
    finished_at_us: int | None = None
    applied_seq: int = 0


class _Custom(Protocol):
    """The message of a custom event, as far as it is read here."""

    name: str
    data: Value


@attrs.frozen
class SourceEvent:
    """An event as the fold sees it; the payload is empty for kinds outside FOLDED_KINDS."""

    seq: int
    kind: str
    payload: bytes = attrs.field(repr=False)
    committed_at_us: int


def fold_events(summary: RunSummary, events: Iterable[SourceEvent]) -> RunSummary:
    """Return the summary after more events of its run.

    Args:
        summary: The fold of everything up to its ``applied_seq``.
        events: Ascending; those at or below ``applied_seq`` are discarded.

    Raises:
        ProjectionFailed: An event is missing before one of these, or one cannot be read.
    """
    name, title, state = summary.name, summary.title, summary.state
    event_count, step_count, applied_seq = summary.event_count, summary.step_count, summary.applied_seq
    started_at_us, finished_at_us = summary.started_at_us, summary.finished_at_us
    last_event_at_us = summary.last_event_at_us
    for event in events:
        if event.seq <= applied_seq:
            continue
        if event.seq != applied_seq + 1:
            raise ProjectionFailed(f"run={summary.run_id} seq={event.seq} after {applied_seq}")
        applied_seq = event.seq
        event_count += 1
        last_event_at_us = event.committed_at_us
        if event.kind == KIND_STEP:
            step_count += 1
        elif event.kind == KIND_CUSTOM:
            title = _said_title(event, title, summary.run_id)
        elif event.kind in FOLDED_KINDS:
            data = _decode(event, summary.run_id)
            if event.kind == KIND_STARTED:
                name = str(data["name"])
                title = _started_title(data)
                started_at_us = event.committed_at_us
            state = _next_state(state, event, data, summary.run_id)
            finished_at_us = event.committed_at_us if state.is_terminal else None
    return attrs.evolve(
        summary,
        name=name,
        title=title,
        state=state,
        event_count=event_count,
        step_count=step_count,
        started_at_us=started_at_us,
        last_event_at_us=last_event_at_us,
        finished_at_us=finished_at_us,
        applied_seq=applied_seq,
    )


def hash_summaries(summaries: Iterable[RunSummary]) -> bytes:
    """Return the canonical hash of rows of the read model: 32 bytes, the same in whatever order they come."""
    digest = hashlib.sha256()
    for line in sorted(map(_canonical, summaries)):
        digest.update(line)
    return digest.digest()


def _canonical(summary: RunSummary) -> bytes:
    fields = attrs.asdict(summary) | {"state": summary.state.value}
    # run_id is first in the line as well as in the object, so that lines sort by it.
    return f"{summary.run_id} {json.dumps(fields, sort_keys=True, ensure_ascii=True)}\n".encode()


def _decode(event: SourceEvent, run_id: str) -> dict[str, object]:
    data = kinds.decode_payload(event.kind, event.payload)
    if _UNDECODABLE in data:
        raise _undecodable(event, run_id)
    return data


def _undecodable(event: SourceEvent, run_id: str) -> ProjectionFailed:
    return ProjectionFailed(f"run={run_id} seq={event.seq} kind={event.kind}: undecodable")


def _started_title(data: dict[str, object]) -> str:
    attributes = data["attributes"]
    said = attributes.get(TITLE_ATTRIBUTE, "") if isinstance(attributes, dict) else ""
    return _line(str(said))


def _said_title(event: SourceEvent, title: str, run_id: str) -> str:
    # Parsed, not mapped to JSON: anybody's data of 256 KiB would cost 0.1 s, and a step reads many.
    try:
        parsed = kinds.payload_type("run_events", KIND_CUSTOM).message_cls.FromString(event.payload)
    except DecodeError:
        raise _undecodable(event, run_id) from None
    custom = cast("_Custom", parsed)
    if custom.name != TITLE_EVENT or not custom.data.HasField("string_value"):
        return title
    return _line(custom.data.string_value)


def _line(text: str) -> str:
    # An event may carry NUL, PostgreSQL's text cannot: with it the run would be set aside for ever.
    return text.replace("\x00", "")[:TITLE_CHARACTERS_MAX]


def _next_state(state: RunState, event: SourceEvent, data: dict[str, object], run_id: str) -> RunState:
    to_state: RunState | None = None
    if event.kind != KIND_STARTED:
        word = str(data["state" if event.kind == KIND_FINISHED else "to_state"])
        to_state = RunState.__members__.get(word.removeprefix(_STATE_PREFIX))
    following = fold_state(state, event.kind, to_state)
    if following is None:
        raise ProjectionFailed(f"run={run_id} seq={event.seq} kind={event.kind}: no such state")
    return following
