"""The driver of one process: a bounded queue for each subscriber, drop-oldest with notice.

Used by ``khala up`` and by tests. It cannot cross processes, so a node with a remote runtime
refuses it at start. Keeps INV-7 (bounded memory): at most ``QUEUE_MAX_RECORDS`` messages and
``QUEUE_MAX_BYTES`` wait for one subscriber; what overflows is dropped, oldest first, and the
subscriber is told that its position in those topics is unknown.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio

from fanout_drivers.base import DriverCounters, DriverGuarantees, PositionUnknown, RecordCopy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fanout_drivers.base import Delivery
    from fanout_drivers.opening import DriverContext
    from khala_contracts.topics import TopicName

# A node takes records in turns of a millisecond; at 60,000 events/s in batches of 200 this is
# several seconds of commits. Larger only delays the moment at which a stuck node reads the journal.
QUEUE_MAX_RECORDS: Final = 4_096
QUEUE_MAX_BYTES: Final = 64 * 1024 * 1024


@attrs.define(eq=False)
class MemorySubscriber:
    """One bounded queue. Invariant: ``queued_bytes == sum(len(c.data) for c in queue)``."""

    _max_records: int
    _max_bytes: int
    _counters: DriverCounters = attrs.field(factory=DriverCounters)
    _topics: set[TopicName] = attrs.field(factory=set)
    _queue: deque[RecordCopy] = attrs.field(factory=deque)
    _queued_bytes: int = 0
    _dropped_topics: set[TopicName] = attrs.field(factory=set)
    _is_closed: bool = False
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    async def subscribe(self, topic: TopicName) -> None:
        """Start delivery; see FanoutSubscriber."""
        self._topics.add(topic)
        await trio.lowlevel.checkpoint()

    async def unsubscribe(self, topic: TopicName) -> None:
        """Stop delivery; see FanoutSubscriber."""
        self._topics.discard(topic)
        await trio.lowlevel.checkpoint()

    async def receive(self) -> Delivery:
        """Return the next message, or first the notice that some were dropped."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not (self._queue or self._dropped_topics):
            if self._is_closed:
                raise trio.ClosedResourceError
            await self._waiting.park()
        if self._dropped_topics:
            # Before the queue: what follows the hole cannot be used until the hole is healed.
            dropped, self._dropped_topics = frozenset(self._dropped_topics), set()
            return PositionUnknown(dropped)
        copy = self._queue.popleft()
        self._queued_bytes -= len(copy.data)
        self._counters.received += 1
        return copy

    def offer_nowait(self, copy: RecordCopy) -> None:
        """Queue a copy if its topic is subscribed, dropping the oldest copies to make room."""
        if copy.topic not in self._topics:
            return
        self._queue.append(copy)
        self._queued_bytes += len(copy.data)
        while len(self._queue) > self._max_records or self._queued_bytes > self._max_bytes:
            oldest = self._queue.popleft()
            self._queued_bytes -= len(oldest.data)
            self._dropped_topics.add(oldest.topic)
            self._counters.dropped += 1
        self._waiting.unpark()

    def close(self) -> None:
        """Forget everything and wake the receiver."""
        self._is_closed = True
        self._queue.clear()
        self._dropped_topics.clear()
        self._queued_bytes = 0
        self._waiting.unpark_all()


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

    async def publish(self, topic: TopicName, data: bytes) -> None:
        """Queue the record for every subscriber of the topic; never waits."""
        copy = RecordCopy(topic, data)
        self.counters.published += 1
        for subscriber in self._subscribers:
            subscriber.offer_nowait(copy)
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def open_subscriber(self) -> AsyncIterator[MemorySubscriber]:
        """Open a node's end; see FanoutDriver."""
        subscriber = MemorySubscriber(self.queue_max_records, self.queue_max_bytes, self.counters)
        self._subscribers.append(subscriber)
        try:
            yield subscriber
        finally:
            self._subscribers.remove(subscriber)
            subscriber.close()

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
