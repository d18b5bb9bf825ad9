"""The output of a process as events, while it comes. Pure; one OutputLines per pipe.

A line of standard output that is a JSON object of a known program becomes that program's events;
everything else is ``output``. Consecutive plain lines that arrive together make one event, since a
run takes 240 events a second and a build prints more lines. Bytes that are not UTF-8 become U+FFFD
and are counted, never lost in number.

Invariant: the texts of the output events, joined, are the output without the typed lines.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Literal

from khala_client.errors import KhalaError
from khala_client.outgoing import OutgoingEvent
from khala_client.recordings.events import RecordedEvent, text_parts

if TYPE_CHECKING:
    from khala_client.recordings.typed_lines import TypedLines

__all__ = ["LINE_MAX_BYTES", "OutputLines"]

# A longer line is given in parts; typed lines may be longer, since half of one says nothing.
LINE_MAX_BYTES: Final = 64 * 1024
TYPED_LINE_MAX_BYTES: Final = 1024 * 1024
_EVENT_TEXT_MAX_BYTES: Final = 32 * 1024
_STREAMS: Final = {"stdout": "OUTPUT_STREAM_STDOUT", "stderr": "OUTPUT_STREAM_STDERR"}


class OutputLines:
    """Cuts one pipe into events."""

    def __init__(self, stream: Literal["stdout", "stderr"], *, typed: TypedLines | None = None) -> None:
        """Read ``stream``; with ``typed``, JSON lines of known programs become their events."""
        self._stream = _STREAMS[stream]
        self._typed = typed
        self._partial = bytearray()
        self._plain = bytearray()

    def feed(self, data: bytes) -> tuple[RecordedEvent, ...]:
        """Take what was read; return the events that are complete."""
        events: list[RecordedEvent] = []
        self._partial += data
        while True:
            end = self._partial.find(b"\n")
            if end < 0:
                break
            self._take_line(bytes(self._partial[: end + 1]), events)
            del self._partial[: end + 1]
        limit = TYPED_LINE_MAX_BYTES if self._may_be_typed() else LINE_MAX_BYTES
        if len(self._partial) > limit:
            self._take_plain(self._cut_partial(), events)
        self._end_plain(events)
        return tuple(events)

    def flush(self) -> tuple[RecordedEvent, ...]:
        """Give the unfinished line, such as a prompt, unless it may become a typed one."""
        return () if self._may_be_typed() else self._give_partial(self._cut_partial())

    def end(self) -> tuple[RecordedEvent, ...]:
        """Give what is left: the pipe was closed."""
        data = bytes(self._partial)
        self._partial.clear()
        events: list[RecordedEvent] = []
        if data:
            self._take_line(data, events)
        self._end_plain(events)
        return tuple(events)

    def _give_partial(self, data: bytes) -> tuple[RecordedEvent, ...]:
        events: list[RecordedEvent] = []
        self._take_plain(data, events)
        self._end_plain(events)
        return tuple(events)

    def _may_be_typed(self) -> bool:
        return (
            self._typed is not None
            and self._partial[:1] == b"{"
            and len(self._partial) <= TYPED_LINE_MAX_BYTES
        )

    def _cut_partial(self) -> bytes:
        """Remove and return the unfinished line, but for a character that is not complete."""
        end = len(self._partial)
        for back in range(1, min(4, end + 1)):
            byte = self._partial[end - back]
            if byte & 0xC0 == 0xC0:
                needed = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2
                end -= back if back < needed else 0
                break
            if byte < 0x80:
                break
        data = bytes(self._partial[:end])
        del self._partial[:end]
        return data

    def _take_line(self, line: bytes, events: list[RecordedEvent]) -> None:
        typed = self._typed_events(line) if self._typed is not None and line[:1] == b"{" else None
        if typed is None:
            self._take_plain(line, events)
            return
        self._end_plain(events)
        events.extend(typed)

    def _typed_events(self, line: bytes) -> list[RecordedEvent] | None:
        assert self._typed is not None
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return None
        pairs = self._typed.events_of(value) if isinstance(value, dict) else None
        if pairs is None:
            return None
        events = [part for kind, data in pairs for part in text_parts(RecordedEvent(kind, data))]
        try:
            for event in events:
                OutgoingEvent.of(event.kind, event.data)
        except KhalaError:
            return None  # looks like one and is none: it is output like any other
        return events

    def _take_plain(self, data: bytes, events: list[RecordedEvent]) -> None:
        if self._plain and len(self._plain) + len(data) > _EVENT_TEXT_MAX_BYTES:
            self._end_plain(events)
        self._plain += data

    def _end_plain(self, events: list[RecordedEvent]) -> None:
        if not self._plain:
            return
        text, replaced = _decode_counted(bytes(self._plain))
        self._plain.clear()
        data: dict[str, object] = {"stream": self._stream, "text": text}
        if replaced:
            data["replaced_bytes"] = replaced
        events.extend(text_parts(RecordedEvent("output", data)))


def _decode_counted(data: bytes) -> tuple[str, int]:
    """Return the text, and how many bytes of it were replaced by U+FFFD."""
    parts: list[str] = []
    replaced = 0
    while True:
        try:
            parts.append(data.decode())
        except UnicodeDecodeError as error:
            parts += (data[: error.start].decode(), "\ufffd")
            replaced += error.end - error.start
            data = data[error.end :]
        else:
            return "".join(parts), replaced
