"""What waits for one subscriber: a bounded queue of copies, and what it must be told first.

Filled by a driver with calls that never wait, emptied by the node's one receiving task.
Invariants (INV-7):
1. At most ``max_records`` copies and ``max_bytes`` of them wait; ``waiting_bytes == sum(len(c.data))``.
   What overflows is dropped, oldest first: the newest copy is the one that can still be used after
   the hole before it was healed.
2. Whatever was dropped is announced, before anything that was queued after it; notices coalesce, so
   at most one waits.
3. At most one hint of revocations waits, and it comes before everything else: no load delays it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import attrs
import trio

from fanout_drivers.base import PositionUnknown, RecordCopy, RevocationsHint

if TYPE_CHECKING:
    from fanout_drivers.base import Delivery, DriverCounters
    from khala_contracts.topics import TopicName

__all__ = ["QUEUE_MAX_BYTES", "QUEUE_MAX_RECORDS", "DeliveryQueue"]

# A node takes records in turns of a millisecond; at 60,000 events/s in batches of 200 this is
# several seconds of commits. Larger only delays the moment at which a stuck node reads the journal.
QUEUE_MAX_RECORDS: Final = 4_096
QUEUE_MAX_BYTES: Final = 64 * 1024 * 1024


@attrs.define(eq=False)
class DeliveryQueue:
    """The queue of one subscriber; one task receives."""

    counters: DriverCounters
    max_records: int = QUEUE_MAX_RECORDS
    max_bytes: int = QUEUE_MAX_BYTES
    waiting_bytes: int = attrs.field(default=0, init=False)
    _copies: deque[RecordCopy] = attrs.field(factory=deque, init=False)
    _unknown_topics: set[TopicName] = attrs.field(factory=set, init=False)
    _is_everything_unknown: bool = attrs.field(default=False, init=False)
    _has_hint: bool = attrs.field(default=False, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)
    _receiver: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def __len__(self) -> int:
        """Copies that wait."""
        return len(self._copies)

    @property
    def has_news(self) -> bool:
        """Whether something waits."""
        return bool(self._has_hint or self._copies or self._unknown_topics or self._is_everything_unknown)

    @property
    def is_closed(self) -> bool:
        """Whether nothing will ever wait again."""
        return self._is_closed

    async def receive(self) -> Delivery:
        """Return the next copy, or first a hint, or the notice that something may have been missed.

        Raises:
            trio.ClosedResourceError: The queue was closed.
        Cancellation: safe; nothing is consumed.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self.has_news:
            if self._is_closed:
                raise trio.ClosedResourceError
            await self._receiver.park()
        if self._has_hint:
            self._has_hint = False
            return RevocationsHint()
        # Before the copies: what follows the hole cannot be used until the hole is healed.
        if self._is_everything_unknown:
            self._is_everything_unknown = False
            self._unknown_topics.clear()
            return PositionUnknown(None)
        if self._unknown_topics:
            unknown, self._unknown_topics = frozenset(self._unknown_topics), set()
            return PositionUnknown(unknown)
        copy = self._copies.popleft()
        self.waiting_bytes -= len(copy.data)
        self.counters.received += 1
        return copy

    def offer_nowait(self, copy: RecordCopy) -> None:
        """Queue a copy, dropping the oldest copies to make room."""
        if self._is_closed:
            return
        self._copies.append(copy)
        self.waiting_bytes += len(copy.data)
        while len(self._copies) > self.max_records or self.waiting_bytes > self.max_bytes:
            oldest = self._copies.popleft()
            self.waiting_bytes -= len(oldest.data)
            self._unknown_topics.add(oldest.topic)
            self.counters.dropped += 1
        self._receiver.unpark()

    def announce_nowait(self, topic: TopicName | None = None) -> None:
        """Say that messages of a topic, or of every topic, may have been missed."""
        if self._is_closed:
            return
        if topic is None:
            self._is_everything_unknown = True
        else:
            self._unknown_topics.add(topic)
        self._receiver.unpark()

    def hint_nowait(self) -> None:
        """Say that control's log of revocations may have grown."""
        if self._is_closed:
            return
        self._has_hint = True
        self._receiver.unpark()

    def close(self) -> None:
        """Forget everything and wake the receiver."""
        self._is_closed = True
        self._copies.clear()
        self._unknown_topics.clear()
        self._is_everything_unknown = False
        self._has_hint = False
        self.waiting_bytes = 0
        self._receiver.unpark_all()
