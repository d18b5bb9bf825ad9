"""What load tests compute from what was received."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from chaos.load.delivery_client import Receipt, percentile, read_log
from chaos.load.fairness import count_contended, jain_index
from chaos.load.held_clients import HeldSetup
from chaos.load.many_topics import ManyTopicsSetup
from chaos.load.paced_feed import FIRST_SEQ, RunFeed
from khala_contracts import http_messages as m
from khala_contracts.kinds import decode_payload

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("values", "index"),
    [([3.0, 3.0, 3.0], 1.0), ([1.0, 0.0, 0.0, 0.0], 0.25), ([0.0, 0.0], 1.0), ([2.0, 1.0], 0.9)],
)
def test_jains_index(values: list[float], index: float) -> None:
    """1 if all got the same, 1/n if one got everything; nothing for anybody is fair."""
    assert jain_index(values) == pytest.approx(index)


def test_percentiles() -> None:
    """Of a hundred values, p99 is the one that 99 are below; of few, the largest."""
    hundred = [float(number) for number in range(100, 0, -1)]
    assert [percentile(hundred, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 51.0, 100.0, 100.0]
    assert percentile([7.0], 0.99) == 7.0


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    """24 bytes an entry, in their order."""
    file = tmp_path / "log"
    file.write_bytes(struct.pack("<IIqqIIqq", 1, 2, 3, 4, 5, 6, 7, 8))
    assert list(read_log(file)) == [Receipt(1, 2, 3, 4), Receipt(5, 6, 7, 8)]


@pytest.mark.parametrize("payload_bytes", [131, 200, 1_024, 16_386])
def test_a_feed_writes_events_of_exactly_this_size(payload_bytes: int) -> None:
    """Each payload is an `output` event of that size, whose text begins with its seq."""
    feed = RunFeed("run_1", 1.0, payload_bytes=payload_bytes)
    events = m.AppendEventsRequest.FromString(feed._next_body(3)).events
    assert [len(event.payload_bytes) for event in events] == [payload_bytes] * 3
    texts = [str(decode_payload(event.kind, event.payload_bytes)["text"]) for event in events]
    assert [int(text[:16], 16) for text in texts] == [FIRST_SEQ, FIRST_SEQ + 1, FIRST_SEQ + 2]


def test_bounds_of_what_is_held() -> None:
    """CARD-03: 320 + 64 + 64 KiB for each client, and a fifth; 384 KiB wait for one at most."""
    setup = HeldSetup(clients=100)
    assert setup.outbound_max_bytes == 384 * 1024
    assert setup.growth_max_bytes == pytest.approx(1.2 * 100 * 448 * 1024)


def test_rounds_divide_the_frames() -> None:
    """Four rounds of 256 are 1,024 frames."""
    setup = ManyTopicsSetup()
    assert setup.frames_per_record * setup.rounds == setup.frames == 1_024


def test_only_the_time_of_contention_is_counted() -> None:
    """Not before all have begun, and not after the first has ended."""
    order = [0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 1]
    seqs = [0, 0]
    receipts = []
    for topic in order:
        seqs[topic] += 1
        receipts.append(Receipt(0, topic, seqs[topic], 0))
    assert count_contended(receipts, [6, 5]) == [3, 2]
