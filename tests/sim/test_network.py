"""The simulated network: a kernel like the real one, and partitions that hold what TCP would repeat."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from chaos.sim.gates import Latency, PortGate, WallClock
from chaos.sim.network import Connection, Network, NetworkFaults, Pace
from khala.ports import TransportBrokenError
from tests.actors.khala.transport_suite import TransportSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from khala.ports import ByteTransport
    from tests.actors.khala.transport_suite import ClientEnd


def _note(who: str, what: str, /, **facts: object) -> None:
    del who, what, facts


def _gate(place: str) -> PortGate:
    return PortGate(f"{place}.1", place, place, WallClock(), _note)


def _connect(**faults: float) -> tuple[Connection, Network, PortGate, PortGate]:
    network = Network(rng=Random(1), faults=NetworkFaults(**faults))  # type: ignore[arg-type]
    client, node = _gate("client"), _gate("node")
    connection = network.connections[1] = Connection(network, 1, client, node, Pace())
    return connection, network, client, node


@attrs.define
class _Client:
    connection: Connection

    async def receive(self) -> bytes:
        """Take what has come."""
        return await self.connection.stream.receive_some(10_000)

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await self.connection.stream.send_all(data)

    def end(self) -> None:
        """End the stream."""
        self.connection.stream.close()

    def reset(self) -> None:
        """Break the stream."""
        self.connection.reset()


class TestSimulatedNetwork(TransportSuite):
    """The node's end passes what the real socket passes, with short writes."""

    @asynccontextmanager
    async def open_pair(self) -> AsyncIterator[tuple[ByteTransport, ClientEnd]]:
        """Open one."""
        connection, network, *_ = _connect(short_write=0.3)
        network.faults.delay = Latency()
        yield connection.transport, _Client(connection)


async def test_a_client_that_is_stopped_twice_reads_again(autojump_clock: MockClock) -> None:
    """Once it goes on: the second stop is none."""
    pace = Pace()
    pace.stop()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pace.wait_going)
            await trio.testing.wait_all_tasks_blocked()
            pace.stop()
            pace.go()


async def test_a_partition_holds_what_is_sent_until_it_heals(autojump_clock: MockClock) -> None:
    """One way is enough; the other way goes on; nothing is lost and the order stays."""
    connection, network, _, _ = _connect()
    network.faults.cut["node", "client"] = None
    assert connection.transport.try_send(b"one") == 3
    await connection.stream.send_all(b"up")
    assert await connection.transport.receive_some(10) == b"up"
    with trio.move_on_after(60.0) as waited:
        await connection.stream.receive_some(10)
    assert waited.cancelled_caught
    connection.transport.try_send(b"two")
    network.faults.cut.clear()
    network.heal()
    received = b""
    while len(received) < 6:
        received += await connection.stream.receive_some(10)
    assert received == b"onetwo"
    assert autojump_clock.current_time() >= 60.0


async def test_a_dead_process_resets_and_a_dead_host_is_silent(autojump_clock: MockClock) -> None:
    """The kernel of a process that died answers for it; nobody answers for a host."""
    connection, _, _, node = _connect()
    node.sever()
    with pytest.raises(trio.BrokenResourceError):
        await connection.stream.receive_some(10)
    connection, network, _, node = _connect()
    network.silence("node", is_silent=True)
    node.sever()
    with trio.move_on_after(3_600.0) as waited:
        await connection.stream.receive_some(10)
    assert waited.cancelled_caught
    assert autojump_clock.current_time() >= 3_600.0


async def test_behind_a_severed_gate_nothing_is_sent(autojump_clock: MockClock) -> None:
    """A crashed process that unwinds writes nothing, and its calls do not return."""
    connection, _, _, node = _connect()
    node.sever()
    assert connection.transport.try_send(b"late") == 0
    with trio.move_on_after(10.0) as waited:
        await connection.transport.receive_some(10)
    assert waited.cancelled_caught
    assert autojump_clock.current_time() == 10.0


async def test_what_was_sent_before_the_end_arrives() -> None:
    """Closing in order delivers; what the closer had not read makes it a reset."""
    connection, *_ = _connect()
    connection.transport.try_send(b"last words")
    connection.transport.abort()
    assert await connection.stream.receive_some(100) == b"last words"
    assert await connection.stream.receive_some(100) == b""
    with pytest.raises(TransportBrokenError):
        connection.transport.try_send(b"x")
