"""What the sockets of a node have not taken, all together, and the replays that wait until it is less. Pure.

Everybody's share is small (a remainder of one chunk), but with thousands of slow clients it adds up. Above
``in_flight_max_bytes`` no replay begins another range; live delivery never waits. Room goes to the replay
that began first, so the newest waits longest. Keeps INV-7.

Invariant: held_bytes == the sum of the remainders of all connections.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from khala.core.limits import NodeLimits
    from khala.core.subscription import Subscription

# Replays that go on before others get a turn; each may send a quarter of a MiB at once, in about 0.1 ms.
WOKEN_PER_TURN: Final = 16


@attrs.define(eq=False)
class InFlight:
    """The remainders of one node."""

    limits: NodeLimits
    held_bytes: int = attrs.field(default=0, init=False)
    # When each began, a number that tells equal times apart, and who: a heap.
    _waiting: list[tuple[float, int, Subscription]] = attrs.field(factory=list, init=False)
    # Whose entry in _waiting counts; an entry of somebody who has ended is dropped when its turn comes.
    _members: set[Subscription] = attrs.field(factory=set, init=False)
    _count: int = attrs.field(default=0, init=False)

    @property
    def has_room(self) -> bool:
        """Whether a replay may begin another range."""
        return self.held_bytes < self.limits.in_flight_max_bytes

    def __len__(self) -> int:
        """Number of replays that wait."""
        return len(self._members)

    def wait(self, subscription: Subscription) -> None:
        """Remember a replay that may not go on; ``wake_waiting`` brings it back."""
        if subscription not in self._members:
            self._members.add(subscription)
            self._count += 1
            heappush(self._waiting, (subscription.began_at, self._count, subscription))

    def forget(self, subscription: Subscription) -> None:
        """Forget a subscription that has ended."""
        self._members.discard(subscription)
        if not self._members:
            self._waiting.clear()

    def wake_waiting(self) -> bool:
        """Let those who wait go on, the first that began first, for as long as there is room.

        Returns:
            False if ``WOKEN_PER_TURN`` of them went on and more may: call again, others first.
        """
        woken = 0
        while self._members and self.has_room:
            if woken == WOKEN_PER_TURN:
                return False
            _, _, subscription = heappop(self._waiting)
            if subscription in self._members:
                self._members.remove(subscription)
                subscription.sink.wake(subscription)
                woken += 1
        return True
