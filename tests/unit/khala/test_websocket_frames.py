"""Framing of what the node sends, against RFC 6455 section 5.2 and the library's parser."""

import pytest
from websockets.extensions import Extension
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from khala.core.websocket_frames import frame_close, frame_header, frame_message

NO_EXTENSIONS: list[Extension] = []


def _parse(wire: bytes) -> Frame:
    """Parse one unmasked frame with the library and demand that nothing is left."""
    reader = StreamReader()
    reader.feed_data(wire)
    reader.feed_eof()
    parsing = Frame.parse(reader.read_exact, mask=False, max_size=None, extensions=NO_EXTENSIONS)
    try:
        while True:
            next(parsing)
    except StopIteration as stop:
        frame: Frame = stop.value
    at_end = reader.at_eof()
    with pytest.raises(StopIteration) as end:
        next(at_end)
    assert end.value.value is True
    return frame


@pytest.mark.parametrize("is_text", [True, False])
@pytest.mark.parametrize(
    ("length", "header_bytes"),
    [(0, 2), (1, 2), (125, 2), (126, 4), (127, 4), (65_535, 4), (65_536, 10), (65_537, 10)],
)
def test_length_forms(length: int, header_bytes: int, is_text: bool) -> None:
    """The shortest length form is used, at each of its edges, and the library reads it back."""
    body = b"b" * length
    wire = frame_message(body, is_text=is_text)
    assert len(wire) == header_bytes + length
    frame = _parse(wire)
    assert (frame.fin, frame.opcode) == (True, Opcode.TEXT if is_text else Opcode.BINARY)
    assert bytes(frame.data) == body


def test_the_header_stands_alone() -> None:
    """A header for bytes that are joined elsewhere equals that of the whole message."""
    assert frame_header(300) + bytes(300) == frame_message(bytes(300))
    assert frame_header(300, is_text=True)[0] == 0x81


@pytest.mark.parametrize("reason", ["", "draining", "x" * 123])
def test_a_close(reason: str) -> None:
    """Code and reason come back from the library's parser."""
    frame = _parse(frame_close(4000, reason))
    assert (frame.fin, frame.opcode) == (True, Opcode.CLOSE)
    assert bytes(frame.data) == (4000).to_bytes(2, "big") + reason.encode()


def test_a_long_reason_is_cut() -> None:
    """A control frame has 125 bytes at most."""
    assert len(frame_close(1002, "x" * 124)) == 127
