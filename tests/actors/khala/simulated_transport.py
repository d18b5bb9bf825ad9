"""A connected byte stream with a simulated kernel: bounded, and able to do harm.

``try_send`` puts bytes into a send buffer of ``buffer_bytes``, from which the client takes them with
``take``. With ``rng`` each send is cut short at random, down to nothing; ``stall`` lets the kernel take
nothing at all; ``reset`` breaks the connection. It passes the same suite as ``SocketTransport``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from khala.ports import TransportBrokenError

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random


@attrs.define(eq=False)
class SimulatedTransport:
    """The server's end is a ByteTransport; ``take``, ``feed`` and the rest are the client's end."""

    # None: the client takes everything at once and nothing ever waits.
    buffer_bytes: int | None = None
    rng: Random | None = None
    is_stalled: bool = False
    remote_address: str = "192.0.2.1"
    is_aborted: bool = attrs.field(default=False, init=False)
    sends: int = attrs.field(default=0, init=False)
    _is_reset: bool = attrs.field(default=False, init=False)
    _is_eof: bool = attrs.field(default=False, init=False)
    _outgoing: bytearray = attrs.field(factory=bytearray, init=False)
    _incoming: bytearray = attrs.field(factory=bytearray, init=False)
    _writer: trio.Event | None = attrs.field(default=None, init=False)
    _reader: trio.Event | None = attrs.field(default=None, init=False)

    # -- the server's end: ByteTransport ---------------------------------------------------------

    @property
    def direct_send(self) -> Callable[[bytes], int]:
        """See ByteTransport."""
        return self.try_send

    def try_send(self, data: bytes | memoryview) -> int:
        """Take what fits, less if the seed says so; see ByteTransport."""
        self._check()
        self.sends += 1
        taken = min(len(data), self._room)
        if self.rng is not None and taken:
            taken = self.rng.choice((taken, self.rng.randint(0, taken)))
        self._outgoing += data[:taken]
        return taken

    async def wait_writable(self) -> None:
        """Wait for room; see ByteTransport. Like the kernel's, it may be wrong about how much."""
        await trio.lowlevel.checkpoint()
        self._check()
        while not self._room:
            if self._writer is not None:
                raise trio.BusyResourceError("another task is already waiting to write")
            self._writer = trio.Event()
            try:
                await self._writer.wait()
            finally:
                self._writer = None
            self._check()

    async def receive_some(self, max_bytes: int) -> bytes:
        """Wait for bytes of the client; see ByteTransport."""
        await trio.lowlevel.checkpoint()
        self._check()
        while not self._incoming and not self._is_eof:
            if self._reader is not None:
                raise trio.BusyResourceError("another task is already waiting to read")
            self._reader = trio.Event()
            try:
                await self._reader.wait()
            finally:
                self._reader = None
            self._check()
        received = bytes(self._incoming[:max_bytes])
        del self._incoming[:max_bytes]
        return received

    def abort(self) -> None:
        """Drop the connection; see ByteTransport."""
        self.is_aborted = True
        self._wake()

    # -- the client's end -----------------------------------------------------------------------

    def take(self, max_bytes: int | None = None) -> bytes:
        """Read what the kernel holds for the client; this makes room."""
        count = len(self._outgoing) if max_bytes is None else max_bytes
        taken = bytes(self._outgoing[:count])
        del self._outgoing[:count]
        if taken:
            self._wake()
        return taken

    def feed(self, data: bytes) -> None:
        """Send bytes to the server."""
        self._incoming += data
        self._wake()

    def feed_eof(self) -> None:
        """End the client's direction of the stream."""
        self._is_eof = True
        self._wake()

    def reset(self) -> None:
        """Break the connection from the client's side; what was not received is lost."""
        self._is_reset = True
        self._wake()

    def stall(self) -> None:
        """Let the kernel take nothing until ``resume``."""
        self.is_stalled = True

    def resume(self) -> None:
        """Let the kernel take bytes again."""
        self.is_stalled = False
        self._wake()

    # -- the kernel ----------------------------------------------------------------------------------

    @property
    def _room(self) -> int:
        if self.is_stalled:
            return 0
        return 1 << 40 if self.buffer_bytes is None else self.buffer_bytes - len(self._outgoing)

    def _check(self) -> None:
        if self.is_aborted or self._is_reset:
            raise TransportBrokenError

    def _wake(self) -> None:
        for event in (self._writer, self._reader):
            if event is not None:
                event.set()
