"""A second way for hints, beside a broker that is away or heals: PostgreSQL's doorbell.

After a loss publisher and nodes come back to a broker one after the other, and what is published meanwhile
reaches some of them. Who publishes knows only his own side of it, so ``Healing`` says for how long the others
may still be away; as long as it does, each commit rings as well. A ring carries nothing and means "compare all
positions now"; nodes always listen (``fanout_drivers/postgres.py`` bounds what rings cost).
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from fanout_drivers.background import open_background
from fanout_drivers.backoff import LONG_MIN_S, PATIENCE_S, SHORT_CAP_S
from fanout_drivers.base import PositionUnknown, RevocationsHint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from fanout_drivers.base import DriverCounters, FanoutSubscriber
    from fanout_drivers.delivery_queue import DeliveryQueue

__all__ = ["CLUSTER_HEALING_S", "HEALING_S", "Doorbell", "Healing", "HintsBesideBroker"]

# Everybody else tries again within SHORT_CAP_S, and needs a moment to subscribe. Longer: position checks that
# find nothing. Shorter: the last nodes to return hear of nothing until their next check.
HEALING_S: Final = SHORT_CAP_S + 6.0
# After an absence of PATIENCE_S their attempts are up to 2 * LONG_MIN_S apart. A cluster that lost one of its
# servers may be in two parts, of which we see one.
CLUSTER_HEALING_S: Final = 2 * LONG_MIN_S + 15.0
# They count what they were away in all, and we only this absence.
_LONG_AWAY_S: Final = PATIENCE_S / 2


class Doorbell(Protocol):
    """What rings and is heard; ``fanout_drivers/postgres.py``."""

    def ring_nowait(self) -> None:
        """Ring for records, once for any number of calls that meet; never waits, never fails."""

    async def hint_revocations(self) -> None:
        """Ring for revocations; see HintsRevocations."""

    def open_subscriber(self) -> AbstractAsyncContextManager[FanoutSubscriber]:
        """Listen; see FanoutDriver."""


@attrs.define
class Healing:
    """Whether others may be away from the broker. Every ``now`` is a monotonic time in seconds.

    Invariant: needed while we are away, and until ``_until`` afterwards.
    """

    _away_since: float | None
    _until: float = -math.inf

    def lost(self, now: float) -> None:
        """The connection was lost."""
        if self._away_since is None:
            self._away_since = now

    def connected(self, now: float, *, is_first_attempt: bool) -> None:
        """A connection was made.

        Args:
            now: The present.
            is_first_attempt: Of this process: there was nothing to come back from.
        """
        away_s = now - (now if self._away_since is None else self._away_since)
        self._away_since = None
        if not is_first_attempt:
            self._extend(now + (HEALING_S if away_s < _LONG_AWAY_S else CLUSTER_HEALING_S))

    def cluster_changed(self, now: float) -> None:
        """A server joined or left the cluster of ours."""
        self._extend(now + CLUSTER_HEALING_S)

    def is_needed(self, now: float) -> bool:
        """Whether a hint should be given by another way, too."""
        return self._away_since is not None or now < self._until

    def _extend(self, until: float) -> None:
        self._until = max(self._until, until)


@attrs.define(eq=False)
class HintsBesideBroker:
    """The doorbell of one driver, rung while it heals."""

    _doorbell: Doorbell
    _counters: DriverCounters
    healing: Healing

    def hint_nowait(self, *, is_forced: bool = False) -> None:
        """Ring for records if that is needed; never waits, never fails."""
        if is_forced or self.healing.is_needed(trio.current_time()):
            self._counters.hints_beside += 1
            self._doorbell.ring_nowait()

    async def hint_revocations(self) -> None:
        """Ring for revocations if that is needed; never waits for anybody."""
        if self.healing.is_needed(trio.current_time()):
            self._counters.hints_beside += 1
            await self._doorbell.hint_revocations()

    @asynccontextmanager
    async def listen(self, queue: DeliveryQueue) -> AsyncIterator[None]:
        """Put what is heard into the queue of a node's end, for the length of the block."""

        async def serve() -> None:
            async with self._doorbell.open_subscriber() as heard:
                while True:
                    delivery = await heard.receive()
                    self._counters.hints_beside += 1
                    if isinstance(delivery, RevocationsHint):
                        queue.hint_nowait()
                    else:
                        assert isinstance(delivery, PositionUnknown), "a doorbell carries no copies"
                        queue.announce_nowait()

        async with open_background(serve):
            yield
