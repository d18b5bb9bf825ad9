"""INV-18 and INV-19 on random histories: however events are cut into steps, the rows are the same."""

from __future__ import annotations

import itertools

import attrs
from hypothesis import given
from hypothesis import strategies as st

from khala_contracts import kinds
from runtime.core.projections import RunSummary, SourceEvent, fold_events, hash_summaries
from runtime.core.run_state_machine import RunState
from runtime.core.summary_pace import (
    PUBLISH_EVERY_US,
    Publish,
    Published,
    Settled,
    Wait,
    pace_summary,
)

EMPTY = RunSummary(run_id="run_a", owner_user_id="usr_a", org_id=None)
_STATES = st.sampled_from([f"RUN_STATE_{state.name}" for state in RunState])
_EVENTS = st.one_of(
    st.tuples(st.sampled_from(["thought", "output", "step.started", "future.kind"]), st.none()),
    st.tuples(st.just("run.state_changed"), st.builds(lambda state: {"to_state": state}, _STATES)),
    st.tuples(st.just("run.finished"), st.builds(lambda state: {"state": state}, _STATES)),
    st.tuples(
        st.just("custom"), st.builds(lambda text: {"name": "run.title", "data": text}, st.text(max_size=5))
    ),
    st.tuples(st.just("run.started"), st.builds(lambda text: {"name": text}, st.text(max_size=5))),
)


@st.composite
def histories(draw: st.DrawFn) -> list[SourceEvent]:
    """Draw the events of a run, with times that never go back."""
    drawn = draw(st.lists(st.tuples(_EVENTS, st.integers(0, 700_000)), max_size=30))
    found, now_us = [], 1_800_000_000_000_000
    for seq, ((kind, data), later_us) in enumerate(drawn, start=1):
        now_us += later_us
        payload = b"" if data is None else kinds.encode_payload("run_events", kind, data)
        found.append(SourceEvent(seq, kind, payload, now_us))
    return found


@given(histories(), st.data())
def test_folding_in_parts_is_folding_at_once(history: list[SourceEvent], data: st.DataObject) -> None:
    """fold(fold(a), b) == fold(a + b), for every cut, and also if the parts overlap."""
    whole = fold_events(EMPTY, history)
    cut = data.draw(st.integers(0, len(history)))
    first = fold_events(EMPTY, history[:cut])
    assert fold_events(first, history[cut:]) == whole
    assert fold_events(first, history[data.draw(st.integers(0, cut)) :]) == whole
    assert whole.event_count == whole.applied_seq == len(history)
    assert hash_summaries([whole]) == hash_summaries([fold_events(EMPTY, history)])


@given(histories(), st.lists(st.integers(1, 6), min_size=1, max_size=40))
def test_followers_of_the_list_end_with_the_fold(history: list[SourceEvent], sizes: list[int]) -> None:
    """Commuting square: folding the frames of the list, latest per key, gives the fold of the run.

    Also: between two frames with the same status and title lies a second, and positions ascend.
    """
    summary, published, now_us = EMPTY, None, 1_800_000_000_000_000
    told: list[tuple[int, RunSummary]] = []
    pages = iter(history)
    for size in itertools.chain(sizes, itertools.repeat(6)):
        page = list(itertools.islice(pages, size))
        if not page:
            break
        now_us = max(now_us, page[-1].committed_at_us)
        summary = fold_events(summary, page)
        decision = pace_summary(published, summary, now_us=now_us)
        if isinstance(decision, Publish):
            published = Published(summary.applied_seq, summary.state, summary.title, now_us)
            told.append((now_us, summary))
    # Silence: what was held back becomes due by itself.
    decision = pace_summary(published, summary, now_us=now_us)
    if isinstance(decision, Wait):
        assert now_us < decision.due_at_us <= now_us + PUBLISH_EVERY_US
        assert pace_summary(published, summary, now_us=decision.due_at_us) == Publish()
        told.append((decision.due_at_us, summary))
    else:
        assert decision == Settled()
    if history:
        shown = told[-1][1]
        assert (shown.name, shown.title, shown.state) == (summary.name, summary.title, summary.state)
        assert shown.applied_seq == len(history)
    for (at_us, one), (later_us, other) in itertools.pairwise(told):
        assert one.applied_seq < other.applied_seq
        if (one.state, one.title) == (other.state, other.title):
            assert later_us - at_us >= PUBLISH_EVERY_US


@given(histories(), st.data())
def test_a_snapshot_and_the_rest_is_the_head(history: list[SourceEvent], data: st.DataObject) -> None:
    """apply(replay(cursor -> head), snapshot at cursor) == snapshot at head, for every cursor."""
    snapshots = [EMPTY]
    for event in history:
        snapshots.append(fold_events(snapshots[-1], [event]))
    cursor = data.draw(st.integers(0, len(history)))
    assert fold_events(snapshots[cursor], history[cursor:]) == snapshots[-1]
    assert attrs.evolve(snapshots[cursor]) == fold_events(EMPTY, history[:cursor])
