"""From where a topic's journal can be read, on values."""

from __future__ import annotations

import attrs
import pytest

from khala_contracts import reason_codes
from khala_contracts.chain import chain_start
from khala_contracts.topics import Lineage
from runtime.core.message_pages import PageCursor, PageStart, chain_at, find_staleness
from tests.actors.runtime.rig import LINEAGE, topic_of

TOPIC = topic_of(1)
PAGE = PageStart(TOPIC, Lineage(LINEAGE), 200, 101, b"f" * 32, "retention_expired", b"c" * 32)


@pytest.mark.parametrize(
    ("seq", "is_stale"), [(99, True), (100, False), (101, False), (200, False), (201, True)]
)
def test_floor_and_head(seq: int, is_stale: bool) -> None:
    """Retained from 101 on: 100 continues, 99 does not; the head continues, one beyond it does not."""
    assert (find_staleness(PageCursor(seq), PAGE) is not None) == is_stale


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("retention_expired", reason_codes.STALE_RETENTION_EXPIRED),
        ("compaction_boundary", reason_codes.STALE_COMPACTION_BOUNDARY),
    ],
)
def test_the_reason_is_the_floor_s(reason: str, code: object) -> None:
    """Below the floor: why the floor is where it is, with what was observed."""
    page = attrs.evolve(PAGE, floor_reason=reason)
    refused = find_staleness(PageCursor(99), page)
    assert refused is not None
    assert refused.reason == code
    assert refused.details == {
        "after_seq": "99", "lineage": LINEAGE, "head_seq": "200", "floor_seq": "101",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cursor", "is_stale"),
    [
        (PageCursor(150, Lineage(LINEAGE)), False),
        (PageCursor(150, Lineage("lin_other")), True),
        (PageCursor(150, None, b"c" * 32), False),
        (PageCursor(150, None, b"x" * 32), True),
        (PageCursor(100, None, b"f" * 32), False),
        (PageCursor(100, None, b"x" * 32), True),
        (PageCursor(99, Lineage("lin_other")), True),
    ],
)
def test_another_history_is_told_from_an_old_position(cursor: PageCursor, is_stale: bool) -> None:
    """Lineage and chain, where they are given; lineage is judged before the floor."""
    refused = find_staleness(cursor, PAGE)
    assert (refused is not None) == is_stale
    if refused is not None:
        assert refused.reason is reason_codes.STALE_LINEAGE_MISMATCH


def test_the_chain_at_the_start() -> None:
    """From the beginning the topic's own, at the floor the stored one, else the journal's row."""
    assert chain_at(0, PAGE) == chain_start(TOPIC)
    assert chain_at(100, PAGE) == b"f" * 32
    assert chain_at(150, PAGE) == b"c" * 32
