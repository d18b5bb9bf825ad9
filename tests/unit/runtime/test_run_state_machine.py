"""Every pair of states against the table, written down a second time."""

from __future__ import annotations

import itertools

import pytest

from runtime.core.run_state_machine import (
    TERMINAL_STATES,
    TRANSITION_KINDS,
    TRANSITIONS,
    Allowed,
    Invalid,
    RunState,
    decide_transition,
    fold_state,
    markdown_table,
)

# from -> (states that may follow with run.state_changed, with run.finished)
EXPECTED = {
    "created": ({"running"}, {"cancelled"}),
    "running": ({"paused"}, {"succeeded", "failed", "cancelled"}),
    "paused": ({"running"}, {"failed", "cancelled"}),
    "succeeded": (set(), set()),
    "failed": (set(), set()),
    "cancelled": (set(), set()),
}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(RunState, RunState)))
def test_every_pair(before: RunState, after: RunState) -> None:
    """RT-03: the decision equals the table; a state never follows itself."""
    changed, finished = EXPECTED[before.value]
    if after.value in changed:
        assert decide_transition(before, after) == Allowed("run.state_changed")
    elif after.value in finished:
        assert decide_transition(before, after) == Allowed("run.finished")
    else:
        assert decide_transition(before, after) == Invalid(before, after)
    assert before is not after or not isinstance(decide_transition(before, after), Allowed)


def test_terminal_states_are_final() -> None:
    """Nothing leads out of a terminal state, and run.finished leads into one."""
    assert {state for state in RunState if state.is_terminal} == TERMINAL_STATES
    assert not any(before in TERMINAL_STATES for before, _ in TRANSITIONS)
    assert all((kind == "run.finished") == after.is_terminal for (_, after), kind in TRANSITIONS.items())


def test_every_state_but_created_is_reachable() -> None:
    """A run starts running; created is entered by nobody yet."""
    reachable = {RunState.RUNNING}
    while True:
        wider = reachable | {after for before, after in TRANSITIONS if before in reachable}
        if wider == reachable:
            break
        reachable = wider
    assert reachable == set(RunState) - {RunState.CREATED}


def test_fold() -> None:
    """Events that are no transition leave the state as it is."""
    assert fold_state(None, "run.started", None) is RunState.RUNNING
    assert fold_state(RunState.RUNNING, "thought", None) is RunState.RUNNING
    assert fold_state(RunState.RUNNING, "run.state_changed", RunState.PAUSED) is RunState.PAUSED
    assert fold_state(RunState.PAUSED, "run.finished", RunState.FAILED) is RunState.FAILED
    assert len(TRANSITION_KINDS) == 3


def test_table_in_documents() -> None:
    """The table has a row per state and names the event of each transition."""
    lines = markdown_table().splitlines()
    assert len(lines) == 2 + len(RunState)
    assert lines[3] == (
        "| running | - | - | `run.state_changed` | `run.finished` | `run.finished` | `run.finished` |"
    )
