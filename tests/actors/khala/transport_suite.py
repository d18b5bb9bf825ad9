"""What every ByteTransport does, whatever kernel is behind it; run on the simulated and the real one.

A test module makes a subclass of ``TransportSuite`` that opens a pair. Real sockets need real time, so
nothing here depends on a clock: each step waits for what it needs, under one generous deadline.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Protocol

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from khala.ports import ByteTransport, TransportBrokenError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

# More than any kernel on the way holds, with the small buffers that the suite's pairs ask for.
FLOOD_BYTES = 4 * 1024 * 1024
DEADLINE_S = 20.0


class ClientEnd(Protocol):
    """The other end of the pair."""

    async def receive(self) -> bytes:
        """Return what has arrived, at least one byte, or nothing at the end."""

    async def send(self, data: bytes) -> None:
        """Send all of it."""

    def end(self) -> None:
        """End this direction in good order."""

    def reset(self) -> None:
        """Break the connection."""


async def _send_all(transport: ByteTransport, data: bytes) -> None:
    """Send the way a connection's writer does."""
    rest = memoryview(data)
    while len(rest):
        sent = transport.try_send(rest)
        rest = rest[sent:]
        if len(rest):
            await transport.wait_writable()


def _taken(send: Callable[[bytes], int], data: bytes) -> int:
    try:
        return send(data)
    except BlockingIOError:
        return 0


def _fill(transport: ByteTransport) -> int:
    """Send until the kernel takes no more for a while; return how much it took."""
    total = refusals = 0
    while refusals < 50:  # the simulated kernel may refuse at random
        taken = transport.try_send(bytes(16 * 1024))
        total += taken
        refusals = 0 if taken else refusals + 1
        assert total < FLOOD_BYTES, "a client that never reads absorbs everything"
    return total


class TransportSuite:
    """Subclass it and open pairs."""

    @abstractmethod
    def open_pair(self) -> AbstractAsyncContextManager[tuple[ByteTransport, ClientEnd]]:
        """Return a connected pair whose kernel holds little."""

    async def test_everything_arrives_in_order(self) -> None:
        """What was taken arrives, whole and in order, whatever the kernel cuts it into."""
        data = b"".join(b"%08d" % number for number in range(40_000))
        received = bytearray()
        with trio.fail_after(DEADLINE_S):
            async with self.open_pair() as (transport, client), trio.open_nursery() as nursery:
                nursery.start_soon(_send_all, transport, data)
                while len(received) < len(data):
                    received += await client.receive()
        assert received == data

    async def test_the_direct_send_is_the_same_send(self) -> None:
        """Bytes of both arrive in order; where one takes nothing so does the other, and after abort both fail."""
        async with self.open_pair() as (transport, client):
            sent, received = b"", b""
            with trio.fail_after(DEADLINE_S):
                for send, data in ((transport.direct_send, b"one "), (transport.try_send, b"two")):
                    rest = data
                    while rest:
                        taken = _taken(send, rest)
                        sent, rest = sent + rest[:taken], rest[taken:]
                        if rest:
                            await transport.wait_writable()
                while len(received) < len(sent):
                    received += await client.receive()
            assert received == sent == b"one two"
            _fill(transport)
            assert _taken(transport.direct_send, b"x") == 0
            transport.abort()
            with pytest.raises((TransportBrokenError, OSError)):
                transport.direct_send(b"x")

    async def test_a_stalled_client_is_felt(self) -> None:
        """A client that does not read: sends return 0, and waiting ends only when it reads."""
        with trio.fail_after(DEADLINE_S):
            async with self.open_pair() as (transport, client), trio.open_nursery() as nursery:
                total = _fill(transport)
                is_writable = trio.Event()

                async def wait() -> None:
                    await transport.wait_writable()
                    is_writable.set()

                async def read() -> None:
                    nonlocal total
                    while True:
                        total -= len(await client.receive())

                nursery.start_soon(wait)
                await wait_all_tasks_blocked()
                assert not is_writable.is_set()
                # Beside the waiting: what was taken last may need another send before it can be read.
                nursery.start_soon(read)
                await is_writable.wait()
                nursery.cancel_scope.cancel()
                assert total >= 0

    async def test_received_in_pieces(self) -> None:
        """receive_some returns at most what was asked for, in order, then the end of the stream."""
        received = []
        with trio.fail_after(DEADLINE_S):
            async with self.open_pair() as (transport, client):
                await client.send(b"abcdefgh")
                client.end()
                while piece := await transport.receive_some(3):
                    assert len(piece) <= 3
                    received.append(piece)
                assert await transport.receive_some(3) == b""
        assert b"".join(received) == b"abcdefgh"

    async def test_cancelled_receive_consumes_nothing(self) -> None:
        """A receive that is cancelled while waiting loses no byte that comes after."""
        with trio.fail_after(DEADLINE_S):
            async with self.open_pair() as (transport, client):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await transport.receive_some(10)
                await client.send(b"x")
                assert await transport.receive_some(10) == b"x"

    async def test_a_reset_breaks_both_directions(self) -> None:
        """After a reset receiving raises TransportBrokenError, and sending does so soon."""
        with trio.fail_after(DEADLINE_S):
            async with self.open_pair() as (transport, client):
                client.reset()
                with pytest.raises(TransportBrokenError):
                    await transport.receive_some(1)
                with pytest.raises(TransportBrokenError):
                    await _send_all(transport, bytes(FLOOD_BYTES))

    async def test_after_abort_every_call_raises(self) -> None:
        """Abort is idempotent, and final."""
        with trio.fail_after(DEADLINE_S):
            async with self.open_pair() as (transport, _):
                transport.abort()
                transport.abort()
                with pytest.raises(TransportBrokenError):
                    transport.try_send(b"x")
                with pytest.raises(TransportBrokenError):
                    await transport.receive_some(1)
                with pytest.raises(TransportBrokenError):
                    await transport.wait_writable()

    async def test_abort_wakes_the_reader(self) -> None:
        """A reader that waits learns of an abort at once."""
        with trio.fail_after(DEADLINE_S):
            async with self.open_pair() as (transport, _), trio.open_nursery() as nursery:

                async def read() -> None:
                    with pytest.raises(TransportBrokenError):
                        await transport.receive_some(1)

                nursery.start_soon(read)
                await wait_all_tasks_blocked()
                transport.abort()

    async def test_abort_wakes_the_writer(self) -> None:
        """A writer that waits learns of an abort at once."""
        with trio.fail_after(DEADLINE_S):
            async with self.open_pair() as (transport, _), trio.open_nursery() as nursery:

                async def write() -> None:
                    with pytest.raises(TransportBrokenError):
                        await transport.wait_writable()

                _fill(transport)
                nursery.start_soon(write)
                await wait_all_tasks_blocked()
                transport.abort()

    async def test_one_task_waits_to_write(self) -> None:
        """A second waiter is our own mistake and is told so; the first goes on waiting."""
        with trio.fail_after(DEADLINE_S):
            async with self.open_pair() as (transport, _), trio.open_nursery() as nursery:
                _fill(transport)
                nursery.start_soon(transport.wait_writable)
                await wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await transport.wait_writable()
                nursery.cancel_scope.cancel()
