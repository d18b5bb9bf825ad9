"""The simulated kernel passes the suite of the real one, with and without random short writes."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.actors.khala.transport_suite import TransportSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from khala.ports import ByteTransport
    from tests.actors.khala.transport_suite import ClientEnd


@attrs.define
class _Client:
    transport: SimulatedTransport

    async def receive(self) -> bytes:
        """Take up to 10,000 bytes."""
        await trio.lowlevel.checkpoint()
        return self.transport.take(10_000)

    async def send(self, data: bytes) -> None:
        """Feed all of it."""
        await trio.lowlevel.checkpoint()
        self.transport.feed(data)

    def end(self) -> None:
        """End the stream."""
        self.transport.feed_eof()

    def reset(self) -> None:
        """Break the stream."""
        self.transport.reset()


class TestSimulated(TransportSuite):
    """A buffer of 64 KiB."""

    @asynccontextmanager
    async def open_pair(self) -> AsyncIterator[tuple[ByteTransport, ClientEnd]]:
        """Open one."""
        transport = SimulatedTransport(buffer_bytes=64 * 1024)
        yield transport, _Client(transport)


class TestSimulatedWithShortWrites(TransportSuite):
    """The same, but each send is cut at random."""

    @asynccontextmanager
    async def open_pair(self) -> AsyncIterator[tuple[ByteTransport, ClientEnd]]:
        """Open one."""
        transport = SimulatedTransport(buffer_bytes=64 * 1024, rng=random.Random(7))
        yield transport, _Client(transport)


def _cuts(seed: int) -> list[int]:
    transport = SimulatedTransport(rng=random.Random(seed))
    return [transport.try_send(bytes(1_000)) for _ in range(50)]


def test_equal_seeds_cut_equally() -> None:
    """A failing seed is a test: the same seed gives the same short writes, another gives others."""
    assert _cuts(1) == _cuts(1)
    assert _cuts(1) != _cuts(2)
    assert min(_cuts(1)) < 1_000 == max(_cuts(1))


async def test_a_stall_takes_nothing_until_it_ends() -> None:
    """Between stall and resume the kernel takes no byte, though it has room."""
    transport = SimulatedTransport()
    transport.stall()
    assert transport.try_send(b"x") == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.wait_writable)
        await trio.testing.wait_all_tasks_blocked()
        transport.resume()
    assert transport.try_send(b"x") == 1
    assert transport.take() == b"x"


@pytest.mark.parametrize(("count", "taken"), [(9, 9), (10, 10), (11, 10)])
def test_the_buffer_is_bounded(count: int, taken: int) -> None:
    """The kernel holds buffer_bytes and no byte more."""
    transport = SimulatedTransport(buffer_bytes=10)
    assert transport.try_send(bytes(count)) == taken
    assert len(transport.take()) == taken
