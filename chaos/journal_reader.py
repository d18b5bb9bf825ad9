"""Reads what the authority has committed as lines for the checker, past every service.

Rows are text, an entry and a chain in hexadecimal, so that any program that speaks to the database
can fetch them. Of an entry only its bytes are believed: topic, seq, kind and payload are decoded from
what nodes would send. Of an erased frame the line names what stood there, as it entered the chain.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from chaos.checker import Journal
from chaos.transcripts import Line
from khala_contracts.codec import decode_entries
from khala_contracts.erasure import decode_erased_untrusted
from khala_contracts.frames import ERASED_KIND

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from khala_contracts.frames import Frame


def journal_query(topics: Iterable[str]) -> str:
    """Return the query for the rows of some topics, ascending by topic and seq."""
    names = ", ".join("'{}'".format(topic.replace("'", "''")) for topic in topics)
    return (
        "SELECT encode(entry, 'hex'), encode(chain, 'hex') FROM runtime.journal "  # noqa: S608 - quoted above
        f"WHERE topic IN ({names}) ORDER BY topic, seq"
    )


def journal_of(rows: Iterable[tuple[str, str]]) -> Journal:
    """Return the journal that these rows are.

    Raises:
        ValueError, WireError: A row is not an entry and a chain.
    """
    return Journal.of(_lines(rows))


def line_of(frame: Frame, chain: bytes) -> Line:
    """Return the line of one frame."""
    kind, schema_version = frame.kind, frame.schema_version
    payload_sha256 = sha256(frame.payload).digest()
    if kind == ERASED_KIND:
        erased = decode_erased_untrusted(frame.payload)
        kind, schema_version = erased.original_kind, erased.original_schema_version
        payload_sha256 = erased.payload_sha256
    return Line(frame.topic, frame.seq, kind, schema_version, payload_sha256, chain)


def _lines(rows: Iterable[tuple[str, str]]) -> Iterator[Line]:
    for entry, chain in rows:
        for frame in decode_entries(bytes.fromhex(entry)):
            yield line_of(frame, bytes.fromhex(chain))
