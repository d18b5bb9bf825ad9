"""What a driver message means for a topic: use it, drop it, hold it, or read the journal.

A copy is used only if it continues our head, its ``chain_before`` is ours and its MAC held
(the caller has checked the MAC). Everything else is at most a hint that the topic has moved.

    our head 10          record 11..12, chain_before == ours      Apply
                         record  9..10                            Duplicate
                         record 10..12                            Hint (overlap: read 11..12)
                         record 14..15                            Hold until 11..13 are here
                         record 11..12, another chain_before      Conflict: the journal decides
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from khala_contracts.fanout_records import FanoutRecord


class RecordDecision(Enum):
    """What to do with one authentic record."""

    APPLY = "apply"
    DUPLICATE = "duplicate"
    HOLD = "hold"
    HINT = "hint"
    OTHER_LINEAGE = "other_lineage"
    CONFLICT = "conflict"


def decide_record(record: FanoutRecord, *, lineage: str, head_seq: int, head_chain: bytes) -> RecordDecision:
    """Judge an authentic record against the node's own head."""
    if record.lineage != lineage:
        return RecordDecision.OTHER_LINEAGE
    if record.last_seq <= head_seq:
        return RecordDecision.DUPLICATE
    if not record.entries or record.first_seq <= head_seq:
        return RecordDecision.HINT
    if record.first_seq > head_seq + 1:
        return RecordDecision.HOLD
    if record.chain_before != head_chain:
        return RecordDecision.CONFLICT
    return RecordDecision.APPLY


@attrs.define(eq=False)
class HeldRecords:
    """Records above a gap, until the gap is closed.

    Invariant: ``len(records) <= max_records`` and ``size_bytes <= max_bytes`` (INV-7). A record
    that does not fit is dropped; the journal read that the gap starts brings its frames.
    """

    max_records: int
    max_bytes: int
    size_bytes: int = attrs.field(default=0, init=False)
    _by_first_seq: dict[int, FanoutRecord] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        """Number of records held."""
        return len(self._by_first_seq)

    def hold(self, record: FanoutRecord) -> bool:
        """Keep a record; False if it was dropped for lack of room."""
        size = sum(map(len, record.entries))
        if record.first_seq in self._by_first_seq:
            return True
        if len(self._by_first_seq) >= self.max_records or self.size_bytes + size > self.max_bytes:
            return False
        self._by_first_seq[record.first_seq] = record
        self.size_bytes += size
        return True

    def take_from(self, head_seq: int) -> FanoutRecord | None:
        """Take the record that starts right after the head; forget those at or below it."""
        for first_seq in [s for s in self._by_first_seq if s <= head_seq]:
            self._forget(first_seq)
        if head_seq + 1 in self._by_first_seq:
            return self._forget(head_seq + 1)
        return None

    def clear(self) -> None:
        """Forget all."""
        self._by_first_seq.clear()
        self.size_bytes = 0

    def _forget(self, first_seq: int) -> FanoutRecord:
        record = self._by_first_seq.pop(first_seq)
        self.size_bytes -= sum(map(len, record.entries))
        return record
