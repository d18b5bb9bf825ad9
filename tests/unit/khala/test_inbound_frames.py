"""Where the request and the frames of a client end, whatever pieces they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khala.core.inbound_frames import REQUEST, FramePiece, InboundFrames, MessageTooBigError
from tests.client_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, client_frame, upgrade_request

HEAD = upgrade_request()
MAX = 1_000


def cut(wire: bytes, *cuts: int, maximum: int = MAX) -> list[FramePiece]:
    """Return the pieces of bytes that arrive cut at these places."""
    frames = InboundFrames(maximum)
    pieces = []
    for begin, end in zip((0, *cuts), (*cuts, len(wire)), strict=True):
        frames.feed(wire[begin:end])
        while (piece := frames.take()) is not None:
            pieces.append(piece)
    return pieces


def framed(*frames: bytes) -> list[tuple[int, bool, bool]]:
    """Return of each whole frame behind a request: opcode, and what is said of it."""
    return [(p.opcode, p.ends_frame, p.is_silent) for p in cut(HEAD + b"".join(frames))[1:]]


def test_the_kinds_of_frames() -> None:
    """A message ends with its last fragment; pings, pongs and other fragments are silent; a close is neither."""
    assert framed(
        client_frame(TEXT, b"x"),
        client_frame(BINARY, b"a", is_final=False),
        client_frame(PING, b"p"),
        client_frame(PONG),
        client_frame(CONTINUATION, b"b", is_final=False),
        client_frame(CONTINUATION),
        client_frame(CLOSE, b"\x03\xe8"),
    ) == [
        (TEXT, True, False),
        (BINARY, True, True),
        (PING, True, True),
        (PONG, True, True),
        (CONTINUATION, True, True),
        (CONTINUATION, True, False),
        (CLOSE, True, False),
    ]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536])
def test_every_length_form(size: int) -> None:
    """The end of a frame is found with each form of its length, masked or not."""
    for mask in (None, b"abcd"):
        wire = client_frame(BINARY, bytes(size), mask=mask)
        pieces = cut(HEAD + wire + client_frame(PING), maximum=1 << 20)
        assert [piece.data for piece in pieces] == [HEAD, wire, client_frame(PING)]


def test_a_head_in_pieces_waits() -> None:
    """No part of a frame's head is handed on before the whole is there; its payload is, as it comes."""
    wire = client_frame(BINARY, b"x" * 200)
    frames = InboundFrames(MAX)
    frames.feed(HEAD)
    assert frames.take() == FramePiece(HEAD, REQUEST, ends_frame=True)
    for position in range(7):
        frames.feed(wire[position : position + 1])
        assert frames.take() is None
    frames.feed(wire[7:8])
    assert frames.take() == FramePiece(wire[:8], BINARY, ends_frame=False)
    frames.feed(wire[8:50])
    assert frames.take() == FramePiece(wire[8:50], BINARY, ends_frame=False)
    frames.feed(wire[50:])
    assert frames.take() == FramePiece(wire[50:], BINARY, ends_frame=True)
    assert frames.take() is None


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"])
def test_the_end_of_a_request(end: bytes) -> None:
    """Found however the lines end, and wherever it is cut; what is behind it is a frame."""
    head = b"GET / HTTP/1.1\r\nHost: x" + end
    wire = head + client_frame(PING)
    for position in range(1, len(wire)):
        pieces = cut(wire, position)
        assert b"".join(piece.data for piece in pieces if piece.opcode == REQUEST) == head
        assert [piece.opcode for piece in pieces if piece.ends_frame] == [REQUEST, PING]


@pytest.mark.parametrize(
    "frames",
    [
        [client_frame(BINARY, length=MAX + 1)],
        [client_frame(TEXT, bytes(MAX), is_final=False), client_frame(CONTINUATION, b"x")],
        [
            client_frame(TEXT, bytes(MAX - 1), is_final=False),
            client_frame(PING),
            client_frame(CONTINUATION, b"xx"),
        ],
        [client_frame(BINARY, is_final=False), *[client_frame(CONTINUATION, is_final=False)] * MAX],
        [client_frame(BINARY, b"x"), client_frame(BINARY, length=1 << 62)],
        [client_frame(PING, length=MAX + 1)],
    ],
    ids=[
        "announced",
        "by the last fragment",
        "around a ping",
        "empty fragments without end",
        "the second",
        "a ping",
    ],
)
def test_a_message_that_is_too_large(frames: list[bytes]) -> None:
    """Known from a frame's head, before its payload; nothing of that frame is handed on."""
    cutter = InboundFrames(MAX)
    cutter.feed(HEAD + b"".join(frames))
    taken = b""
    with pytest.raises(MessageTooBigError):
        while (piece := cutter.take()) is not None:
            taken += piece.data
    assert taken == HEAD + b"".join(frames[:-1])


@pytest.mark.parametrize(
    "frames",
    [
        [client_frame(BINARY, bytes(MAX))] * 3,
        [client_frame(BINARY, bytes(MAX), is_final=False), client_frame(CONTINUATION)] * 3,
        [client_frame(BINARY, length=MAX * 2, mask=None)],
    ],
    ids=["exactly", "with an empty end", "unmasked"],
)
def test_what_is_not_too_large(frames: list[bytes]) -> None:
    """Exactly the maximum, again and again; and what the library must judge for another reason."""
    assert b"".join(piece.data for piece in cut(HEAD + b"".join(frames))) == HEAD + b"".join(frames)


def test_between_fragments() -> None:
    """It is known whether a message has begun and not ended, whatever comes in between."""
    frames = InboundFrames(MAX)
    frames.feed(HEAD)
    frames.take()
    for frame, expected in (
        (client_frame(BINARY, b"a"), False),
        (client_frame(BINARY, b"a", is_final=False), True),
        (client_frame(PING), True),
        (client_frame(CONTINUATION, is_final=False), True),
        (client_frame(CONTINUATION), False),
        (client_frame(BINARY, b"a", is_final=False), True),
    ):
        frames.feed(frame)
        frames.take()
        assert frames.is_in_message is expected
    frames.forget_message()
    assert not frames.is_in_message


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8), st.booleans())
def test_nothing_is_lost_or_made_up(wire: bytes, cuts: list[int], is_behind_request: bool) -> None:
    """Any bytes in any pieces: what is handed on is a prefix of what was fed, and depends on no cut."""
    whole = HEAD + wire if is_behind_request else wire
    places = sorted(min(place, len(whole)) for place in cuts)
    try:
        pieces = cut(whole, *places)
    except MessageTooBigError:
        with pytest.raises(MessageTooBigError):
            cut(whole)
        return
    joined = b"".join(piece.data for piece in pieces)
    assert whole.startswith(joined)
    assert len(whole) - len(joined) < 14, "more than the head of a frame was kept"
    assert joined == b"".join(piece.data for piece in cut(whole))
    assert sum(piece.ends_frame for piece in pieces) == sum(piece.ends_frame for piece in cut(whole))
