"""Many cheap readers in one process: each follows one topic on a bare WebSocket and notes how it ended.

Plain sockets and a few lines of RFC 6455, because five hundred of them share the machine with what they
measure. Times are of the wall clock of this machine, which is the one that control's rows have as well; they
are taken when bytes have arrived, so that the reader's own work counts as delay and never as speed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs
import trio

from chaos.checker import check_positions
from khala_contracts.codec import (
    ClientHeartbeat,
    ErrorMessage,
    FramesMessage,
    FromStart,
    Hello,
    Subscribe,
    Subscribed,
    SubscribeFrom,
    TopicStart,
    VersionRange,
    decode_server_message_untrusted,
    encode_client_message,
)

if TYPE_CHECKING:
    from khala_contracts.codec import ClientMessage

__all__ = ["StreamBrokenError", "StreamSocket"]

_V1: Final = VersionRange(1, 1)
_BINARY, _CLOSE, _PING = 0x2, 0x8, 0x9
_RECEIVE_BYTES: Final = 64 * 1024
_HEARTBEAT_S: Final = 10.0


class StreamBrokenError(Exception):
    """A socket got what no client may get, or ended in a way that nobody asked for."""


@attrs.define(eq=False)
class StreamSocket:
    """One reader; ``run`` reads until the node closes.

    Attributes:
        session_id: Whose stream it is.
        url: Of the node.
        token: Its sync token.
        last_seq: Of the last frame; None before ``subscribed``.
        ended_at: When the close frame had arrived, Unix seconds.
        codes: The code of the last error that was said, and of the close frame.
    """

    session_id: str
    device_id: str
    url: str
    token: str = attrs.field(repr=False)
    last_seq: int | None = None
    ended_at: float | None = None
    codes: tuple[str, int] = ("", 0)
    subscribed: trio.Event = attrs.field(factory=trio.Event)
    ended: trio.Event = attrs.field(factory=trio.Event)

    async def run(self, topic: str = "") -> None:
        """Connect, say hello, follow the topic from now on if there is one, and read to the end.

        Raises:
            StreamBrokenError: A frame was repeated or left out, or the connection ended without a close.
        """
        url = urlsplit(self.url)
        assert url.hostname is not None
        assert url.port is not None
        async with (
            await trio.open_tcp_stream(url.hostname, url.port) as stream,
            trio.open_nursery() as beating,
        ):
            await stream.send_all(_upgrade(url.netloc, url.path))
            await stream.send_all(_frame(Hello(self.token, None, self.device_id, "bench", _V1, _V1)))
            if topic:
                await stream.send_all(_frame(Subscribe((TopicStart(topic, FromStart(SubscribeFrom.NOW)),))))
                beating.start_soon(_beat, stream)
            await self.read(stream)
            beating.cancel_scope.cancel()
        self.ended.set()

    async def read(self, stream: trio.abc.ReceiveStream) -> None:
        """Read from the answer to the upgrade to the close frame.

        Raises:
            StreamBrokenError: As ``run``.
        """
        data = bytearray()
        while (end := data.find(b"\r\n\r\n")) < 0:
            await self._receive(stream, data)
        if not data.startswith(b"HTTP/1.1 101 "):
            raise StreamBrokenError(f"no upgrade: {bytes(data[:60])!r}")
        del data[: end + 4]
        arrived_at = time.time()
        while self.ended_at is None:
            if not (size := _has_frame(data)):
                arrived_at = await self._receive(stream, data)
                continue
            start = 2 if data[1] < 126 else 4 if data[1] == 126 else 10
            self._take(data[0] & 0x0F, bytes(data[start:size]), arrived_at)
            del data[:size]

    async def _receive(self, stream: trio.abc.ReceiveStream, data: bytearray) -> float:
        try:
            received = await stream.receive_some(_RECEIVE_BYTES)
        except trio.BrokenResourceError:
            received = b""
        if not received:
            raise StreamBrokenError(f"{self.url} ended without a close frame")
        data += received
        return time.time()

    def _take(self, opcode: int, payload: bytes, arrived_at: float) -> None:
        if opcode == _CLOSE:
            self.ended_at = arrived_at
            self.codes = self.codes[0], int.from_bytes(payload[:2], "big")
            return
        if opcode == _PING:
            return
        if opcode != _BINARY:
            raise StreamBrokenError(f"opcode {opcode}")
        message = decode_server_message_untrusted(payload)
        match message:
            case Subscribed():
                self.last_seq = message.start_seq
                self.subscribed.set()
            case FramesMessage(frames=frames):
                if self.last_seq is None:
                    raise StreamBrokenError("frames before subscribed")
                seqs = [frame.seq for frame in frames]
                topic = frames[0].topic
                for violation in check_positions(topic, seqs, source="socket", after_seq=self.last_seq):
                    raise StreamBrokenError(str(violation))
                self.last_seq = seqs[-1]
            case ErrorMessage():
                self.codes = message.code, 0
            case _:
                pass


async def _beat(stream: trio.SocketStream) -> None:
    while True:
        await trio.sleep(_HEARTBEAT_S)
        try:
            await stream.send_all(_frame(ClientHeartbeat()))
        except trio.BrokenResourceError:
            return


def _upgrade(host: str, path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: khala.v1\r\n\r\n"
    ).encode()


def _frame(message: ClientMessage) -> bytes:
    """Return a client's frame; a mask of zeros is a mask."""
    payload = encode_client_message(message)
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else bytes((0x80 | 126,)) + size.to_bytes(2, "big")
    return bytes((0x80 | _BINARY,)) + length + bytes(4) + payload


def _has_frame(data: bytearray) -> int:
    """Return the size of the first whole frame, 0 if there is none yet."""
    if len(data) < 2:
        return 0
    size, head = data[1] & 0x7F, 2
    if size == 126:
        size, head = int.from_bytes(data[2:4], "big"), 4
    elif size == 127:
        size, head = int.from_bytes(data[2:10], "big"), 10
    return head + size if len(data) >= head + size else 0
