"""What a driver message means, and what is held above a gap."""

import attrs
import pytest

from khala.core.records import HeldRecords, RecordDecision, decide_record
from khala_contracts.fanout_records import FanoutRecord
from tests.topic_log import LINEAGE, OTHER_LINEAGE, TopicLog

HEAD = 10


def _log() -> TopicLog:
    log = TopicLog()
    log.append(30)
    return log


def _decide(record: FanoutRecord) -> RecordDecision:
    return decide_record(record, lineage=LINEAGE, head_seq=HEAD, head_chain=_log().chains[HEAD])


@pytest.mark.parametrize(
    ("first", "last", "decision"),
    [
        (1, 9, RecordDecision.DUPLICATE),
        (1, 10, RecordDecision.DUPLICATE),
        (10, 10, RecordDecision.DUPLICATE),
        (10, 11, RecordDecision.HINT),
        (1, 30, RecordDecision.HINT),
        (11, 11, RecordDecision.APPLY),
        (11, 30, RecordDecision.APPLY),
        (12, 12, RecordDecision.HOLD),
        (29, 30, RecordDecision.HOLD),
    ],
)
def test_position_against_the_head(first: int, last: int, decision: RecordDecision) -> None:
    """INV-3: only what starts right after the head is applied; at or below it nothing happens."""
    assert _decide(_log().record(first, last)) is decision


@pytest.mark.parametrize(
    ("first", "last", "decision"),
    [
        (10, 10, RecordDecision.DUPLICATE),
        (11, 11, RecordDecision.HINT),
        (13, 14, RecordDecision.HINT),
    ],
)
def test_a_hint_carries_no_frames(first: int, last: int, decision: RecordDecision) -> None:
    """A record without entries is never applied or held."""
    assert _decide(_log().hint(first, last)) is decision


def test_another_chain_is_a_conflict() -> None:
    """A record that starts at our head but seals another history is not applied."""
    forked = attrs.evolve(_log().record(11, 12), chain_before=bytes(32))
    assert _decide(forked) is RecordDecision.CONFLICT


@pytest.mark.parametrize(("first", "last"), [(1, 5), (11, 11), (15, 15)])
def test_another_lineage_is_said_before_anything_else(first: int, last: int) -> None:
    """A record of another lineage is that, wherever it stands."""
    foreign = attrs.evolve(_log().record(first, last), lineage=OTHER_LINEAGE)
    assert _decide(foreign) is RecordDecision.OTHER_LINEAGE


def _held(*ranges: tuple[int, int], max_records: int = 64, max_bytes: int = 1_000_000) -> HeldRecords:
    held = HeldRecords(max_records, max_bytes)
    log = _log()
    for first, last in ranges:
        held.hold(log.record(first, last))
    return held


def _size(record: FanoutRecord) -> int:
    return sum(len(entry) for entry in record.entries)


def test_held_records_come_back_in_order() -> None:
    """Once the gap is closed, records follow each other whatever the order of their arrival."""
    held = _held((14, 15), (12, 13), (16, 16))
    assert held.take_from(HEAD) is None
    taken = []
    head = 11
    while (record := held.take_from(head)) is not None:
        taken.append((record.first_seq, record.last_seq))
        head = record.last_seq
    assert taken == [(12, 13), (14, 15), (16, 16)]
    assert (len(held), held.size_bytes) == (0, 0)


def test_records_at_or_below_the_head_are_forgotten() -> None:
    """INV-7: what the journal has brought meanwhile does not stay in memory."""
    held = _held((12, 13), (14, 15), (17, 18))
    assert held.take_from(15) is None
    assert len(held) == 1
    assert held.size_bytes == _size(_log().record(17, 18))


def test_overlapping_record_is_forgotten_not_applied() -> None:
    """A held record that the head has entered is dropped; the journal brings the rest of it."""
    held = _held((12, 20))
    assert held.take_from(15) is None
    assert len(held) == 0


@pytest.mark.parametrize(("max_records", "is_held"), [(2, False), (3, True)])
def test_bound_in_records(max_records: int, is_held: bool) -> None:
    """INV-7: max_records are held; one more is dropped and the caller is told."""
    held = _held((12, 12), (14, 14), max_records=max_records)
    assert held.hold(_log().record(16, 16)) is is_held
    assert len(held) == max_records


@pytest.mark.parametrize(("spare_bytes", "is_held"), [(-1, False), (0, True), (1, True)])
def test_bound_in_bytes(spare_bytes: int, is_held: bool) -> None:
    """INV-7: a record fits up to max_bytes and not a byte beyond; a dropped one changes nothing."""
    record = _log().record(12, 13)
    held = HeldRecords(64, _size(record) + spare_bytes)
    assert held.hold(record) is is_held
    assert held.size_bytes == (_size(record) if is_held else 0)
    assert len(held) == int(is_held)


def test_the_same_start_is_held_once() -> None:
    """A repeated record costs nothing."""
    held = _held((12, 13), (12, 13))
    assert held.hold(_log().record(12, 14))
    assert (len(held), held.size_bytes) == (1, _size(_log().record(12, 13)))


def test_clear_forgets_all() -> None:
    """Another history: nothing held belongs to it."""
    held = _held((12, 13), (15, 15))
    held.clear()
    assert (len(held), held.size_bytes) == (0, 0)
    assert held.take_from(11) is None
