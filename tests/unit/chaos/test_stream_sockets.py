"""The reader of ``khala bench revoke``: it notices what a client must never see, and how a socket ended."""

from __future__ import annotations

import pytest
import trio

from chaos.load.stream_sockets import StreamBrokenError, StreamSocket
from khala_contracts import reason_codes
from khala_contracts.entries import encode_entry
from khala_contracts.frames import Frame
from khala_contracts.server_encoding import encode_server_control
from khala_contracts.server_messages import ErrorMessage, Subscribed, SubscriptionMode
from khala_contracts.topics import Tier
from tests.topic_log import run_topic

TOPIC = run_topic(1).name
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
SUBSCRIBED = encode_server_control(
    Subscribed(TOPIC, "lin", 4, 1, bytes(32), Tier.WARM, SubscriptionMode.LIVE, 4)
)
ENDED = encode_server_control(ErrorMessage.of(reason_codes.REAUTH_REQUIRED))
CLOSED = (4501).to_bytes(2, "big")


def framed(opcode: int, payload: bytes) -> bytes:
    """Return a server's frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 1 << 16:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


def frames(*seqs: int, size: int = 10) -> bytes:
    """Return a message with frames of these seqs."""
    return framed(2, b"".join(encode_entry(Frame(TOPIC, seq, "output", bytes(size), 1)) for seq in seqs))


async def read(*parts: bytes, chunk_bytes: int = 1_000_000) -> StreamSocket:
    """Let a reader read these bytes, so many at a time; then the connection ends."""
    data = UPGRADED + b"".join(parts)
    socket = StreamSocket("ses_1", "dev_1", "ws://nowhere", "token")
    ours, theirs = trio.testing.memory_stream_one_way_pair()

    async def send() -> None:
        async with ours:
            for start in range(0, len(data), chunk_bytes):
                await ours.send_all(data[start : start + chunk_bytes])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await socket.read(theirs)
    return socket


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1_000_000])
async def test_a_stream_and_its_end(chunk_bytes: int) -> None:
    """However the bytes are cut: frames of each length, the last error, the close code, the time."""
    parts = (framed(2, SUBSCRIBED), frames(5, 6), frames(7, size=200), frames(8), framed(9, b"?"))
    socket = await read(*parts, framed(2, ENDED), framed(8, CLOSED), chunk_bytes=chunk_bytes)
    assert socket.last_seq == 8
    assert socket.codes == ("reauth_required", 4501)
    assert socket.ended_at is not None
    assert socket.subscribed.is_set()


async def test_long_messages() -> None:
    """Of more than 64 KiB."""
    socket = await read(framed(2, SUBSCRIBED), frames(5, 6, size=40_000), framed(8, CLOSED))
    assert socket.last_seq == 6
    assert socket.codes == ("", 4501)


@pytest.mark.parametrize("seqs", [(5, 7), (5, 5), (6,), (4,)])
async def test_a_gap_or_a_repeat_breaks_the_stream(seqs: tuple[int, ...]) -> None:
    """Also across messages; what begins elsewhere than subscribed said is one."""
    with pytest.RaisesGroup(pytest.RaisesExc(StreamBrokenError, match=r"seq=\d")):
        await read(framed(2, SUBSCRIBED), *(frames(seq) for seq in seqs))


async def test_an_end_without_a_close_frame_is_no_end() -> None:
    """A node that died is not one that evicted."""
    with pytest.RaisesGroup(pytest.RaisesExc(StreamBrokenError, match="without a close frame")):
        await read(framed(2, SUBSCRIBED), framed(2, ENDED))


async def test_a_refused_upgrade_is_said() -> None:
    """With the beginning of the answer."""
    ours, theirs = trio.testing.memory_stream_one_way_pair()
    await ours.send_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    with pytest.raises(StreamBrokenError, match="503"):
        await StreamSocket("ses_1", "dev_1", "ws://nowhere", "token").read(theirs)
