"""The WebSocket library's adapter and clients that end before, or between, what the protocol expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala.adapters.websocket_sansio import SansIoPeer
from khala.ports import PeerClosedError, TransportBrokenError

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST = (
    b"GET /sync/v1/ws HTTP/1.1\r\nHost: khala\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: khala.v1\r\n\r\n"
)


@attrs.define
class _Wire:
    """Gives what it has, then the end of the stream for as long as somebody asks."""

    pieces: list[bytes]
    reads: int = 0
    remote_address: str = "192.0.2.1"

    @property
    def direct_send(self) -> Callable[[bytes], int]:
        """See ByteTransport."""
        return self.try_send

    def try_send(self, data: bytes | memoryview) -> int:
        return len(data)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int) -> bytes:
        del max_bytes
        await trio.lowlevel.checkpoint()
        self.reads += 1
        if self.reads > 100:
            raise TransportBrokenError
        return self.pieces.pop(0) if self.pieces else b""

    def abort(self) -> None:
        self.pieces.clear()


@pytest.mark.parametrize("said", [[], [b"GET /sync"], [REQUEST[:-2]]])
async def test_an_end_before_the_request_ends_the_connection(said: list[bytes]) -> None:
    """One read of the end is enough: nobody asks again and again until a deadline."""
    wire = _Wire(list(said))
    peer = SansIoPeer(wire, lambda data: None, message_max_bytes=1 << 16)
    with pytest.raises(PeerClosedError):
        await peer.receive_request()
    assert wire.reads == len(said) + 1


@pytest.mark.parametrize("said", [[], [b"\x81"], [b"\x01\x82\x00\x00\x00\x00hi"]])
async def test_an_end_without_a_close_ends_the_connection(said: list[bytes]) -> None:
    """Between frames, inside one, or inside a message: 1006, at once."""
    wire = _Wire([REQUEST, *said])
    peer = SansIoPeer(wire, lambda data: None, message_max_bytes=1 << 16)
    await peer.receive_request()
    await peer.accept("khala.v1")
    with pytest.raises(PeerClosedError) as closed:
        while await peer.receive_message() is None:
            pass
    assert closed.value.code == 1006
    assert wire.reads <= len(said) + 2
