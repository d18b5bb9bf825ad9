"""TCP over loopback passes the suite of the simulated kernel."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala.adapters.sockets import open_acceptor
from tests.actors.khala.transport_suite import TransportSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from khala.ports import ByteTransport
    from tests.actors.khala.transport_suite import ClientEnd


@attrs.define
class _Client:
    socket: trio.socket.SocketType

    async def receive(self) -> bytes:
        """Receive what is there."""
        return await self.socket.recv(64 * 1024)

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        assert await self.socket.send(data) == len(data)

    def end(self) -> None:
        """Half-close."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a zero linger, which sends RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class TestSocket(TransportSuite):
    """A real kernel with small buffers: without SO_RCVBUF a client that never reads absorbs megabytes."""

    @asynccontextmanager
    async def open_pair(self) -> AsyncIterator[tuple[ByteTransport, ClientEnd]]:
        """Connect over loopback."""
        acceptor = open_acceptor("127.0.0.1", 0, send_buffer_bytes=16 * 1024)
        with trio.socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024)
            await client.connect(("127.0.0.1", acceptor.port))
            transport = await acceptor.accept()
            try:
                yield transport, _Client(client)
            finally:
                transport.abort()
                acceptor.close()


async def test_listeners_that_share_a_port() -> None:
    """Both that say so listen there; one that does not is refused, and so is one beside a listener that does not."""
    with_others = partial(open_acceptor, "127.0.0.1", send_buffer_bytes=16 * 1024, is_port_shared=True)
    first = open_acceptor("127.0.0.1", 0, send_buffer_bytes=16 * 1024)
    try:
        with pytest.raises(OSError, match="in use"):
            with_others(first.port)
    finally:
        first.close()
    first = with_others(0)
    second = with_others(first.port)
    try:
        with pytest.raises(OSError, match="in use"):
            open_acceptor("127.0.0.1", first.port, send_buffer_bytes=16 * 1024)
    finally:
        first.close()
    # Whoever has left gets nobody any more.
    with trio.socket.socket() as client:
        await client.connect(("127.0.0.1", second.port))
        with trio.fail_after(5):
            (await second.accept()).abort()
    second.close()


class _Turns(trio.abc.Instrument):
    """Counts the turns of the loop; in each of them every task that can go on does."""

    def __init__(self) -> None:
        self.count = 0

    def after_io_wait(self, timeout: float) -> None:
        """Take note of one more."""
        self.count += 1


async def test_a_storm_leaves_others_their_turn() -> None:
    """40 clients that wait are all accepted: 16 in a turn of the loop, then others have theirs."""
    acceptor = open_acceptor("127.0.0.1", 0, send_buffer_bytes=16 * 1024)
    turns, accepted = _Turns(), Counter[int]()
    with ExitStack() as held:
        held.callback(acceptor.close)
        for _ in range(40):
            held.enter_context(socket.create_connection(("127.0.0.1", acceptor.port)))
        trio.lowlevel.add_instrument(turns)
        held.callback(trio.lowlevel.remove_instrument, turns)
        with trio.fail_after(5):
            for _ in range(40):
                held.callback((await acceptor.accept()).abort)
                accepted[turns.count] += 1
    assert list(accepted.values()) == [16, 16, 8]
