"""The network between clients and nodes: byte streams with latency, bounded buffers and bad days.

One `Connection` is two pipes (pipes.py). The node's end is a `ByteTransport` (khala/ports.py), the client's end a
trio stream, so that both WebSocket libraries run unmodified above it. As with TCP: bytes arrive in order or
not at all; what a partition holds back arrives when it heals, if both ends are still there; a process that
dies resets its connections, a host that dies says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.sim.pipes import NetworkFaults, Pipe
from khala.ports import TransportBrokenError

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from chaos.sim.gates import PortGate
    from khala.ports import ByteTransport

__all__ = ["Connection", "Network", "NetworkFaults", "SimulatedAcceptor", "SimulatedStream"]

# What a client's kernel takes before the client reads it.
RECEIVE_WINDOW_BYTES: Final = 16 * 1024
_RECEIVE_BYTES: Final = 64 * 1024


class _End:
    """What both ends share."""

    def __init__(self, gate: PortGate, connection: Connection, incoming: Pipe, outgoing: Pipe) -> None:
        self.gate = gate
        self.connection = connection
        self._in = incoming
        self._out = outgoing
        self.is_closed = False
        self._forget = gate.on_sever(self._die)

    def _closed(self) -> bool:
        return self.is_closed

    def _send(self, data: bytes | memoryview) -> int:
        if self.is_closed or self._out.is_reset:
            raise TransportBrokenError
        network = self._out.network
        taken = min(len(data), self._out.room)
        if taken and network.faults.short_write and network.rng.random() < network.faults.short_write:
            taken = network.rng.randint(0, taken)
        if taken > 0:
            self._out.put(bytes(data[:taken]))
        return max(taken, 0)

    def close(self) -> None:
        """Close the descriptor: what was sent is delivered, then the end; a reset if something was unread."""
        if self.is_closed:
            return
        self.is_closed = True
        self._forget()
        self._out.put(None if self._in.size else b"")
        # Who sends to a closed socket is reset.
        self._in.is_ended = True
        self._in.wake()
        self.connection.forget_if_over()

    def _die(self) -> None:
        """Be cut off together with the process; its kernel resets what it held, unless the host died."""
        self.is_closed = True
        if not self.connection.network.is_silent(self.gate.place):
            self._out.put(None)
            self._in.is_ended = True
        self._in.wake()
        self.connection.forget_if_over()


class SimulatedTransport(_End):
    """The node's end; see ByteTransport."""

    @property
    def remote_address(self) -> str:
        """See ByteTransport."""
        return self.connection.address

    @property
    def direct_send(self) -> Callable[[bytes], int]:
        """See ByteTransport."""
        return self.try_send

    def try_send(self, data: bytes | memoryview) -> int:
        """See ByteTransport."""
        return 0 if self.gate.is_severed else self._send(data)

    async def wait_writable(self) -> None:
        """See ByteTransport."""
        await self.gate.cross("network.wait_writable")
        await self._out.wait_room(is_closed=self._closed)

    async def receive_some(self, max_bytes: int) -> bytes:
        """See ByteTransport."""
        await self.gate.cross("network.receive")
        received = await self._in.get(max_bytes, is_closed=self._closed)
        self.gate.note(self.gate.name, "received", of=self.connection.number, size=len(received))
        return received

    def abort(self) -> None:
        """See ByteTransport."""
        if not self.gate.is_severed:
            self.close()


