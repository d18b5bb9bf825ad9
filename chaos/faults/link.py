"""One link: a port that is listened on, the server behind it, and what happens to bytes between them.

Each connection has two directions, each of them a reader and a writer with a bounded queue between
(INV: at most PIECES_MAX pieces of PIECE_MAX_BYTES are held for each direction of a connection; then the
reader stops reading and TCP tells the sender). The writer asks the fault of its direction anew for each
piece and whenever the fault changes, so a fault acts on what is already on its way.

What this cannot do: a connection is accepted by the kernel before we are asked, so whoever connects
through a cut link is connected to a host that is silent, not to one that is absent. Packets are not
seen, so loss, reordering and duplicates below TCP are delays here, as they are above TCP.
"""

from __future__ import annotations

import random
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.faults.fault import DIRECTIONS, HEALTHY, Counters, Fault

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HOST", "Link"]

HOST: Final = "127.0.0.1"
PIECE_MAX_BYTES: Final = 64 * 1024
PIECES_MAX: Final = 64
CONNECT_TIMEOUT_S: Final = 5.0
# SO_LINGER on, zero seconds: close sends RST and not FIN.
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

_BROKEN: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@attrs.define(eq=False)
class Link:
    """Made by the proxy, one for each pair of processes.

    Attributes:
        name: ``client.server``.
        server: Where bytes go.
        port: Where the client connects; 0 before ``serve``.
    """

    name: str
    server: tuple[str, int]
    port: int = 0
    counters: Counters = attrs.field(factory=Counters)
    _faults: dict[str, Fault] = attrs.field(factory=lambda: dict.fromkeys(DIRECTIONS, HEALTHY), init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _connections: dict[trio.CancelScope, _Connection] = attrs.field(factory=dict, init=False)
    _rng: random.Random = attrs.field(factory=lambda: random.Random(1), init=False)

    async def serve(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Take connections until cancelled; started with the port."""
        (listener,) = await trio.open_tcp_listeners(self.port, host=HOST)
        self.port = listener.socket.getsockname()[1]
        task_status.started(self.port)
        await trio.serve_listeners(self._take, [listener])

    # -- what the drill does -------------------------------------------------------------------------

    def set(self, fault: Fault, directions: Iterable[str]) -> None:
        """Let a fault begin, in place of what there was; a healthy one ends it."""
        for direction in directions:
            self._faults[direction] = fault
        self._changed.set()
        self._changed = trio.Event()
        # What lost bytes is not continued.
        for scope, connection in list(self._connections.items()):
            if any(hole and not self._faults[way].is_dropping for way, hole in connection.holes.items()):
                self._reset(scope, connection)

    def reset(self) -> int:
        """Reset every connection; return how many there were."""
        connections = list(self._connections.items())
        for scope, connection in connections:
            self._reset(scope, connection)
        return len(connections)

    def _reset(self, scope: trio.CancelScope, connection: _Connection) -> None:
        connection.is_reset = True
        self.counters.reset += 1
        del self._connections[scope]
        scope.cancel()

    # -- one connection ------------------------------------------------------------------------------

    async def _take(self, client: trio.SocketStream) -> None:
        self.counters.accepted += 1
        if any(fault.is_refusing for fault in self._faults.values()):
            self.counters.refused += 1
            _close_with_reset(client)
            return
        connection = _Connection()
        self.counters.open += 1
        try:
            with trio.CancelScope() as scope:
                self._connections[scope] = connection
                await self._carry(client, connection)
        finally:
            self._connections.pop(scope, None)
            self.counters.open -= 1
            for stream in (client, connection.server):
                if stream is not None:
                    _close_with_reset(stream) if connection.is_reset else stream.socket.close()

    async def _carry(self, client: trio.SocketStream, connection: _Connection) -> None:
        # A handshake needs both ways.
        for direction in DIRECTIONS:
            await self._wait_open(direction)
        try:
            with trio.fail_after(CONNECT_TIMEOUT_S):
                connection.server = await trio.open_tcp_stream(*self.server)
        except (*_BROKEN, trio.TooSlowError):
            self.counters.failed += 1
            connection.is_reset = True
            return
        self.counters.connected += 1
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with trio.open_nursery() as nursery:
            for source, sink, direction in (
                (client, connection.server, "up"),
                (connection.server, client, "down"),
            ):
                send, receive = trio.open_memory_channel[tuple[float, bytes]](PIECES_MAX)
                nursery.start_soon(_read, source, send)
                nursery.start_soon(partial(self._write, sink, receive, direction, connection))

    async def _write(
        self,
        sink: trio.SocketStream,
        pieces: trio.MemoryReceiveChannel[tuple[float, bytes]],
        direction: str,
        connection: _Connection,
    ) -> None:
        """Pass pieces on, as the fault of this direction lets them; an empty one is the end."""
        # Closed with the block, so that a reader whose pieces nobody takes any more ends too.
        with pieces:
            async for read_at, piece in pieces:
                await self._wait_due(read_at, direction)
                await self._wait_open(direction)
                if self._faults[direction].is_dropping:
                    self.counters.dropped_bytes[direction] += len(piece)
                    connection.holes[direction] = True
                    continue
                if not piece:
                    await _end(sink)
                    return
                await self._wait_rate(len(piece), direction)
                try:
                    await sink.send_all(piece)
                except _BROKEN:
                    # The other direction tells its own side, when it may.
                    return
                self.counters.passed_bytes[direction] += len(piece)

    async def _wait_open(self, direction: str) -> None:
        if self._faults[direction].is_cut:
            self.counters.cut_waits[direction] += 1
        while self._faults[direction].is_cut:
            await self._changed.wait()

    async def _wait_due(self, read_at: float, direction: str) -> None:
        share = self._rng.random()
        is_delayed = False
        while True:
            fault = self._faults[direction]
            due = read_at + fault.delay_s + share * fault.jitter_s
            if due <= trio.current_time():
                break
            is_delayed = True
            with trio.move_on_at(due):
                await self._changed.wait()
        self.counters.delayed[direction] += is_delayed

    async def _wait_rate(self, size: int, direction: str) -> None:
        began = trio.current_time()
        while (rate := self._faults[direction].rate_bytes_per_s) is not None:
            due = began + size / rate
            if due <= trio.current_time():
                self.counters.throttled_s[direction] += trio.current_time() - began
                break
            with trio.move_on_at(due):
                await self._changed.wait()


@attrs.define(eq=False)
class _Connection:
    """One connection through a link.

    Attributes:
        server: None while it is being connected.
        holes: Which directions have lost bytes.
        is_reset: It ends by RST.
    """

    server: trio.SocketStream | None = None
    holes: dict[str, bool] = attrs.field(factory=dict)
    is_reset: bool = False


async def _read(source: trio.SocketStream, pieces: trio.MemorySendChannel[tuple[float, bytes]]) -> None:
    """Read until the end, and say so with an empty piece; a broken connection ends like any other."""
    piece = b"begun"
    while piece:
        try:
            piece = await source.receive_some(PIECE_MAX_BYTES)
        except _BROKEN:
            piece = b""
        try:
            await pieces.send((trio.current_time(), piece))
        except trio.BrokenResourceError:
            return


async def _end(sink: trio.SocketStream) -> None:
    try:
        await sink.send_eof()
    except _BROKEN:
        return


def _close_with_reset(stream: trio.SocketStream) -> None:
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    stream.socket.close()
