"""The bounded memory of what the nodes were told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from khala_contracts.fanout_records import FanoutRecord
from runtime.core.relayed_records import RELAYED_MAX, RelayedRecords
from tests.actors.runtime.rig import LINEAGE, topic_of

if TYPE_CHECKING:
    from khala_contracts.topics import TopicName


def record(topic: TopicName, first_seq: int, last_seq: int, *entries: bytes) -> FanoutRecord:
    """Return a record of a topic."""
    return FanoutRecord(topic, LINEAGE, first_seq, last_seq, b"a" * 32, b"b" * 32, entries, 1)


def test_the_first_record_that_covers_an_event() -> None:
    """A later hint that covers it again is not when the nodes heard of it first."""
    relayed = RelayedRecords()
    relayed.add(record(topic_of(1), 2, 3, b"x", b"y"), driver="memory", published_at_us=10)
    relayed.add(record(topic_of(1), 1, 9), driver="memory", published_at_us=20)
    for seq, published_at_us in ((1, 20), (2, 10), (3, 10), (9, 20)):
        found = relayed.find(topic_of(1), seq)
        assert found is not None
        assert (found.published_at_us, found.is_copy) == (published_at_us, published_at_us == 10)
    assert relayed.find(topic_of(1), 10) is None
    assert relayed.find(topic_of(2), 2) is None


def test_bounded() -> None:
    """INV-7: at the capacity nothing is forgotten, one more forgets the oldest."""
    relayed = RelayedRecords(capacity=3)
    for seq in (1, 2, 3):
        relayed.add(record(topic_of(1), seq, seq), driver="memory", published_at_us=seq)
    assert relayed.find(topic_of(1), 1) is not None
    relayed.add(record(topic_of(1), 4, 4), driver="memory", published_at_us=4)
    assert len(relayed) == 3
    assert relayed.find(topic_of(1), 1) is None
    assert relayed.find(topic_of(1), 2) is not None
    assert RELAYED_MAX >= 1_000
