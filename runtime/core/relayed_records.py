"""What the relay has handed to the driver lately: answers when the nodes were told of an event.

Invariant: ``len(relayed) <= capacity`` (INV-7); the oldest is forgotten first. Bounded memory of one
process: what was published before it started, or long ago, is not here.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from khala_contracts.fanout_records import FanoutRecord
    from khala_contracts.topics import TopicName

__all__ = ["RELAYED_MAX", "RelayedRecord", "RelayedRecords"]

# About 0.2 KiB each. Smaller: an operator who looks a minute later finds nothing on a busy system.
RELAYED_MAX: Final = 8_192


@attrs.frozen
class RelayedRecord:
    """One record that the driver took.

    Attributes:
        published_at_us: Unix microseconds at which the driver had taken it.
        driver: Name of the driver.
        is_copy: Whether the frames travelled with it; else it was a pure hint.
    """

    topic: TopicName
    first_seq: int
    last_seq: int
    is_copy: bool
    driver: str
    published_at_us: int


class RelayedRecords:
    """The last records, in the order in which they were published."""

    def __init__(self, capacity: int = RELAYED_MAX) -> None:
        self._kept: deque[RelayedRecord] = deque(maxlen=capacity)

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._kept)

    def add(self, record: FanoutRecord, *, driver: str, published_at_us: int) -> None:
        """Remember that the driver took a record."""
        is_copy = bool(record.entries)
        self._kept.append(
            RelayedRecord(record.topic, record.first_seq, record.last_seq, is_copy, driver, published_at_us)
        )

    def find(self, topic: TopicName, seq: int) -> RelayedRecord | None:
        """Return the first remembered record that covers an event, None if there is none.

        Walks through all of them: for an operator's question, not for a path that is taken often.
        """
        for kept in self._kept:
            if kept.topic == topic and kept.first_seq <= seq <= kept.last_seq:
                return kept
        return None
