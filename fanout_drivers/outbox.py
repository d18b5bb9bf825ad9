"""What waits to be sent to a broker: bounded, in order, thrown away with the connection.

Invariants (INV-7): at most ``max_records`` and ``max_bytes`` wait; ``waiting_bytes`` is the sum of their
sizes. A record without room is refused, not an older one dropped: what was taken is still contiguous.
"""

from __future__ import annotations

from collections import deque

import attrs
import trio

__all__ = ["Outbox"]


@attrs.define(eq=False)
class Outbox:
    """Addressed records; one task takes."""

    max_records: int
    max_bytes: int
    waiting_bytes: int = attrs.field(default=0, init=False)
    _records: deque[tuple[str, bytes]] = attrs.field(factory=deque, init=False)
    _has_records: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __len__(self) -> int:
        """Records that wait."""
        return len(self._records)

    def offer_nowait(self, address: str, data: bytes) -> bool:
        """Take a record if there is room; return whether there was."""
        if len(self._records) >= self.max_records or self.waiting_bytes + len(data) > self.max_bytes:
            return False
        self._records.append((address, data))
        self.waiting_bytes += len(data)
        self._has_records.set()
        return True

    async def take(self, limit: int) -> list[tuple[str, bytes]]:
        """Return the oldest records, at least one and at most ``limit``, waiting for the first.

        Cancellation: safe; nothing is consumed.
        """
        while not self._records:
            self._has_records = trio.Event()
            await self._has_records.wait()
        taken = [self._records.popleft() for _ in range(min(limit, len(self._records)))]
        self.waiting_bytes -= sum(len(data) for _, data in taken)
        return taken

    def clear(self) -> int:
        """Forget everything; return how many records there were."""
        count = len(self._records)
        self._records.clear()
        self.waiting_bytes = 0
        return count
