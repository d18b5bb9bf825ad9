"""TLS over TCP passes the suite of the other transports, and keeps its own two invariants."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from chaos.authority import Authority
from khala.adapters.sockets import open_acceptor
from khala.adapters.tls_sockets import PENDING_MAX_BYTES, RECORD_MAX_BYTES, TlsTransport
from khala.ports import TransportBrokenError
from tests.actors.khala.transport_suite import DEADLINE_S, TransportSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from khala.ports import ByteTransport
    from tests.actors.khala.transport_suite import ClientEnd


@attrs.define
class _Client:
    """A client that pulls no more from the kernel than it is asked to."""

    stream: trio.SSLStream[trio.SocketStream]

    async def receive(self) -> bytes:
        """Receive what is there; nothing at an end without TLS's own, too."""
        try:
            return bytes(await self.stream.receive_some(64 * 1024))
        except trio.BrokenResourceError:
            return b""

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await self.stream.send_all(data)

    def end(self) -> None:
        """Half-close below TLS: no byte follows."""
        self.stream.transport_stream.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a zero linger, which sends RST."""
        raw = self.stream.transport_stream.socket
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority."""
    return Authority.make(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server_context(authority: Authority) -> ssl.SSLContext:
    """The server's side."""
    cert, key, _ = authority.certify("node")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


class TestTls(TransportSuite):
    """Small buffers in the kernel; the handshake is over."""

    @pytest.fixture(autouse=True)
    def certified(self, authority: Authority, server_context: ssl.SSLContext) -> None:
        """Take the certificates."""
        self.contexts = authority.client_context(), server_context

    @asynccontextmanager
    async def open_pair(self) -> AsyncIterator[tuple[ByteTransport, ClientEnd]]:
        """Connect over loopback and shake hands."""
        client_context, context = self.contexts
        acceptor = open_acceptor("127.0.0.1", 0, send_buffer_bytes=16 * 1024, tls=context)
        with trio.socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024)
            await raw.connect(("127.0.0.1", acceptor.port))
            transport = await acceptor.accept()
            stream = trio.SSLStream(trio.SocketStream(raw), client_context, server_hostname="localhost")
            async with trio.open_nursery() as nursery:

                async def greet() -> None:
                    # The first byte of the client's own makes receive_some return.
                    await stream.do_handshake()
                    await stream.send_all(b"!")

                nursery.start_soon(greet)
                assert await transport.receive_some(1) == b"!"
            try:
                yield transport, _Client(stream)
            finally:
                transport.abort()
                acceptor.close()


class Wire:
    """A kernel that takes what it is told to, and remembers it."""

    def __init__(self) -> None:
        self.room = 1 << 30
        self.sent = bytearray()
        self.inbox: list[bytes] = []
        self.remote_address = ""

    @property
    def direct_send(self) -> Callable[[bytes], int]:
        """See ByteTransport."""
        return self.try_send

    def try_send(self, data: bytes | memoryview) -> int:
        taken = min(self.room, len(data))
        self.room -= taken
        self.sent += data[:taken]
        return taken

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int) -> bytes:
        while not self.inbox:
            await trio.lowlevel.checkpoint()
        return self.inbox.pop(0)

    def abort(self) -> None:
        self.room = 0


class Peer:
    """A client whose bytes a test carries by hand."""

    def __init__(self, wire: Wire, context: ssl.SSLContext) -> None:
        self._wire = wire
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def take(self) -> None:
        """Take what the server sent, give it what we have to say."""
        self.incoming.write(bytes(self._wire.sent))
        self._wire.sent.clear()

    def give(self) -> None:
        self._wire.inbox.append(self.outgoing.read())

    def read_all(self) -> bytes:
        self.take()
        data = bytearray()
        while True:
            try:
                data += self.tls.read(1 << 20)
            except ssl.SSLWantReadError:
                return bytes(data)


async def _greeted(authority: Authority, context: ssl.SSLContext) -> tuple[Wire, Peer, TlsTransport]:
    wire = Wire()
    peer = Peer(wire, authority.client_context())
    transport = TlsTransport(wire, context)
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    peer.give()
    async with trio.open_nursery() as nursery:

        async def finish() -> None:
            while not wire.sent:
                await trio.lowlevel.checkpoint()
            peer.take()
            peer.tls.do_handshake()
            peer.tls.write(b"!")
            peer.give()

        nursery.start_soon(finish)
        assert await transport.receive_some(1) == b"!"
    peer.read_all()
    return wire, peer, transport


@pytest.mark.parametrize("room", [0, 1, 100, RECORD_MAX_BYTES, RECORD_MAX_BYTES + 50, 3 * RECORD_MAX_BYTES])
async def test_what_is_said_to_be_taken_is_with_the_kernel(
    authority: Authority, server_context: ssl.SSLContext, room: int
) -> None:
    """Plain bytes count as taken when all their encrypted bytes left: the client can read exactly those."""
    wire, peer, transport = await _greeted(authority, server_context)
    data = bytes(range(256)) * 400  # six records and a half
    wire.room = room
    taken = transport.try_send(data)
    got = peer.read_all()
    assert got == data[:taken]
    assert taken % RECORD_MAX_BYTES == 0
    # With room, exactly the rest follows, nothing twice.
    wire.room = 1 << 30
    assert transport.try_send(memoryview(data)[taken:]) == len(data) - taken
    assert got + peer.read_all() == data


async def test_byte_by_byte(authority: Authority, server_context: ssl.SSLContext) -> None:
    """A kernel that takes seven bytes at a time delivers the same stream."""
    wire, peer, transport = await _greeted(authority, server_context)
    data, done, got = bytes(range(256)) * 100, 0, b""
    while done < len(data):
        wire.room = 7
        done += transport.try_send(memoryview(data)[done:])
        got += peer.read_all()
    wire.room = 1 << 20
    transport.try_send(b"")
    assert got + peer.read_all() == data


async def test_what_is_not_tls_is_dropped(authority: Authority, server_context: ssl.SSLContext) -> None:
    """A client in clear, or of another protocol, ends as a broken transport and sends nothing to us."""
    del authority
    wire = Wire()
    wire.inbox.append(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    transport = TlsTransport(wire, server_context)
    with pytest.raises(TransportBrokenError):
        await transport.receive_some(100)
    assert transport.try_send(b"HTTP/1.1 400\r\n") == 0


async def test_before_the_handshake_nothing_is_sent(server_context: ssl.SSLContext) -> None:
    """A refusal in clear would be noise to a client that speaks TLS."""
    wire = Wire()
    transport = TlsTransport(wire, server_context)
    assert transport.try_send(b"HTTP/1.1 503\r\n") == 0
    assert not wire.sent


async def test_a_client_that_makes_tls_talk_and_never_reads_is_dropped(
    authority: Authority, server_context: ssl.SSLContext
) -> None:
    """What TLS answers by itself is bounded: above it the connection breaks."""
    wire, _, transport = await _greeted(authority, server_context)
    wire.room = 0
    with pytest.raises(TransportBrokenError):
        for _ in range(1_000):
            # Stands for alerts and new keys: encrypted bytes that nobody asked try_send for.
            transport._tls.write(bytes(1024))
            transport._flush()
    assert len(transport._pending) <= PENDING_MAX_BYTES + 2 * 1024


async def test_abort_says_that_nothing_follows(authority: Authority, server_context: ssl.SSLContext) -> None:
    """A client can tell an end from a cut."""
    with trio.fail_after(DEADLINE_S):
        _, peer, transport = await _greeted(authority, server_context)
        transport.abort()
        peer.take()
        assert peer.tls.read(1) == b""
