"""The driver of one process: a bounded queue for each subscriber, drop-oldest with notice.

Used by ``khala up`` and by tests. It cannot cross processes, so a node with a remote runtime
refuses it at start. Keeps INV-7 (bounded memory) by ``delivery_queue.py``.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from fanout_drivers.base import RECORD_ENTRIES_MAX_BYTES, DriverCounters, DriverGuarantees, RecordCopy
from fanout_drivers.delivery_queue import QUEUE_MAX_BYTES, QUEUE_MAX_RECORDS, DeliveryQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fanout_drivers.base import Delivery
    from fanout_drivers.opening import DriverContext
    from khala_contracts.topics import TopicName

__all__ = ["MemoryDriver", "MemorySubscriber", "open_memory_driver"]


@attrs.define(eq=False)
class MemorySubscriber:
    """One end: its topics and its queue."""

    queue: DeliveryQueue
    _topics: set[TopicName] = attrs.field(factory=set, init=False)

    async def subscribe(self, topic: TopicName) -> None:
        """Start delivery; see FanoutSubscriber."""
        self._topics.add(topic)
        await trio.lowlevel.checkpoint()

    async def unsubscribe(self, topic: TopicName) -> None:
        """Stop delivery; see FanoutSubscriber."""
        self._topics.discard(topic)
        await trio.lowlevel.checkpoint()

    async def receive(self) -> Delivery:
        """Return the next message or notice; see FanoutSubscriber."""
        return await self.queue.receive()

    def offer_nowait(self, copy: RecordCopy) -> None:
        """Queue a copy if its topic is subscribed."""
        if copy.topic in self._topics:
            self.queue.offer_nowait(copy)


@attrs.define(eq=False)
class MemoryDriver:
    """Fan-out inside one process."""

    queue_max_records: int = QUEUE_MAX_RECORDS
    queue_max_bytes: int = QUEUE_MAX_BYTES
    counters: DriverCounters = attrs.field(factory=DriverCounters)
    _subscribers: list[MemorySubscriber] = attrs.field(factory=list)

    name: str = attrs.field(default="memory", init=False)
    guarantees: DriverGuarantees = attrs.field(
        default=DriverGuarantees(
            may_lose=True, may_duplicate=False, may_reorder=False, crosses_processes=False
        ),
        init=False,
    )
    entries_max_bytes: int = attrs.field(default=RECORD_ENTRIES_MAX_BYTES, init=False)

    async def publish(self, topic: TopicName, data: bytes) -> None:
        """Queue the record for every subscriber of the topic; never waits, refuses nothing."""
        self.publish_nowait(topic, data)
        await trio.lowlevel.checkpoint()

    def publish_nowait(self, topic: TopicName, data: bytes) -> bool:
        """Queue the record for every subscriber of the topic; see PublishesAtOnce."""
        copy = RecordCopy(topic, data)
        self.counters.published += 1
        for subscriber in self._subscribers:
            subscriber.offer_nowait(copy)
        return True

    async def hint_revocations(self) -> None:
        """Hint to every subscriber; never waits, refuses nothing. See HintsRevocations."""
        for subscriber in self._subscribers:
            subscriber.queue.hint_nowait()
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def open_subscriber(self) -> AsyncIterator[MemorySubscriber]:
        """Open a node's end; see FanoutDriver."""
        queue = DeliveryQueue(
            self.counters, max_records=self.queue_max_records, max_bytes=self.queue_max_bytes
        )
        subscriber = MemorySubscriber(queue)
        self._subscribers.append(subscriber)
        try:
            yield subscriber
        finally:
            self._subscribers.remove(subscriber)
            queue.close()

    async def check_health(self) -> bool:
        """Return True: queues in one process are always reachable."""
        await trio.lowlevel.checkpoint()
        return True


@asynccontextmanager
async def open_memory_driver(context: DriverContext) -> AsyncIterator[MemoryDriver]:
    """Open it; see ``fanout_drivers.opening.DriverFactory``. There is nothing to be told."""
    del context
    await trio.lowlevel.checkpoint()
    yield MemoryDriver()