class SimulatedStream(_End, trio.abc.Stream):
    """The client's end; see trio.abc.Stream."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send; raises BrokenResourceError, ClosedResourceError."""
        await self.gate.cross("network.send")
        view = memoryview(data)
        try:
            while view:
                view = view[self._send(view) :]
                if view:
                    await self._out.wait_room(is_closed=self._closed)
                    # A kernel that takes nothing although it has room must not keep us busy.
                    await trio.sleep(0.001)
        except TransportBrokenError:
            raise self._error() from None

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self.gate.cross("network.wait_send")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive; b"" at the end."""
        await self.gate.cross("network.receive")
        pace = self.connection.pace
        if pace.is_stopped:
            await pace.wait_going()
        if pace.read_pause_s:
            await trio.sleep(pace.read_pause_s)
        wanted = min(max_bytes or _RECEIVE_BYTES, pace.read_max_bytes)
        try:
            received = await self._in.get(wanted, is_closed=self._closed)
        except TransportBrokenError:
            raise self._error() from None
        self.gate.note(self.gate.name, "received", of=self.connection.number, size=len(received))
        return received

    def _error(self) -> Exception:
        if self.is_closed:
            return trio.ClosedResourceError("this end was closed")
        return trio.BrokenResourceError("the peer is gone")

    async def aclose(self) -> None:
        """Close; idempotent."""
        if not self.gate.is_severed:
            self.close()
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class Pace:
    """How fast one client reads; see ClientProcess."""

    read_max_bytes: int = _RECEIVE_BYTES
    read_pause_s: float = 0.0
    is_stopped: bool = False
    _going: trio.Event = attrs.field(factory=trio.Event)

    async def wait_going(self) -> None:
        """Return when the client reads again. Cancellation: safe."""
        while self.is_stopped:
            await self._going.wait()

    def stop(self) -> None:
        """Read nothing from now on."""
        if not self.is_stopped:
            # Whoever waits for the old event would be left waiting.
            self.is_stopped = True
            self._going = trio.Event()

    def go(self) -> None:
        """Read again."""
        self.is_stopped = False
        self._going.set()


class Connection:
    """One connection, with both of its ends."""

    def __init__(self, network: Network, number: int, client: PortGate, node: PortGate, pace: Pace) -> None:
        """Connect a client with a node."""
        self.network = network
        self.number = number
        self.pace = pace
        self.address = f"192.0.2.{1 + number % 250}"
        to_client = network.send_buffer_bytes + RECEIVE_WINDOW_BYTES
        down = Pipe(network, node.place, client.place, to_client)
        up = Pipe(network, client.place, node.place, RECEIVE_WINDOW_BYTES)
        self._pipes = (down, up)
        self.stream = SimulatedStream(client, self, down, up)
        self.transport = SimulatedTransport(node, self, up, down)

    def reset(self) -> None:
        """Break it for both ends at once."""
        for pipe in self._pipes:
            pipe.break_off()

    def wake(self) -> None:
        """Look again at what may arrive: a partition has healed."""
        for pipe in self._pipes:
            pipe.wake()

    def forget_if_over(self) -> None:
        """Leave the network when both ends are closed."""
        if self.stream.is_closed and self.transport.is_closed:
            self.network.connections.pop(self.number, None)


class SimulatedAcceptor:
    """The listening socket of one node; see khala.app.EngineAcceptor."""

    port = 8473

    def __init__(self, gate: PortGate, *, send_buffer_bytes: int, close: Callable[[], None]) -> None:
        """Listen at the gate's place until ``close`` is called."""
        self.gate = gate
        self._close = close
        self.send_buffer_bytes = send_buffer_bytes
        self._send, self._receive = trio.open_memory_channel[Connection](256)

    async def accept(self) -> SimulatedTransport:
        """See Acceptor."""
        await self.gate.cross("network.accept")
        connection = await self._receive.receive()
        self.gate.note(self.gate.name, "accepted", of=connection.number)
        return connection.transport

    def stop(self) -> list[ByteTransport]:
        """See Acceptor."""
        self._close()
        waiting: list[ByteTransport] = []
        while not self.gate.is_severed:
            try:
                waiting.append(self._receive.receive_nowait().transport)
            except trio.WouldBlock:
                break
        return waiting

    def offer(self, connection: Connection) -> None:
        """Put a connection into the backlog. Raises trio.WouldBlock."""
        self._send.send_nowait(connection)


class Network:
    """Every connection of a world, and who listens where."""

    def __init__(self, *, rng: Random, faults: NetworkFaults) -> None:
        """Draw from ``rng`` what ``faults`` leaves to chance."""
        self.rng = rng
        self.faults = faults
        self.send_buffer_bytes = 8 * 1024
        self.connections: dict[int, Connection] = {}
        self._acceptors: dict[str, SimulatedAcceptor] = {}
        self._silent: dict[str, None] = {}
        self._count = 0

    def listen(self, gate: PortGate, *, send_buffer_bytes: int) -> SimulatedAcceptor:
        """Listen at the gate's place until the process ends or stops to."""

        def close() -> None:
            if self._acceptors.get(gate.place) is acceptor:
                del self._acceptors[gate.place]

        acceptor = SimulatedAcceptor(gate, send_buffer_bytes=send_buffer_bytes, close=close)
        self._acceptors[gate.place] = acceptor
        gate.on_sever(close)
        return acceptor

    def is_silent(self, place: str) -> bool:
        """Whether the host at ``place`` dies without a word."""
        return place in self._silent

    def silence(self, place: str, *, is_silent: bool) -> None:
        """Let the next death at ``place`` be that of the host, or again of the process alone."""
        if is_silent:
            self._silent[place] = None
        else:
            self._silent.pop(place, None)

    async def connect(self, gate: PortGate, pace: Pace) -> SimulatedStream:
        """Connect a client to one of the nodes that listen, as a load balancer would.

        Raises:
            OSError: Nobody listens there.
        Cancellation: nobody is connected.
        """
        await gate.cross("network.connect")
        await trio.sleep(self.faults.delay.draw(self.rng))
        places = list(self._acceptors)
        is_stale = self.faults.stale_balancer and self.rng.random() < self.faults.stale_balancer
        if not places or is_stale:
            gate.note(gate.name, "refused")
            message = "connection refused"
            raise ConnectionRefusedError(message)
        place = self.rng.choice(places)
        acceptor = self._acceptors[place]
        while (gate.place, place) in self.faults.cut or (place, gate.place) in self.faults.cut:  # noqa: ASYNC110 - TCP tries again, too
            await trio.sleep(0.5)
        await gate.cross("network.connect")
        if acceptor.gate.is_severed:
            message = "connection reset"
            raise ConnectionResetError(message)
        self._count += 1
        self.send_buffer_bytes = acceptor.send_buffer_bytes
        connection = Connection(self, self._count, gate, acceptor.gate, pace)
        self.connections[self._count] = connection
        gate.note(gate.name, "connected", number=self._count, to=acceptor.gate.name)
        acceptor.offer(connection)
        return connection.stream

    def heal(self) -> None:
        """Deliver what partitions have held back."""
        for connection in tuple(self.connections.values()):
            connection.wake()
