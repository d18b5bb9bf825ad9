"""When each client of a leaving node goes, and when it may come back elsewhere: pure, the caller brings ``now``.

Clients return one after the other at ``drain_return_per_s``, each at a random moment of its own slot, so that no
second sees more of them than that rate and one. Each stays connected, and is served, until its turn; whose turn
comes after the node is gone is closed before that and waits for it.

    begins ........ turns ........ last call ...... flushed ...... ends
           each closed at its turn           all others      the rest is dropped
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import attrs

if TYPE_CHECKING:
    from khala.core.limits import NodeLimits

# Of the time of a drain, what each of its last three steps gets at most: frames, the closing handshake, and what a
# node does when everybody has left. Larger: fewer clients go at their turn.
_STEP_SHARE: Final = 0.2


class Rng(Protocol):
    """Randomness for jitter; see ports.py."""

    def random(self) -> float:
        """Return a float in [0, 1)."""


@attrs.frozen
class Departure:
    """The turn of one client, in monotonic seconds.

    Attributes:
        returns_at: When it may connect elsewhere.
        closes_at: When this node closes it, unless it has gone. Never after ``returns_at``.
        flushed_by: When it is closed although it has not taken yet what was there at ``closes_at``.
    """

    returns_at: float
    closes_at: float
    flushed_by: float

    def return_after_ms(self, now: float) -> int:
        """Return how long it has to stay away; 0 if its turn has come."""
        return max(0, round((self.returns_at - now) * 1000))

    def close_after_ms(self, now: float) -> int:
        """Return how long it may stay here; 0 if not at all."""
        return max(0, round((self.closes_at - now) * 1000))


def plan_departures(count: int, *, limits: NodeLimits, now: float, rng: Rng) -> list[Departure]:
    """Return a turn for each of ``count`` clients, ascending."""
    step_s = min(limits.close_timeout_s, _STEP_SHARE * limits.drain_timeout_s)
    last_call_at = now + limits.drain_timeout_s - 3 * step_s
    turns = (now + (number + rng.random()) / limits.drain_return_per_s for number in range(count))
    return [Departure(at, min(at, last_call_at), last_call_at + step_s) for at in turns]
