"""Streams in pieces of any size, at every limit, and what is wrong in them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khala_contracts import http_messages as m
from khala_contracts import reason_codes
from khala_contracts.codec import encode_varint
from khala_contracts.errors import WireError
from runtime.adapters.http.stream_framing import (
    NDJSON,
    PROTOBUF_STREAM,
    NdjsonFraming,
    ProtobufFraming,
    StreamFraming,
    framing_for,
)

MAX = 100
MEDIA_TYPES = [NDJSON, PROTOBUF_STREAM]


def framing(media_type: str) -> StreamFraming:
    """Return a framing with a small limit."""
    found = framing_for(media_type, event_bytes_max=MAX)
    assert found is not None
    return found


def event(text: str) -> m.EventInput:
    """Return one event."""
    return m.EventInput(kind="thought", payload_bytes=text.encode())


def test_media_types() -> None:
    """Everything else is no stream."""
    assert isinstance(framing(NDJSON), NdjsonFraming)
    assert isinstance(framing(PROTOBUF_STREAM), ProtobufFraming)
    assert framing_for("application/json", event_bytes_max=1) is None
    assert framing_for("", event_bytes_max=1) is None


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@given(
    texts=st.lists(st.text(st.characters(codec="ascii"), max_size=20), max_size=12),
    cuts=st.lists(st.integers(0, 400), max_size=20),
)
def test_any_cutting_gives_the_same_events(media_type: str, texts: list[str], cuts: list[int]) -> None:
    """However the body is cut into pieces, the same events come out, in order."""
    stream = framing(media_type)
    body = b"".join(stream.frame(event(text)) for text in texts)
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    found: list[m.EventInput] = []
    for start, end in itertools.pairwise(edges):
        stream.feed(body[start:end])
        found += stream.take(m.EventInput, is_last=False)
    found += stream.take(m.EventInput, is_last=True)
    assert found == [event(text) for text in texts]


def take_all(
    stream: StreamFraming, body: bytes, *, is_last: bool = True
) -> tuple[list[m.EventInput], WireError | None]:
    """Return the events before the first wrong one, and what is wrong."""
    stream.feed(body)
    found: list[m.EventInput] = []
    try:
        for item in stream.take(m.EventInput, is_last=is_last):
            found.append(item)  # noqa: PERF402  # what came before the error is the point
    except WireError as error:
        return found, error
    return found, None


def test_ndjson_lines() -> None:
    """Empty lines are skipped, CRLF is white space, the last line needs no line break."""
    line = b'{"kind":"thought"}'
    found, error = take_all(framing(NDJSON), b"\n" + line + b"\r\n\n  \n" + line)
    assert error is None
    assert [item.kind for item in found] == ["thought", "thought"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (b'{"kind":"thought","extra":1}', "extra"),
        (b'{"kind":null}', "kind"),
        (b'{"kind":"a","kind":"b"}', "kind"),
        (b"nonsense", ""),
        (b"[]", ""),
        (b'{"kind":"\\ud800"}', "kind"),
        (b'{"payload_bytes":"YQ==","data":{}}', "data"),
    ],
)
def test_ndjson_strictness(wrong: bytes, field: str) -> None:
    """PR-11: a line that is not exactly the mapping ends the stream; what came before it is whole."""
    found, error = take_all(framing(NDJSON), b'{"kind":"thought"}\n' + wrong + b'\n{"kind":"thought"}\n')
    assert len(found) == 1
    assert error is not None
    assert error.reason is reason_codes.MALFORMED_MESSAGE
    assert error.field == field


@pytest.mark.parametrize(("over", "is_refused"), [(0, False), (1, True)])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_ndjson_line_length(over: int, end: bytes, is_refused: bool) -> None:  # a column of the table
    """A line of exactly the limit passes; one byte more is refused, ended or not."""
    line = b'{"kind":"' + b"k" * (MAX + over - 11) + b'"}'
    assert len(line) == MAX + over
    found, error = take_all(framing(NDJSON), line + end)
    assert (error is not None) is is_refused
    assert len(found) == 1 - is_refused
    if error is not None:
        assert error.reason is reason_codes.PAYLOAD_TOO_LARGE


def test_ndjson_line_without_end_is_not_buffered_for_ever() -> None:
    """A line that grows past the limit is refused before it ends: memory is bounded."""
    stream = framing(NDJSON)
    assert take_all(stream, b"x" * MAX, is_last=False) == ([], None)
    _, error = take_all(stream, b"x", is_last=False)
    assert error is not None
    assert error.reason is reason_codes.PAYLOAD_TOO_LARGE


@pytest.mark.parametrize(("over", "is_refused"), [(0, False), (1, True)])
def test_protobuf_length(over: int, is_refused: bool) -> None:  # a column of the table
    """A message of exactly the limit passes; one byte more is refused by its length alone."""
    message = m.EventInput(kind="k" * (MAX + over - 2)).SerializeToString()
    assert len(message) == MAX + over
    whole = encode_varint(len(message)) + message
    found, error = take_all(framing(PROTOBUF_STREAM), whole)
    assert (error is not None) is is_refused
    assert len(found) == 1 - is_refused
    if error is not None:
        assert error.reason is reason_codes.PAYLOAD_TOO_LARGE
        only_length = take_all(framing(PROTOBUF_STREAM), encode_varint(len(message)), is_last=False)
        assert only_length[1] is not None


@pytest.mark.parametrize(
    "wrong",
    [b"\x02\xff\xff", b"\xff\xff\xff\xff\xff\x01", b"\x05\x0a", b"\x80"],
    ids=["not a message", "endless length", "cut short", "cut in the length"],
)
def test_protobuf_strictness(wrong: bytes) -> None:
    """Bytes that are no message, a length without an end, a stream that stops in the middle."""
    stream = framing(PROTOBUF_STREAM)
    found, error = take_all(stream, stream.frame(event("a")) + wrong)
    assert found == [event("a")]
    assert error is not None
    assert error.reason is reason_codes.MALFORMED_MESSAGE


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_answers_are_framed_like_the_body(media_type: str) -> None:
    """The answer can be read with the framing of its own media type."""
    stream = framing_for(media_type, event_bytes_max=10_000)
    assert stream is not None
    acks = [m.AppendStreamAck(failed=m.StreamError(code="c", event_index=index)) for index in range(3)]
    stream.feed(b"".join(stream.frame(ack) for ack in acks))
    assert list(stream.take(m.AppendStreamAck, is_last=True)) == acks
