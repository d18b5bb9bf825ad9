"""Takes a streamed body apart, and puts the answer together: NDJSON or length-delimited protobuf.

Sans-IO: bytes in, messages out. Memory is bounded by one event of ``event_bytes_max`` and the piece
that was fed.

    application/x-ndjson              one JSON object a line; empty lines are skipped
    application/x-protobuf-stream     varint(length) message, repeated
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from khala_contracts import reason_codes, strict_json
from khala_contracts.codec import encode_varint
from khala_contracts.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NDJSON", "PROTOBUF_STREAM", "NdjsonFraming", "ProtobufFraming", "StreamFraming", "framing_for"]

NDJSON: Final = "application/x-ndjson"
PROTOBUF_STREAM: Final = "application/x-protobuf-stream"
# A varint of 5 bytes reaches 32 GiB; nothing that long is a length of ours.
_LENGTH_BYTES_MAX: Final = 5

M = TypeVar("M", bound=Message)


class StreamFraming(Protocol):
    """One direction-independent framing."""

    media_type: str

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""

    def take(self, message_cls: type[M], *, is_last: bool) -> Iterator[M]:
        """Yield the messages that are complete.

        Args:
            message_cls: What the stream consists of.
            is_last: The body has ended: what is left must be complete.

        Raises:
            WireError: malformed_message, payload_too_large. The iterator has yielded what came
                before the bad message; the framing is of no use afterwards.
        """

    def frame(self, message: Message) -> bytes:
        """Return one message of the answer."""


class NdjsonFraming:
    """One JSON object a line."""

    media_type = NDJSON

    def __init__(self, event_bytes_max: int) -> None:
        self._event_bytes_max = event_bytes_max
        self._buffer = bytearray()
        # Invariant: no line break in _buffer[:_searched]
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        self._buffer += data

    def take(self, message_cls: type[M], *, is_last: bool) -> Iterator[M]:
        """Yield the messages that are complete; see StreamFraming."""
        start = 0
        try:
            while (end := self._buffer.find(b"\n", max(start, self._searched))) >= 0:
                line = bytes(self._buffer[start:end])
                start = end + 1
                yield from self._parse(line, message_cls)
            if is_last:
                line, start = bytes(self._buffer[start:]), len(self._buffer)
                yield from self._parse(line, message_cls)
            elif len(self._buffer) - start > self._event_bytes_max:
                raise _too_large(self._event_bytes_max)
        finally:
            del self._buffer[:start]
            self._searched = len(self._buffer)

    def frame(self, message: Message) -> bytes:
        """Return one line of the answer."""
        return strict_json.print_json(message).encode() + b"\n"

    def _parse(self, line: bytes, message_cls: type[M]) -> Iterator[M]:
        if len(line) > self._event_bytes_max:
            raise _too_large(self._event_bytes_max)
        if line.strip():
            yield strict_json.parse_strict(line, message_cls)


class ProtobufFraming:
    """varint(length) message, repeated."""

    media_type = PROTOBUF_STREAM

    def __init__(self, event_bytes_max: int) -> None:
        self._event_bytes_max = event_bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        self._buffer += data

    def take(self, message_cls: type[M], *, is_last: bool) -> Iterator[M]:
        """Yield the messages that are complete; see StreamFraming."""
        start = 0
        try:
            while (body := self._length_at(start)) is not None:
                begin, length = body
                if len(self._buffer) < begin + length:
                    break
                message = bytes(self._buffer[begin : begin + length])
                start = begin + length
                yield _parse_protobuf(message, message_cls)
            if is_last and start < len(self._buffer):
                raise WireError(reason_codes.MALFORMED_MESSAGE, "a stream that ends with a whole message")
        finally:
            del self._buffer[:start]

    def frame(self, message: Message) -> bytes:
        """Return one length-delimited message of the answer."""
        data = message.SerializeToString(deterministic=True)
        return encode_varint(len(data)) + data

    def _length_at(self, start: int) -> tuple[int, int] | None:
        """Return where the message begins and its length; None if the length is not there yet."""
        length = 0
        for index in range(_LENGTH_BYTES_MAX):
            if start + index >= len(self._buffer):
                return None
            byte = self._buffer[start + index]
            length |= (byte & 127) << (7 * index)
            if byte < 128:
                if length > self._event_bytes_max:
                    raise _too_large(self._event_bytes_max)
                return start + index + 1, length
        raise WireError(reason_codes.MALFORMED_MESSAGE, "the length of a message as a varint")


def framing_for(media_type: str, *, event_bytes_max: int) -> StreamFraming | None:
    """Return the framing of a Content-Type; None if it is no stream."""
    if media_type == NDJSON:
        return NdjsonFraming(event_bytes_max)
    if media_type == PROTOBUF_STREAM:
        return ProtobufFraming(event_bytes_max)
    return None


def _parse_protobuf(data: bytes, message_cls: type[M]) -> M:
    try:
        return message_cls.FromString(data)
    except DecodeError:
        raise WireError(reason_codes.MALFORMED_MESSAGE, f"a {message_cls.DESCRIPTOR.name}") from None


def _too_large(limit: int) -> WireError:
    return WireError(
        reason_codes.PAYLOAD_TOO_LARGE, f"at most {limit} bytes", limit=("stream_event_bytes_max", limit)
    )
