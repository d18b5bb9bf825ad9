"""One direction of a simulated connection: bytes in order, late, in bounded number, and perhaps not at all.

Invariant (tests/sim/test_network.py): a pipe holds at most `capacity` bytes, under way and unread together.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from chaos.sim.gates import Latency
from khala.ports import TransportBrokenError

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

__all__ = ["NetworkFaults", "Pipe"]

_QUICK: Final = Latency(0.0002, 0.003)


class Wire(Protocol):
    """What a pipe asks of its network."""

    rng: Random
    faults: NetworkFaults


@attrs.define
class NetworkFaults:
    """What the network does wrong at the moment.

    Attributes:
        delay: How long bytes are under way, each way.
        short_write: Probability that a kernel takes only a part of what would fit.
        cut: Directions, as (from place, to place), in which nothing arrives until it heals.
        stale_balancer: Probability that a client is sent to a place where nobody listens.
    """

    delay: Latency = _QUICK
    short_write: float = 0.1
    cut: dict[tuple[str, str], None] = attrs.field(factory=dict)
    stale_balancer: float = 0.0


@attrs.define(eq=False)
class Pipe:
    """One direction of a connection."""

    network: Wire
    source: str
    target: str
    capacity: int
    size: int = 0
    is_reset: bool = False
    is_ended: bool = False
    _arrive_at: float = 0.0
    # (arrival, bytes); b"" is the end, None a reset.
    _chunks: deque[tuple[float, bytes | None]] = attrs.field(factory=deque)
    _readable: trio.Event | None = None
    _writable: trio.Event | None = None

    @property
    def room(self) -> int:
        """Bytes that it takes now."""
        return self.capacity - self.size

    def put(self, data: bytes | None) -> None:
        """Send bytes, the end (b"") or a reset (None)."""
        if self.is_ended or self.is_reset:
            return
        now = trio.current_time()
        self._arrive_at = max(self._arrive_at, now + self.network.faults.delay.draw(self.network.rng))
        if data:
            self.size += len(data)
        else:
            self.is_ended = True
        self._chunks.append((self._arrive_at, data))
        self.wake()

    def wake(self) -> None:
        """Let whoever waits look again."""
        for event in (self._readable, self._writable):
            if event is not None:
                event.set()

    async def get(self, max_bytes: int, *, is_closed: Callable[[], bool]) -> bytes:
        """Return what has arrived, b"" at the end. Raises TransportBrokenError. Cancellation: safe."""
        while True:
            if is_closed() or self.is_reset:
                raise TransportBrokenError
            until = None
            if self._chunks and (self.source, self.target) not in self.network.faults.cut:
                arrive_at, data = self._chunks[0]
                if arrive_at <= trio.current_time():
                    return self._take(data, max_bytes)
                until = arrive_at
            if self._readable is not None:
                message = "another task is already waiting to read"
                raise trio.BusyResourceError(message)
            self._readable = trio.Event()
            try:
                if until is None:
                    await self._readable.wait()
                else:
                    with trio.move_on_at(until):
                        await self._readable.wait()
            finally:
                self._readable = None

    def _take(self, data: bytes | None, max_bytes: int) -> bytes:
        if data is None:
            self.break_off()
            raise TransportBrokenError
        if not data:
            return b""
        self._chunks.popleft()
        rest = data[max_bytes:]
        if rest:
            self._chunks.appendleft((0.0, rest))
            data = data[:max_bytes]
        self.size -= len(data)
        if self._writable is not None:
            self._writable.set()
        return data

    def break_off(self) -> None:
        """Lose everything; both ends learn of it."""
        self.is_reset = True
        self._chunks.clear()
        self.size = 0
        self.wake()

    async def wait_room(self, *, is_closed: Callable[[], bool]) -> None:
        """Return when there is room. Raises TransportBrokenError. Cancellation: safe."""
        while self.room <= 0 and not (self.is_reset or is_closed()):
            if self._writable is not None:
                message = "another task is already waiting to write"
                raise trio.BusyResourceError(message)
            self._writable = trio.Event()
            try:
                await self._writable.wait()
            finally:
                self._writable = None
        if self.is_reset or is_closed():
            raise TransportBrokenError
