"""Rows of the journal as lines of the checker."""

from __future__ import annotations

from hashlib import sha256

import attrs
import pytest

from chaos.checker import check_journal
from chaos.journal_reader import journal_of, journal_query
from khala_contracts.chain import chain_after, chain_start
from khala_contracts.codec import WireError, encode_entry
from khala_contracts.erasure import Erased, encode_erased
from khala_contracts.frames import ERASED_KIND, Frame
from khala_contracts.topics import Seq, parse_topic

TOPIC = parse_topic("run:run_00000000000000000000000001:events").name
FRAMES = [Frame(TOPIC, Seq(seq), "output", b"payload %d" % seq, 1) for seq in (1, 2, 3)]


def rows(frames: list[Frame]) -> list[tuple[str, str]]:
    """Return what the query gives for these frames."""
    chain, found = chain_start(TOPIC), []
    for frame in frames:
        chain = chain_after(chain, frame)
        found.append((encode_entry(frame).hex(), chain.hex()))
    return found


def test_rows_become_lines_whose_chain_follows() -> None:
    """Topic, seq, kind, version and hash come out of the entry."""
    journal = journal_of(rows(FRAMES))
    assert check_journal(journal) == []
    line = journal.topics[TOPIC][1]
    assert (line.seq, line.kind, line.schema_version) == (2, "output", 1)
    assert line.payload_sha256 == sha256(b"payload 2").digest()


def test_an_erased_row_names_what_stood_there() -> None:
    """So its line equals that of a client which held it before."""
    before = FRAMES[1]
    payload = encode_erased(Erased(before.kind, sha256(before.payload).digest(), before.schema_version))
    erased = attrs.evolve(before, kind=ERASED_KIND, payload=payload)
    journal = journal_of(rows([FRAMES[0], erased, FRAMES[2]]))
    assert journal == journal_of(rows(FRAMES))
    assert check_journal(journal) == []


@pytest.mark.parametrize("row", [("zz", "00"), ("ff", "00" * 32)])
def test_a_row_that_is_no_entry_is_refused(row: tuple[str, str]) -> None:
    """The journal is believed as bytes only."""
    with pytest.raises((ValueError, WireError)):
        journal_of([row])


def test_the_query_quotes_topics() -> None:
    """A name cannot end its literal."""
    query = journal_query(["run:a", "x' OR '1'='1"])
    assert query.endswith("WHERE topic IN ('run:a', 'x'' OR ''1''=''1') ORDER BY topic, seq")
