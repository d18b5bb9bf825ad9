"""What became of a request, and the bytes in which an answer is remembered under its key.

Pure. The stored form of an append is our own (ids and chains without the topic and lineage that every
acknowledgement repeats): a third of the size of the response that is made from it.

Layout of a stored answer: one byte for its kind, then
    0x01 appended    per part: u16 length, topic; u16 length, lineage; u64 first_seq; u32 count;
                     u32 length, event ids joined by line breaks; count x 32 bytes of chain
    0x02 answered    the encoded response message
The kind byte is the version: a new layout takes a new one, old rows stay readable until they expire.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import attrs

from khala_contracts.chain import CHAIN_BYTES
from khala_contracts.topics import Lineage, TopicName

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from khala_contracts.reason_codes import ReasonCode

__all__ = [
    "Answer",
    "Answered",
    "Appended",
    "AppendedPart",
    "Outcome",
    "Refused",
    "Skipped",
    "decode_answer",
    "encode_answer",
]

_APPENDED: Final = 1
_ANSWERED: Final = 2
_SHORT: Final = struct.Struct(">H")
_POSITION: Final = struct.Struct(">QII")


@attrs.frozen
class AppendedPart:
    """Events that were committed to one topic at consecutive positions.

    Attributes:
        chains: The 32-byte chain of each event, joined.
    """

    topic: TopicName
    lineage: Lineage
    first_seq: int
    event_ids: tuple[str, ...]
    chains: bytes = attrs.field(repr=False)

    @property
    def last_seq(self) -> int:
        """Position of the last event."""
        return self.first_seq + len(self.event_ids) - 1

    def acks(self) -> Iterator[tuple[str, int, bytes]]:
        """Yield (event id, seq, chain) of each event."""
        for index, event_id in enumerate(self.event_ids):
            start = index * CHAIN_BYTES
            yield event_id, self.first_seq + index, self.chains[start : start + CHAIN_BYTES]


@attrs.frozen
class Appended:
    """An append is committed; also the answer to its retries."""

    parts: tuple[AppendedPart, ...]


@attrs.frozen
class Answered:
    """A command with a response of its own is committed: the encoded message."""

    message: bytes = attrs.field(repr=False)


@attrs.frozen
class Refused:
    """Nothing was written; the same request may be sent again with the same key."""

    reason: ReasonCode
    details: Mapping[str, str]
    retry_after_ms: int = 0


@attrs.frozen
class Skipped:
    """Not decided: an earlier request of the same submission was refused."""


Answer = Appended | Answered
Outcome = Appended | Answered | Refused | Skipped


def encode_answer(answer: Answer) -> bytes:
    """Return the bytes under which an answer is remembered."""
    if isinstance(answer, Answered):
        return bytes((_ANSWERED,)) + answer.message
    pieces = [bytes((_APPENDED,))]
    for part in answer.parts:
        ids = "\n".join(part.event_ids).encode()
        for text in (part.topic, part.lineage):
            pieces += (_SHORT.pack(len(text)), text.encode())
        pieces += (_POSITION.pack(part.first_seq, len(part.event_ids), len(ids)), ids, part.chains)
    return b"".join(pieces)


def decode_answer(data: bytes) -> Answer:
    """Return a remembered answer.

    Raises:
        ValueError: Not written by ``encode_answer``: a newer runtime's row, or a damaged one.
    """
    if data[:1] == bytes((_ANSWERED,)):
        return Answered(data[1:])
    if data[:1] != bytes((_APPENDED,)):
        message = "an answer of unknown layout"
        raise ValueError(message)
    try:
        return Appended(tuple(_read_parts(data)))
    except (struct.error, UnicodeDecodeError):
        message = "a damaged answer"
        raise ValueError(message) from None


def _read_parts(data: bytes) -> Iterator[AppendedPart]:
    at = 1
    while at < len(data):
        topic, at = _read_text(data, at)
        lineage, at = _read_text(data, at)
        first_seq, count, ids_length = _POSITION.unpack_from(data, at)
        at += _POSITION.size
        ids = tuple(data[at : at + ids_length].decode().split("\n"))
        at += ids_length
        chains = data[at : at + count * CHAIN_BYTES]
        at += count * CHAIN_BYTES
        if len(ids) != count or len(chains) != count * CHAIN_BYTES:
            message = "a truncated answer"
            raise ValueError(message)
        yield AppendedPart(TopicName(topic), Lineage(lineage), first_seq, ids, chains)


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = _SHORT.unpack_from(data, at)
    start = at + _SHORT.size
    return data[start : start + length].decode(), start + length
