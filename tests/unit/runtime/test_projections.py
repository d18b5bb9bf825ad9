"""The fold of runs and its hash, on values."""

from __future__ import annotations

import time

import attrs
import pytest
from google.protobuf import struct_pb2

from khala_contracts import kinds
from runtime.core.projections import (
    FOLDED_KINDS,
    TITLE_CHARACTERS_MAX,
    ProjectionFailed,
    RunSummary,
    SourceEvent,
    fold_events,
    hash_summaries,
)
from runtime.core.run_state_machine import RunState

EMPTY = RunSummary(run_id="run_a", owner_user_id="usr_a", org_id=None)


def event(seq: int, kind: str, data: dict[str, object] | None = None, *, payload: bytes = b"") -> SourceEvent:
    """Return an event whose clock is its position."""
    if data is not None:
        payload = kinds.encode_payload("run_events", kind, data)
    return SourceEvent(seq, kind, payload, seq * 1_000)


def started(seq: int = 1, **attributes: str) -> SourceEvent:
    """Return the first event of a run."""
    return event(seq, "run.started", {"name": "fix", "attributes": attributes})


def test_a_life() -> None:
    """Name, title, state, counts and times from the events alone."""
    summary = fold_events(
        EMPTY,
        [
            started(title="Fix it"),
            event(2, "step.started"),
            event(3, "thought"),
            event(
                4, "run.state_changed", {"from_state": "RUN_STATE_RUNNING", "to_state": "RUN_STATE_PAUSED"}
            ),
            event(5, "run.finished", {"state": "RUN_STATE_FAILED"}),
        ],
    )
    assert summary == RunSummary(
        run_id="run_a", owner_user_id="usr_a", org_id=None, name="fix", title="Fix it",
        state=RunState.FAILED, event_count=5, step_count=1, started_at_us=1_000, last_event_at_us=5_000,
        finished_at_us=5_000, applied_seq=5,
    )  # fmt: skip


def test_the_title_is_what_the_agent_says() -> None:
    """The attribute, then each run.title; other custom events and other data leave it as it is."""
    summary = fold_events(EMPTY, [started()])
    assert summary.title == ""
    said: tuple[tuple[int, dict[str, object], str], ...] = (
        (2, {"name": "run.title", "data": "One"}, "One"),
        (3, {"name": "progress", "data": "Two"}, "One"),
        (4, {"name": "run.title", "data": {"text": "Three"}}, "One"),
        (5, {"name": "run.title"}, "One"),
        (6, {"name": "run.title", "data": ""}, ""),
    )
    for seq, data, title in said:
        summary = fold_events(summary, [event(seq, "custom", data)])
        assert summary.title == title


@pytest.mark.parametrize("length", [TITLE_CHARACTERS_MAX, TITLE_CHARACTERS_MAX + 1])
def test_a_title_is_cut(length: int) -> None:
    """At the limit it is whole, one beyond it is cut; by characters, never inside one."""
    text = "ä" * length
    by_attribute = fold_events(EMPTY, [started(title=text)])
    by_event = fold_events(by_attribute, [event(2, "custom", {"name": "run.title", "data": text})])
    assert by_attribute.title == by_event.title == "ä" * TITLE_CHARACTERS_MAX


def test_a_title_that_cannot_be_stored_loses_what_cannot_be() -> None:
    """NUL is allowed in an event and not in PostgreSQL's text; it does not count for the length."""
    text = "\x00a\x00" + "b" * TITLE_CHARACTERS_MAX
    summary = fold_events(EMPTY, [started(), event(2, "custom", {"name": "run.title", "data": text})])
    assert summary.title == "a" + "b" * (TITLE_CHARACTERS_MAX - 1)
    assert fold_events(EMPTY, [started(title="a\x00b")]).title == "ab"


