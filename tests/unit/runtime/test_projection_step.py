"""The pure half of a projector's transaction: what it reads, tells, writes and remembers."""

from __future__ import annotations

import attrs
import pytest

from khala_contracts import kinds
from khala_contracts.chain import CHAIN_BYTES
from khala_contracts.topics import format_org_runs, format_user_runs
from runtime.core.journal_calls import AppendResult
from runtime.core.projection_step import (
    LockedSource,
    ProjectionStep,
    SourcePage,
    SourceRead,
    empty_summary,
)
from runtime.core.projections import ProjectionFailed, SourceEvent, fold_events
from runtime.core.run_state_machine import RunState
from runtime.core.summary_pace import PUBLISH_EVERY_US, Published
from tests.actors.runtime.rig import ORG, OTHER_USER, USER, CountingIds, make_id, topic_of

NOW_US = 1_800_000_000_000_000
A, B = topic_of(1), topic_of(2)
STARTED = kinds.encode_payload("run_events", "run.started", {"name": "n"})


def history(count: int) -> tuple[SourceEvent, ...]:
    """Return the first events of a run."""
    return tuple(
        SourceEvent(seq, "run.started" if seq == 1 else "thought", STARTED if seq == 1 else b"", NOW_US)
        for seq in range(1, count + 1)
    )


def locked(
    topic: object = A, applied_seq: int = 0, *, owner: str = USER, org_id: str | None = None
) -> LockedSource:
    """Return a source of which so much is applied, and told."""
    assert topic in (A, B)
    summary = fold_events(empty_summary(topic, owner, org_id), history(applied_seq))  # type: ignore[arg-type]
    published = Published(applied_seq, summary.state, summary.title, NOW_US) if applied_seq else None
    return LockedSource(topic, owner, org_id, applied_seq, published, summary if applied_seq else None)  # type: ignore[arg-type]


def new_step(*topics: object, **bases: object) -> ProjectionStep:
    """Return a step."""
    ids = CountingIds()
    return ProjectionStep(topics, new_event_id=lambda: ids.new("evt"), **bases)  # type: ignore[arg-type]


def appended(count: int, *, before: tuple[int, ...]) -> AppendResult:
    """Return what append_v1 answers."""
    chains = b"".join(bytes([number]) * CHAIN_BYTES for number in range(count))
    return AppendResult(list(before), [b"x" * CHAIN_BYTES] * len(before), chains, NOW_US)


def test_reads_after_the_checkpoints() -> None:
    """Each source from its own position; a source that has no head is not read."""
    step = new_step(A, B)
    assert step.reads([locked(A, 3)]) == [SourceRead(A, 3)]
    assert new_step(A, B).reads([locked(A, 3), locked(B)]) == [SourceRead(A, 3), SourceRead(B, 0)]


def test_one_call_for_all_lists() -> None:
    """Frames are grouped by list, each with its run's key; a run of an org is in two."""
    step = new_step(A, B)
    step.reads([locked(A, org_id=ORG), locked(B)])
    rows = step.fold([SourcePage(A, history(2)), SourcePage(B, history(1))], now_us=NOW_US)
    assert [row.applied_seq for row in rows] == [2, 1]
    call = step.append()
    assert call is not None
    mine, ours = format_user_runs(USER), format_org_runs(ORG)
    assert [(target.topic, target.topic_class, target.owner_user_id, target.org_id) for target in call.targets] == [
        (mine, "user_runs", USER, None), (ours, "org_runs", None, ORG),
    ]  # fmt: skip
    assert call.event_counts == [2, 1]
    assert call.compaction_keys == [make_id("run", 1), make_id("run", 2), make_id("run", 1)]
    assert len(set(call.event_ids)) == 3
    assert set(call.kinds) == {"run.summarised"}
    assert set(call.actors) == {"projector:run_summaries"}
    moves = step.finish(call, appended(3, before=(7, 0)))
    assert [(move.topic, move.seq_before, move.summary.applied_seq, move.told) for move in moves] == [
        (A, 0, 2, True), (B, 0, 1, True),
    ]  # fmt: skip
    assert [(commit.topic, commit.first_seq, commit.last_seq, len(commit.chains)) for commit in step.committed] == [
        (mine, 8, 9, 2 * CHAIN_BYTES), (ours, 1, 1, CHAIN_BYTES),
    ]  # fmt: skip


def test_two_owners_have_two_lists() -> None:
    """Nobody's run gets into somebody else's list."""
    step = new_step(A, B)
    step.reads([locked(A), locked(B, owner=OTHER_USER)])
    step.fold([SourcePage(A, history(1)), SourcePage(B, history(1))], now_us=NOW_US)
    call = step.append()
    assert call is not None
    owners = {target.topic: target.owner_user_id for target in call.targets}
    assert owners == {format_user_runs(USER): USER, format_user_runs(OTHER_USER): OTHER_USER}


def test_nothing_new_is_nothing_to_write() -> None:
    """No row, no frame, no checkpoint; the result says that nothing is held back."""
    step = new_step(A)
    step.reads([locked(A, 3)])
    assert step.fold([], now_us=NOW_US + PUBLISH_EVERY_US) == []
    assert step.append() is None
    assert step.finish(None, None) == []
    assert [(result.applied_count, result.wait_us) for result in step.results()] == [(0, None)]


