"""When a child that ended is started again, as values: the pure half of the supervisor.

A child that dies is started again at once, then after 0.1 s, 0.2 s ... up to ``max_s``; after ``stable_s``
of life the next death counts as a first one. A child that refuses its configuration is not started again:
it would refuse it again.
"""

from __future__ import annotations

import signal
from typing import Final, Literal, TypeAlias

import attrs

__all__ = ["ChildLife", "GiveUp", "Phase", "Restart", "RestartPolicy", "describe_end", "what_was_lost"]

EXIT_REFUSED: Final = 78

Phase: TypeAlias = Literal["starting", "running", "waiting", "stopped"]


@attrs.frozen(kw_only=True)
class RestartPolicy:
    """How long to wait before a child is started again.

    Attributes:
        first_s: After the first death. Shorter: a child that cannot run takes a whole core.
        max_s: However often it died. Longer: what was repaired is noticed late.
        stable_s: A life this long makes the next death a first one.
    """

    first_s: float = 0.1
    max_s: float = 5.0
    stable_s: float = 60.0


@attrs.frozen
class Restart:
    """Start it again after ``delay_s``."""

    delay_s: float


@attrs.frozen
class GiveUp:
    """End the system: only a person can change what made the child end."""


@attrs.frozen
class ChildLife:
    """What the supervisor knows of one child.

    Invariant: ``first_s <= delay_s <= max_s`` once the child has died, and 0 before.

    Attributes:
        name: ``postgres``, ``runtime``, ``node-1``, ...
        phase: starting (not ready yet), running, waiting (for its next start), stopped.
        pid: Of its process; of the last one while there is none.
        restarts: How often it was started again.
        started_s: When the present process was started; monotonic seconds.
        delay_s: The last delay before a start; 0 if there was none.
    """

    name: str
    phase: Phase = "starting"
    pid: int = 0
    restarts: int = 0
    started_s: float = 0.0
    delay_s: float = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether there is a process."""
        return self.phase in ("starting", "running")

    def started(self, pid: int, now_s: float) -> ChildLife:
        """Return the life with a new process."""
        is_again = self.phase == "waiting"
        return attrs.evolve(
            self, phase="starting", pid=pid, started_s=now_s, restarts=self.restarts + is_again
        )

    def became_ready(self) -> ChildLife:
        """Return the life of a child that says that it is ready."""
        return attrs.evolve(self, phase="running")

    def stopped(self) -> ChildLife:
        """Return the life of a child that ended because it was asked to."""
        return attrs.evolve(self, phase="stopped")

    def ended(self, status: int, now_s: float, policy: RestartPolicy) -> tuple[ChildLife, Restart | GiveUp]:
        """Return the life of a child that ended by itself, and what to do about it."""
        if status == EXIT_REFUSED:
            return self.stopped(), GiveUp()
        was_stable = now_s - self.started_s >= policy.stable_s
        delay_s = policy.first_s if was_stable or not self.delay_s else min(2 * self.delay_s, policy.max_s)
        return attrs.evolve(self, phase="waiting", delay_s=delay_s), Restart(delay_s)


def describe_end(status: int) -> str:
    """Return how a process ended, in words: a negative status is the signal that killed it."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def what_was_lost(name: str) -> str:
    """Return what the death of a child costs: time, and never an event that was acknowledged."""
    kind = name.partition("-")[0]
    return {
        "postgres": "every acknowledged event is on its disk; until it is back, nothing new is accepted",
        "nats": "it only carries news; until it is back, the nodes find new events in the database",
        "control": "it holds nothing; until it is back, nobody new can sign in or connect",
        "runtime": "every acknowledged event is in the database; callers repeat the others with the same key",
        "node": "it holds nothing; its clients reconnect and go on where they were",
    }.get(kind, "it holds nothing")
