"""The life of a run as one table.

Pure. The table is the whole automaton: a pair that is not in it is refused, and terminal states have
no pair. Each allowed transition writes exactly one event, and nothing else writes events of these
kinds, so that folding a run's events always gives its state.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "COMMANDED_KINDS",
    "KIND_FINISHED",
    "KIND_STARTED",
    "KIND_STATE_CHANGED",
    "KIND_TRANSFERRED",
    "TERMINAL_STATES",
    "TRANSITIONS",
    "TRANSITION_KINDS",
    "Allowed",
    "Invalid",
    "RunState",
    "decide_transition",
    "fold_state",
    "markdown_table",
]


class RunState(Enum):
    """State of a run; the values are the words stored in the database."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can follow: no transition, and no event but that of a transfer."""
        return self in TERMINAL_STATES


KIND_STARTED: Final = "run.started"
KIND_STATE_CHANGED: Final = "run.state_changed"
KIND_FINISHED: Final = "run.finished"
# Written by transitions only; a client may not append them.
TRANSITION_KINDS: Final = frozenset({KIND_STARTED, KIND_STATE_CHANGED, KIND_FINISHED})
# No transition: the state stays, and a run that has ended may still get another owner.
KIND_TRANSFERRED: Final = "run.transferred"
# Kinds that commands of their own write; in the log each of them is true.
COMMANDED_KINDS: Final = TRANSITION_KINDS | {KIND_TRANSFERRED}

TERMINAL_STATES: Final = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})

# (from, to) -> kind of the event that the transition writes.
TRANSITIONS: Final[Mapping[tuple[RunState, RunState], str]] = MappingProxyType(
    {
        (RunState.CREATED, RunState.RUNNING): KIND_STATE_CHANGED,
        (RunState.CREATED, RunState.CANCELLED): KIND_FINISHED,
        (RunState.RUNNING, RunState.PAUSED): KIND_STATE_CHANGED,
        (RunState.RUNNING, RunState.SUCCEEDED): KIND_FINISHED,
        (RunState.RUNNING, RunState.FAILED): KIND_FINISHED,
        (RunState.RUNNING, RunState.CANCELLED): KIND_FINISHED,
        (RunState.PAUSED, RunState.RUNNING): KIND_STATE_CHANGED,
        (RunState.PAUSED, RunState.FAILED): KIND_FINISHED,
        (RunState.PAUSED, RunState.CANCELLED): KIND_FINISHED,
    }
)


@attrs.frozen
class Allowed:
    """The transition may happen and writes an event of this kind."""

    kind: str


@attrs.frozen
class Invalid:
    """The transition is not in the table."""

    from_state: RunState
    to_state: RunState


def decide_transition(from_state: RunState, to_state: RunState) -> Allowed | Invalid:
    """Return what the table says about one pair."""
    kind = TRANSITIONS.get((from_state, to_state))
    return Invalid(from_state, to_state) if kind is None else Allowed(kind)


def fold_state(state: RunState | None, kind: str, to_state: RunState | None) -> RunState | None:
    """Return the state after one event of a run's history.

    Args:
        state: State before; None before the first event.
        kind: Kind of the event; kinds that are no transition leave the state as it is.
        to_state: What the payload of run.state_changed or run.finished names.
    """
    if kind == KIND_STARTED:
        return RunState.RUNNING
    return to_state if kind in TRANSITION_KINDS else state


def markdown_table() -> str:
    """Return the automaton as a Markdown table: rows are states before, columns states after."""
    states = list(RunState)
    lines = [
        "| from \\ to | " + " | ".join(state.value for state in states) + " |",
        "|---" * (len(states) + 1) + "|",
    ]
    for before in states:
        cells = [
            f"`{TRANSITIONS[before, after]}`" if (before, after) in TRANSITIONS else "-" for after in states
        ]
        lines.append(f"| {before.value} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
