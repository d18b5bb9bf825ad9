"""The files that the checker judges, as values.

One JSON object a line, 64-bit integers as strings or numbers, further members ignored:

    journal, histories   {"topic", "seq", "kind", "schema_version", "payload_sha256", "chain"}
    journal, histories   perhaps also "at_s", Unix time at which it arrived
    acknowledgements     {"key", "event_id", "topic", "seq", "chain"}, perhaps "payload_sha256"
    rights               {"client", "topic"}, perhaps "from_s", "until_s"
    closes               {"client", "connection", "code", "at_s"}, perhaps "error", "go_away",
                         "by_client", "resumed"
    samples              {"source", "name", "value", "at_s"}

A line that is not exactly of this form is refused with its place and never guessed at: a file that was
cut in the middle of a line must not count as a shorter one.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Final, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = [
    "AckLine",
    "BrokenTranscriptError",
    "CloseLine",
    "Line",
    "Right",
    "SampleLine",
    "read_acks",
    "read_closes",
    "read_lines",
    "read_rights",
    "read_samples",
]

SEQ_MAX: Final = (1 << 63) - 1
SCHEMA_VERSION_MAX: Final = (1 << 32) - 1
CLOSE_CODE_MAX: Final = 4999
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)

T = TypeVar("T")


@attrs.frozen
class Line:
    """One position of one topic, as the journal or a client holds it.

    Attributes:
        at_s: Unix time at which the client got it; None: not written down. No part of what it is.
    """

    topic: str
    seq: int
    kind: str
    schema_version: int
    payload_sha256: bytes
    chain: bytes
    at_s: float | None = attrs.field(default=None, eq=False)


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


@attrs.frozen
class Right:
    """A topic that a client might read, and when; Unix times.

    Attributes:
        until_s: When it was taken away; None: never.
    """

    client: str
    topic: str
    from_s: float = 0.0
    until_s: float | None = None


@attrs.frozen
class CloseLine:
    """The end of one connection, as its client saw it.

    Attributes:
        code: Of the close frame; 1006 if none came.
        at_s: Unix time.
        error: Code of the last error without a topic before it; None if there was none.
        has_go_away: A go_away came before it.
        is_by_client: The client ended it.
        is_resumed: The client came back by itself.
    """

    client: str
    connection: str
    code: int
    at_s: float
    error: str | None = None
    has_go_away: bool = False
    is_by_client: bool = False
    is_resumed: bool = False


@attrs.frozen
class SampleLine:
    """What something that is bounded was at a time, in the unit of its name."""

    source: str
    name: str
    value: float
    at_s: float


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


def read_rights(path: Path) -> Iterator[Right]:
    """Yield the lines of a file of rights. Raises as ``read_lines``."""
    return _read(path, _right)


def read_closes(path: Path) -> Iterator[CloseLine]:
    """Yield the lines of a file of closes. Raises as ``read_lines``."""
    return _read(path, _close_line)


def read_samples(path: Path) -> Iterator[SampleLine]:
    """Yield the lines of a file of samples. Raises as ``read_lines``."""
    return _read(path, _sample_line)


def _line(record: Mapping[str, object]) -> Line:
    return Line(
        topic=_text(record, "topic"),
        seq=_number(record, "seq", SEQ_MAX),
        kind=_text(record, "kind"),
        schema_version=_number(record, "schema_version", SCHEMA_VERSION_MAX),
        payload_sha256=_hash(record, "payload_sha256"),
        chain=_hash(record, "chain"),
        at_s=_figure(record, "at_s") if "at_s" in record else None,
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


def _right(record: Mapping[str, object]) -> Right:
    return Right(
        client=_text(record, "client"),
        topic=_text(record, "topic"),
        from_s=_figure(record, "from_s") if "from_s" in record else 0.0,
        until_s=_figure(record, "until_s") if record.get("until_s") is not None else None,
    )


def _close_line(record: Mapping[str, object]) -> CloseLine:
    return CloseLine(
        client=_text(record, "client"),
        connection=_text(record, "connection"),
        code=_number(record, "code", CLOSE_CODE_MAX),
        at_s=_figure(record, "at_s"),
        error=_text(record, "error") if record.get("error") is not None else None,
        has_go_away=_flag(record, "go_away"),
        is_by_client=_flag(record, "by_client"),
        is_resumed=_flag(record, "resumed"),
    )


def _sample_line(record: Mapping[str, object]) -> SampleLine:
    return SampleLine(
        source=_text(record, "source"),
        name=_text(record, "name"),
        value=_figure(record, "value"),
        at_s=_figure(record, "at_s"),
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


def _figure(record: Mapping[str, object], name: str) -> float:
    value = record.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    msg = f"{name} is not a number"
    raise ValueError(msg)


def _flag(record: Mapping[str, object], name: str) -> bool:
    value = record.get(name, False)
    if isinstance(value, bool):
        return value
    msg = f"{name} is neither true nor false"
    raise ValueError(msg)


def _hash(record: Mapping[str, object], name: str) -> bytes:
    value = record.get(name)
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        msg = f"{name} is not a SHA-256 in hexadecimal"
        raise ValueError(msg)
    return bytes.fromhex(value)
