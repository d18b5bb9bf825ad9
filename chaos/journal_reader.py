"""Reads what the authority has committed as lines for the checker, past every service.

Rows come as text of the form ``entry-in-hex TAB chain-in-hex`` (``JOURNAL_QUERY``), so that any
program that speaks to the database can fetch them. Of an entry only its bytes are believed: topic,
seq, kind and payload are decoded from what nodes would send.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from chaos.checker import Journal, Line
from khala_contracts.codec import decode_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# To be completed with a condition on the topic, and an order.
JOURNAL_QUERY: Final = "SELECT encode(entry, 'hex'), encode(chain, 'hex') FROM runtime.journal"


def journal_query(topics: Iterable[str]) -> str:
    """Return the query for the rows of some topics, ascending by topic and seq."""
    names = ", ".join("'{}'".format(topic.replace("'", "''")) for topic in topics)
    return f"{JOURNAL_QUERY} WHERE topic IN ({names}) ORDER BY topic, seq"


def journal_of(rows: Iterable[tuple[str, str]]) -> Journal:
    """Return the journal that these rows are."""
    return Journal.of(_lines(rows))


def _lines(rows: Iterable[tuple[str, str]]) -> Iterator[Line]:
    for entry, chain in rows:
        for frame in decode_entries(bytes.fromhex(entry)):
            yield Line(
                frame.topic,
                frame.seq,
                frame.kind,
                frame.schema_version,
                sha256(frame.payload).digest(),
                bytes.fromhex(chain),
            )