def test_data_that_is_no_title_costs_nothing_like_its_size() -> None:
    """A step of 64 sources, each with the largest custom event: mapped to JSON it would take seconds."""
    data = struct_pb2.Value()
    data.list_value.ParseFromString(b"\x0a\x02\x32\x00" * 65_000)
    custom_cls = kinds.payload_type("run_events", "custom").message_cls
    for name in (b"other", b"run.title"):
        payload = b"\x0a%c%b" % (len(name), name) + _field(2, data.SerializeToString())
        times = [time.process_time()]
        for _ in range(3):
            custom_cls.FromString(payload)
        times.append(time.process_time())
        for _ in range(3):
            assert fold_events(EMPTY, [event(1, "custom", payload=payload)]).title == ""
        times.append(time.process_time())
        # Measured: as long as parsing; through JSON ten times as long.
        assert times[2] - times[1] < 4 * (times[1] - times[0])


def _field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field of a protobuf message."""
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def test_what_is_applied_is_discarded() -> None:
    """At and below applied_seq nothing counts again; the next one does."""
    summary = fold_events(EMPTY, [started(), event(2, "step.started")])
    assert fold_events(summary, [started(), event(2, "step.started")]) == summary
    again = fold_events(summary, [event(2, "step.started"), event(3, "step.started")])
    assert (again.step_count, again.event_count, again.applied_seq) == (2, 3, 3)


def test_a_hole_is_an_error() -> None:
    """Position + 2 is refused, from the start too."""
    with pytest.raises(ProjectionFailed, match="seq=3 after 1"):
        fold_events(EMPTY, [started(), event(3, "thought")])
    with pytest.raises(ProjectionFailed):
        fold_events(EMPTY, [started(seq=2)])


@pytest.mark.parametrize("kind", FOLDED_KINDS)
def test_undecodable_payloads_are_errors_where_they_are_read(kind: str) -> None:
    """A kind that the fold reads must decode; of all others the payload does not matter."""
    with pytest.raises(ProjectionFailed, match="undecodable"):
        fold_events(EMPTY, [event(1, kind, payload=b"\xff")])
    assert fold_events(EMPTY, [event(1, "observation", payload=b"\xff")]).event_count == 1


@pytest.mark.parametrize(("kind", "field"), [("run.state_changed", "to_state"), ("run.finished", "state")])
def test_a_state_that_this_build_does_not_know_is_an_error(kind: str, field: str) -> None:
    """Unspecified is no state: better an alarm than a wrong list."""
    with pytest.raises(ProjectionFailed, match="no such state"):
        fold_events(EMPTY, [event(1, kind, {})])
    assert fold_events(EMPTY, [event(1, kind, {field: "RUN_STATE_PAUSED"})]).state is RunState.PAUSED


def test_an_erased_event_still_counts() -> None:
    """A tombstone keeps its place."""
    summary = fold_events(fold_events(EMPTY, [started()]), [event(2, "khala.erased", payload=b"\xff")])
    assert (summary.event_count, summary.name) == (2, "fix")


def test_the_hash_depends_on_rows_and_not_on_their_order() -> None:
    """One field of one row changes it; another order does not; no rows have a hash too."""
    rows = [attrs.evolve(EMPTY, run_id=f"run_{letter}") for letter in "abc"]
    whole = hash_summaries(rows)
    assert hash_summaries(reversed(rows)) == whole
    assert len(whole) == len(hash_summaries([])) == 32
    for change in (
        {"title": "x"}, {"name": "x"}, {"state": RunState.PAUSED}, {"applied_seq": 1}, {"org_id": "org_a"},
        {"event_count": 1}, {"step_count": 1}, {"started_at_us": 1}, {"last_event_at_us": 1},
        {"finished_at_us": 1}, {"owner_user_id": "usr_b"}, {"run_id": "run_d"},
    ):  # fmt: skip
        assert hash_summaries([*rows[:2], attrs.evolve(rows[2], **change)]) != whole
    assert hash_summaries(rows[:2]) != whole
