"""The driver ``none``: nothing is published, nothing arrives.

Nodes find every commit by their position checks, twice a second, and every revocation by their polls. For a system that wants neither a
broker nor a doorbell, and for proving that nothing else is needed to lose nothing.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from fanout_drivers.base import RECORD_ENTRIES_MAX_BYTES, DriverCounters, DriverGuarantees
from fanout_drivers.delivery_queue import DeliveryQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fanout_drivers.base import Delivery
    from fanout_drivers.opening import DriverContext
    from khala_contracts.topics import TopicName

__all__ = ["SilentDriver", "open_silent_driver"]


@attrs.frozen
class _SilentSubscriber:
    """Hears nothing, until it is closed."""

    queue: DeliveryQueue

    async def subscribe(self, topic: TopicName) -> None:
        """Do nothing; see FanoutSubscriber."""
        del topic
        await trio.lowlevel.checkpoint()

    async def unsubscribe(self, topic: TopicName) -> None:
        """Do nothing; see FanoutSubscriber."""
        del topic
        await trio.lowlevel.checkpoint()

    async def receive(self) -> Delivery:
        """Wait for the end; see FanoutSubscriber."""
        return await self.queue.receive()


@attrs.frozen
class SilentDriver:
    """Loses everything and announces nothing, and says so."""

    counters: DriverCounters = attrs.field(factory=DriverCounters)
    name: str = attrs.field(default="none", init=False)
    guarantees: DriverGuarantees = attrs.field(
        default=DriverGuarantees(
            may_lose=True,
            may_duplicate=False,
            may_reorder=False,
            crosses_processes=True,
            carries_copies=False,
            announces_losses=False,
        ),
        init=False,
    )
    entries_max_bytes: int = attrs.field(default=RECORD_ENTRIES_MAX_BYTES, init=False)

    async def publish(self, topic: TopicName, data: bytes) -> None:
        """Drop the record, as the guarantees say: nothing is amiss that a caller could wait for."""
        del topic, data
        await trio.lowlevel.checkpoint()

    async def hint_revocations(self) -> None:
        """Drop the hint: nodes poll. See HintsRevocations."""
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def open_subscriber(self) -> AsyncIterator[_SilentSubscriber]:
        """Open an end that never hears anything."""
        queue = DeliveryQueue(self.counters)
        try:
            yield _SilentSubscriber(queue)
        finally:
            queue.close()

    async def check_health(self) -> bool:
        """Return True: there is nothing that could be broken."""
        await trio.lowlevel.checkpoint()
        return True


@asynccontextmanager
async def open_silent_driver(context: DriverContext) -> AsyncIterator[SilentDriver]:
    """Open it; see ``fanout_drivers.opening.DriverFactory``. There is nothing to be told."""
    del context
    await trio.lowlevel.checkpoint()
    yield SilentDriver()