def test_held_back_moves_the_checkpoint_alone() -> None:
    """Applied and not told: the row and the checkpoint move, and when it becomes due is known."""
    step = new_step(A)
    step.reads([locked(A, 3)])
    assert [row.applied_seq for row in step.fold([SourcePage(A, history(5)[3:])], now_us=NOW_US + 1)] == [5]
    assert step.append() is None
    (move,) = step.finish(None, None)
    assert (move.seq_before, move.summary.applied_seq, move.told) == (3, 5, False)
    (result,) = step.results()
    assert (result.applied_count, result.wait_us) == (2, PUBLISH_EVERY_US - 1)


def test_what_is_due_is_told_without_news() -> None:
    """Nothing to apply, something to tell: no row changes."""
    source = attrs.evolve(locked(A, 5), published=Published(3, RunState.RUNNING, "", NOW_US))
    step = new_step(A)
    step.reads([source])
    assert step.fold([], now_us=NOW_US + PUBLISH_EVERY_US) == []
    call = step.append()
    assert call is not None
    (move,) = step.finish(call, appended(1, before=(0,)))
    assert (move.seq_before, move.summary.applied_seq, move.told) == (5, 5, True)


@pytest.mark.parametrize("applied_seq", [2, 4])
def test_a_row_of_another_position_is_an_error(applied_seq: int) -> None:
    """One before the checkpoint, one after it."""
    with pytest.raises(ProjectionFailed, match="checkpoint=3"):
        new_step(A).reads([attrs.evolve(locked(A, applied_seq), applied_seq=3)])


def test_a_missing_row_is_an_error_unless_nothing_was_applied() -> None:
    """At 0 there is none yet."""
    with pytest.raises(ProjectionFailed, match="row=none"):
        new_step(A).reads([attrs.evolve(locked(A, 3), summary=None)])
    assert new_step(A).reads([locked(A, 0)]) == [SourceRead(A, 0)]


def test_a_base_replaces_the_row() -> None:
    """A rebuild starts from its own fold, and must reach the checkpoint in the same transaction."""
    base = fold_events(empty_summary(A, USER, None), history(2))
    damaged = attrs.evolve(locked(A, 3), summary=attrs.evolve(base, title="damaged"))
    step = new_step(A, bases={A: base})
    assert step.reads([damaged]) == [SourceRead(A, 2)]
    with pytest.raises(ProjectionFailed, match="log=2"):
        step.fold([], now_us=NOW_US)
    step = new_step(A, bases={A: base})
    step.reads([damaged])
    (row,) = step.fold([SourcePage(A, history(3)[2:])], now_us=NOW_US)
    assert (row.title, row.applied_seq) == ("", 3)
    assert step.append() is None
    assert step.finish(None, None) == []


def test_poison_names_its_run() -> None:
    """Whatever cannot be folded stops the step before anything is written."""
    step = new_step(A)
    step.reads([locked(A, 1)])
    poison = SourceEvent(2, "run.finished", b"\xff", NOW_US)
    with pytest.raises(ProjectionFailed, match=make_id("run", 1)):
        step.fold([SourcePage(A, (poison,))], now_us=NOW_US)


def test_a_transfer_tells_three_lists_at_once() -> None:
    """INV-29: the new owner's, the org's, and the former owner's, which is told to forget; no throttle."""
    step = new_step(A, former_owners={A: OTHER_USER})
    step.reads([locked(A, 3, org_id=ORG)])
    step.fold([SourcePage(A, history(4)[3:])], now_us=NOW_US)
    call = step.append()
    assert call is not None
    assert [target.topic for target in call.targets] == [
        format_user_runs(USER), format_org_runs(ORG), format_user_runs(OTHER_USER),
    ]  # fmt: skip
    told = [
        kinds.decode_payload(kind, payload) for kind, payload in zip(call.kinds, call.payloads, strict=True)
    ]
    assert [data["withdrawn"] for data in told] == [False, False, True]
    assert [data["head_seq"] for data in told] == ["4"] * 3


def test_the_owner_is_the_heads() -> None:
    """A row of the read model that still names a former owner is written again with the head's."""
    source = locked(A, 3)
    assert source.summary is not None
    stale = attrs.evolve(source, summary=attrs.evolve(source.summary, owner_user_id=OTHER_USER))
    step = new_step(A)
    step.reads([stale])
    (row,) = step.fold([SourcePage(A, history(4)[3:])], now_us=NOW_US)
    assert row.owner_user_id == USER


def test_the_owner_of_a_rebuild_is_the_heads() -> None:
    """INV-29: a transfer between the fold of a rebuild and its locks is not undone by it."""
    base = fold_events(empty_summary(A, OTHER_USER, None), history(3))
    step = new_step(A, bases={A: base})
    step.reads([locked(A, 3)])
    assert step.fold([SourcePage(A, history(4)[3:])], now_us=NOW_US)[0].owner_user_id == USER
