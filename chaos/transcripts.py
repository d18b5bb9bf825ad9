"""The files that the checker judges, as values.

One JSON object a line, 64-bit integers as strings or numbers, further members ignored:

    journal, histories   {"topic", "seq", "kind", "schema_version", "payload_sha256", "chain"}
    acknowledgements     {"key", "event_id", "topic", "seq", "chain"}, perhaps "payload_sha256"

A line that is not exactly of this form is refused with its place and never guessed at: a file that was
cut in the middle of a line must not count as a shorter one.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["AckLine", "BrokenTranscriptError", "Line", "read_acks", "read_lines"]

SEQ_MAX: Final = (1 << 63) - 1
SCHEMA_VERSION_MAX: Final = (1 << 32) - 1
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)

T = TypeVar("T")


@attrs.frozen
class Line:
    """One position of one topic, as the journal or a client holds it."""

    topic: str
    seq: int
    kind: str
    schema_version: int
    payload_sha256: bytes
    chain: bytes


@attrs.frozen
class AckLine:
    """One append that a producer was told is durable.

    Attributes:
        payload_sha256: Of what was appended, as its producer knows it; None: not written down.
    """

    key: str
    event_id: str
    topic: str
    seq: int
    chain: bytes
    payload_sha256: bytes | None = None


class BrokenTranscriptError(Exception):
    """A file cannot be judged because it is not what it should be."""


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a journal or history file.

    Raises:
        BrokenTranscriptError: Names the file and the line.
    """
    return _read(path, _line)


def read_acks(path: Path) -> Iterator[AckLine]:
    """Yield the lines of an acknowledgement file. Raises as ``read_lines``."""
    return _read(path, _ack_line)


def _line(record: Mapping[str, object]) -> Line:
    return Line(
        topic=_text(record, "topic"),
        seq=_number(record, "seq", SEQ_MAX),
        kind=_text(record, "kind"),
        schema_version=_number(record, "schema_version", SCHEMA_VERSION_MAX),
        payload_sha256=_hash(record, "payload_sha256"),
        chain=_hash(record, "chain"),
    )


def _ack_line(record: Mapping[str, object]) -> AckLine:
    return AckLine(
        key=_text(record, "key"),
        event_id=_text(record, "event_id"),
        topic=_text(record, "topic"),
        seq=_number(record, "seq", SEQ_MAX),
        chain=_hash(record, "chain"),
        payload_sha256=_hash(record, "payload_sha256") if "payload_sha256" in record else None,
    )


def _read(path: Path, parse: Callable[[Mapping[str, object]], T]) -> Iterator[T]:
    with path.open("rb") as file:
        for number, data in enumerate(file, start=1):
            try:
                record = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
                if not isinstance(record, dict):
                    msg = f"{path}:{number}: not an object"
                    raise BrokenTranscriptError(msg)
                yield parse(record)
            except (ValueError, RecursionError) as exc:
                # json's own texts say a column, the others name a member.
                msg = f"{path}:{number}: {exc}"
                raise BrokenTranscriptError(msg) from exc


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) != len(pairs):
        msg = "a member twice"
        raise ValueError(msg)
    return record


def _text(record: Mapping[str, object], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value:
        msg = f"{name} is not a text"
        raise ValueError(msg)
    value.encode()  # half a surrogate pair is no text
    return value


def _number(record: Mapping[str, object], name: str, most: int) -> int:
    value = record.get(name)
    digits = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(digits, str) and _NUMBER.fullmatch(digits) and 1 <= int(digits) <= most:
        return int(digits)
    msg = f"{name} is not a number in 1..{most}"
    raise ValueError(msg)


def _hash(record: Mapping[str, object], name: str) -> bytes:
    value = record.get(name)
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        msg = f"{name} is not a SHA-256 in hexadecimal"
        raise ValueError(msg)
    return bytes.fromhex(value)
