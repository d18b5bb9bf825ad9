"""Whether a page of a topic's journal can be read from a position: the rules of a node's replay.

Pure. Same order of tests and same answers as the node's (khala/core/classification.py) but for budgets:
whoever reads here reads page by page and never all at once.

    retained from 101 on     after_seq 100    a page that starts with 101
    (floor_seq = 101)        after_seq  99    stale: 100 is gone
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from khala_contracts import reason_codes
from khala_contracts.chain import CHAIN_BYTES, chain_start
from runtime.core.outcomes import Refused

if TYPE_CHECKING:
    from khala_contracts.reason_codes import ReasonCode
    from khala_contracts.topics import Lineage, TopicName

__all__ = ["PageCursor", "PageStart", "chain_at", "find_staleness"]

_FLOOR_REASONS: Final = {
    "retention_expired": reason_codes.STALE_RETENTION_EXPIRED,
    "compaction_boundary": reason_codes.STALE_COMPACTION_BOUNDARY,
}


@attrs.frozen
class PageCursor:
    """Where a reader stands: everything up to ``seq``; lineage and chain are compared if they are given."""

    seq: int
    lineage: Lineage | None = None
    chain: bytes | None = None


@attrs.frozen
class PageStart:
    """What one statement saw of a topic and of the row at the reader's position.

    Attributes:
        chain_before: Chain at that position; b"" if the journal no longer has it.
    """

    topic: TopicName
    lineage: Lineage
    head_seq: int
    floor_seq: int
    floor_chain: bytes
    floor_reason: str
    chain_before: bytes


def find_staleness(cursor: PageCursor, seen: PageStart) -> Refused | None:
    """Return why the cursor cannot be continued, with what was observed; None if it can."""
    if cursor.lineage not in (None, seen.lineage) or cursor.seq > seen.head_seq:
        return _stale(reason_codes.STALE_LINEAGE_MISMATCH, cursor, seen)
    known = chain_at(cursor.seq, seen)
    if cursor.chain is not None and known and known != cursor.chain:
        return _stale(reason_codes.STALE_LINEAGE_MISMATCH, cursor, seen)
    if cursor.seq + 1 < seen.floor_seq:
        reason = _FLOOR_REASONS.get(seen.floor_reason, reason_codes.STALE_RETENTION_EXPIRED)
        return _stale(reason, cursor, seen)
    return None


def chain_at(seq: int, seen: PageStart) -> bytes:
    """Return the chain at the start of a page, b"" if the journal no longer has it."""
    if seq == 0:
        return chain_start(seen.topic)
    if seq == seen.floor_seq - 1:
        return seen.floor_chain
    assert len(seen.chain_before) in (0, CHAIN_BYTES)
    return seen.chain_before


def _stale(reason: ReasonCode, cursor: PageCursor, seen: PageStart) -> Refused:
    observed = {
        "after_seq": str(cursor.seq),
        "lineage": seen.lineage,
        "head_seq": str(seen.head_seq),
        "floor_seq": str(seen.floor_seq),
    }
    return Refused(reason, observed)
