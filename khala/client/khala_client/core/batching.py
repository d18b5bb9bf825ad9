"""Which events go into the next request. Pure.

The request before is the timer: while it is on its way, events gather, and the next batch takes
what is there. Order is kept; a batch never splits an event and always takes at least one.

Invariant: len(queue) <= items_max and (bytes <= bytes_max or len(queue) == 1)
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

import attrs

__all__ = ["BatchLimits", "OutgoingQueue", "Sized"]


class Sized(Protocol):
    """Something that adds ``size_bytes`` to a request."""

    @property
    def size_bytes(self) -> int:
        """Bytes, rounded up."""
        ...


_Item = TypeVar("_Item", bound=Sized)


@attrs.frozen
class BatchLimits:
    """Per request (SPEC section 4: 500 events, 4 MiB, less room for the envelope), and for the queue."""

    batch_items_max: int = 500
    batch_bytes_max: int = 4 * 1024 * 1024 - 64 * 1024
    queue_items_max: int = 2_000
    queue_bytes_max: int = 16 * 1024 * 1024


class OutgoingQueue(Generic[_Item]):
    """A bounded queue that is taken from in batches."""

    def __init__(self, limits: BatchLimits | None = None) -> None:
        self._limits = limits or BatchLimits()
        self._items: deque[_Item] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def has_room(self, item: _Item) -> bool:
        """Return whether ``item`` may be pushed now; always true for an empty queue."""
        if not self._items:
            return True
        return (
            len(self._items) < self._limits.queue_items_max
            and self._bytes + item.size_bytes <= self._limits.queue_bytes_max
        )

    def push(self, item: _Item) -> None:
        """Append ``item``; ask ``has_room`` first."""
        assert self.has_room(item), "pushed into a full queue"
        self._items.append(item)
        self._bytes += item.size_bytes

    def take_batch(self) -> tuple[_Item, ...]:
        """Remove and return the next batch, empty if there is nothing."""
        batch: list[_Item] = []
        size_bytes = 0
        while self._items and len(batch) < self._limits.batch_items_max:
            item = self._items[0]
            if batch and size_bytes + item.size_bytes > self._limits.batch_bytes_max:
                break
            batch.append(self._items.popleft())
            size_bytes += item.size_bytes
        self._bytes -= size_bytes
        return tuple(batch)
