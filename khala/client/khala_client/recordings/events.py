"""Building blocks of every recording format: an event with its pause, cut to what a frame may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from khala_client.errors import KhalaError, RecordingRefused
from khala_client.outgoing import OutgoingEvent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["TEXT_PART_MAX_BYTES", "RecordedEvent", "checked", "split_text", "text_parts"]

# A payload holds 256 KiB; the rest is for the fields beside the text.
TEXT_PART_MAX_BYTES: Final = 192 * 1024
_SPLITTABLE: Final = frozenset({"thought", "observation", "output", "message.done"})


@attrs.frozen
class RecordedEvent:
    """One event of a recording; ``gap_s`` is the pause before it when it happened."""

    kind: str
    data: Mapping[str, object]
    gap_s: float = 0.0


def split_text(text: str, max_bytes: int) -> Iterator[str]:
    """Return ``text`` in consecutive parts of at most ``max_bytes`` UTF-8 bytes, one at least."""
    encoded = text.encode("utf-8", "surrogatepass")
    start = 0
    while True:
        end = min(start + max_bytes, len(encoded))
        # Step back over continuation bytes: a character is never cut.
        while end < len(encoded) and encoded[end] & 0xC0 == 0x80:
            end -= 1
        yield encoded[start:end].decode("utf-8", "surrogatepass")
        start = end
        if start >= len(encoded):
            return


def text_parts(event: RecordedEvent) -> Iterator[RecordedEvent]:
    """Return ``event``, or several of its kind if its text is larger than one frame holds.

    The texts of the parts, joined, are the text. What is said beside it (state, duration) is said
    once, with the last part; parts of a message are numbered.
    """
    text = event.data.get("text")
    if event.kind not in _SPLITTABLE or not isinstance(text, str) or len(text) <= TEXT_PART_MAX_BYTES // 4:
        yield event
        return
    parts = list(split_text(text, TEXT_PART_MAX_BYTES))
    for number, part in enumerate(parts, start=1):
        is_last = number == len(parts)
        data = (
            dict(event.data)
            if is_last
            else {name: value for name, value in event.data.items() if name not in {"state", "duration_s"}}
        )
        data["text"] = part
        if number > 1 and "message_id" in data:
            data["message_id"] = f"{data['message_id']}#{number}"
        yield RecordedEvent(event.kind, data, event.gap_s if number == 1 else 0.0)


def checked(event: RecordedEvent, *, line: int = 0, where: str = "") -> Iterator[RecordedEvent]:
    """Return the parts of ``event`` after checking that each can be appended as it is.

    Raises:
        RecordingRefused: with the reason, and the place in the file that was given.
    """
    for part in text_parts(event):
        try:
            OutgoingEvent.of(part.kind, part.data)
        except KhalaError as error:
            field = error.details.get("field", "")
            problem = error.details.get("problem", error.message)
            reason = f"{part.kind} cannot be appended: {f'{field}: ' if field else ''}{problem}"
            raise RecordingRefused(reason, line=line, where=where) from error
        yield part
