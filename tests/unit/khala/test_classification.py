"""Ok or stale: each rule on both sides of its number, and the order of the rules."""

import attrs
import pytest

from khala.core.classification import (
    Classification,
    CursorRow,
    HeadRights,
    Observation,
    Serve,
    Stale,
    SubscriptionStart,
    classify,
)
from khala_contracts.chain import chain_start
from khala_contracts.codec import CursorStart, StaleReason, SubscribeFrom
from khala_contracts.topics import TopicClass
from tests.topic_log import LINEAGE, OTHER_LINEAGE, TopicLog, run_topic

# Retained from 101 on; the head is 200. Every frame has the same size up to seq 127.
FLOOR = 101
HEAD = 200


def _log(*, floor: int = FLOOR, head: int = HEAD, reason: StaleReason | None = None) -> TopicLog:
    log = TopicLog()
    log.append(head)
    log.floor_seq = floor
    log.floor_reason = reason or StaleReason.RETENTION_EXPIRED
    return log


def _budget(*, events: int = 20_000, size: int = 32 * 1024 * 1024) -> TopicClass:
    return attrs.evolve(run_topic().topic_class, replay_budget_events=events, replay_budget_bytes=size)


def _classify(
    start: SubscriptionStart, log: TopicLog, topic_class: TopicClass | None = None
) -> Classification:
    seq = start.seq if isinstance(start, CursorStart) else 0
    return classify(
        start,
        log.observe(),
        log.row(seq),
        chain_start=chain_start(log.topic.name),
        topic_class=topic_class or _budget(),
    )


def _cursor(seq: int, log: TopicLog | None = None, *, lineage: str = LINEAGE) -> CursorStart:
    """A cursor at ``seq``; with the right chain if a log is given."""
    return CursorStart(seq, lineage, log.chains[seq] if log is not None else b"")


RETENTION = Stale(StaleReason.RETENTION_EXPIRED)
MISMATCH = Stale(StaleReason.LINEAGE_MISMATCH)
BUDGET = Stale(StaleReason.REPLAY_BUDGET_EXCEEDED)


@pytest.mark.parametrize("cursor", [_cursor(0), _cursor(1)])
def test_a_topic_that_is_not_there_is_an_empty_one(cursor: CursorStart) -> None:
    """Served from its beginning; whoever has read further has read another history."""
    topic, start = run_topic().name, chain_start(run_topic().name)
    absent = Observation.absent(topic, LINEAGE)
    assert not absent.exists
    assert absent.rights == HeadRights(None, None)
    result = classify(cursor, absent, None, chain_start=start, topic_class=_budget())
    assert result == (Serve(0, start) if cursor.seq == 0 else MISMATCH)


@pytest.mark.parametrize("has_chain", [True, False])
@pytest.mark.parametrize(
    ("seq", "is_served"),
    [(1, False), (FLOOR - 3, False), (FLOOR - 2, False), (FLOOR - 1, True), (FLOOR, True), (FLOOR + 1, True)],
)
def test_floor(seq: int, is_served: bool, has_chain: bool) -> None:
    """INV-5: stale iff cursor.seq + 1 < floor_seq. 100 continues at floor 101; 99 is stale."""
    log = _log()
    answer = _classify(_cursor(seq, log if has_chain else None), log)
    assert answer == (Serve(seq, log.chains[seq]) if is_served else RETENTION)


def test_floor_reason_is_the_stored_one() -> None:
    """The reason is why the floor moved, not why the client asks."""
    log = _log(reason=StaleReason.COMPACTION_BOUNDARY)
    assert _classify(_cursor(FLOOR - 2), log) == Stale(StaleReason.COMPACTION_BOUNDARY)


def test_rows_below_the_floor_are_invisible_though_not_deleted() -> None:
    """A node that still sees the row answers as one that does not: equal floors, equal answers."""
    log = _log()
    row = CursorRow(log.chains[50], log.bytes_totals[50])
    seen = log.observe()
    for row_seen in (row, None):
        answer = classify(_cursor(50, log), seen, row_seen, chain_start=log.chains[0], topic_class=_budget())
        assert answer == RETENTION


@pytest.mark.parametrize(("seq", "is_served"), [(HEAD - 1, True), (HEAD, True), (HEAD + 1, False)])
def test_head(seq: int, is_served: bool) -> None:
    """A cursor at the head continues; one ahead of it was never given out by this history."""
    log = _log()
    answer = _classify(_cursor(seq), log)
    assert answer == (Serve(seq, log.chains[seq]) if is_served else MISMATCH)


def test_far_ahead_of_the_head() -> None:
    """The largest seq that the wire allows is ahead of the head, nothing else."""
    assert _classify(_cursor(2**63 - 1), _log()) == MISMATCH


@pytest.mark.parametrize("seq", [1, FLOOR - 2, FLOOR, HEAD, HEAD + 1])
def test_another_lineage(seq: int) -> None:
    """A cursor of another lineage is a mismatch wherever it stands, below the floor too."""
    assert _classify(_cursor(seq, lineage=OTHER_LINEAGE), _log()) == MISMATCH


def test_seq_zero_needs_no_lineage() -> None:
    """Nothing applied yet: any history will do, unless the client names another."""
    log = _log(floor=1)
    assert _classify(CursorStart(0), log) == Serve(0, log.chains[0])
    assert _classify(_cursor(0), log) == Serve(0, log.chains[0])
    assert _classify(_cursor(0, lineage=OTHER_LINEAGE), log) == MISMATCH


def test_seq_zero_below_the_floor() -> None:
    """From the beginning, but the beginning is gone: stale, not "from the floor on"."""
    assert _classify(CursorStart(0), _log()) == RETENTION
    assert _classify(CursorStart(0), _log(floor=2)) == RETENTION
    assert _classify(SubscribeFrom.BEGINNING, _log(floor=2)) == RETENTION


@pytest.mark.parametrize("seq", [0, 1, 150, HEAD])
def test_another_chain_at_the_seq(seq: int) -> None:
    """The same lineage and seq but another chain: a copy was put back behind our back."""
    log = _log(floor=1)
    wrong = CursorStart(seq, LINEAGE, bytes(32))
    assert _classify(wrong, log) == MISMATCH
    assert _classify(_cursor(seq, log), log) == Serve(seq, log.chains[seq])


def test_chain_at_the_floor() -> None:
    """At floor - 1 the row is gone and the stored floor chain is compared."""
    log = _log()
    assert _classify(CursorStart(FLOOR - 1, LINEAGE, bytes(32)), log) == MISMATCH
    assert _classify(_cursor(FLOOR - 1, log), log) == Serve(FLOOR - 1, log.chains[FLOOR - 1])


def test_a_wrong_chain_below_the_floor_is_retention() -> None:
    """What is gone cannot be compared: the floor decides."""
    assert _classify(CursorStart(FLOOR - 2, LINEAGE, bytes(32)), _log()) == RETENTION


@pytest.mark.parametrize(("budget", "is_served"), [(49, False), (50, True), (51, True)])
def test_budget_in_frames(budget: int, is_served: bool) -> None:
    """Exactly the budget is replayed; one frame more is stale."""
    log = _log()
    answer = _classify(_cursor(HEAD - 50), log, _budget(events=budget))
    assert answer == (Serve(HEAD - 50, log.chains[HEAD - 50]) if is_served else BUDGET)


@pytest.mark.parametrize("seq", [FLOOR - 1, FLOOR, HEAD - 50, HEAD - 1])
@pytest.mark.parametrize(("spare", "is_served"), [(-1, False), (0, True), (1, True)])
def test_budget_in_bytes(seq: int, spare: int, is_served: bool) -> None:
    """Exactly the budget is replayed, counted from the floor's and the row's totals alike."""
    log = _log()
    distance = log.bytes_totals[HEAD] - log.bytes_totals[seq]
    answer = _classify(_cursor(seq), log, _budget(size=distance + spare))
    assert answer == (Serve(seq, log.chains[seq]) if is_served else BUDGET)


def test_at_the_head_no_budget_is_too_small() -> None:
    """Nothing to replay costs nothing."""
    log = _log()
    assert _classify(_cursor(HEAD), log, _budget(events=0, size=0)) == Serve(HEAD, log.chains[HEAD])


def test_now_starts_at_the_head() -> None:
    """``now`` has no replay and no budget, also on a topic without a frame."""
    log = _log()
    assert _classify(SubscribeFrom.NOW, log, _budget(events=0, size=0)) == Serve(HEAD, log.chains[HEAD])
    empty = TopicLog()
    assert _classify(SubscribeFrom.NOW, empty) == Serve(0, empty.chains[0])


def test_earliest_starts_at_the_oldest_retained() -> None:
    """``earliest`` is never stale by retention, but obeys the budget like every other form."""
    log = _log()
    assert _classify(SubscribeFrom.EARLIEST, log) == Serve(FLOOR - 1, log.chains[FLOOR - 1])
    assert _classify(SubscribeFrom.EARLIEST, log, _budget(events=100)) == Serve(100, log.chains[100])
    assert _classify(SubscribeFrom.EARLIEST, log, _budget(events=99)) == BUDGET


def test_beginning_is_seq_zero() -> None:
    """``beginning`` replays all of an untouched topic and obeys the budget."""
    log = _log(floor=1)
    assert _classify(SubscribeFrom.BEGINNING, log) == Serve(0, log.chains[0])
    assert _classify(SubscribeFrom.BEGINNING, log, _budget(events=HEAD)) == Serve(0, log.chains[0])
    assert _classify(SubscribeFrom.BEGINNING, log, _budget(events=HEAD - 1)) == BUDGET


@pytest.mark.parametrize(
    "start",
    [SubscribeFrom.BEGINNING, SubscribeFrom.EARLIEST, SubscribeFrom.NOW, CursorStart(0), _cursor(0)],
)
def test_a_topic_without_frames_is_served(start: SubscriptionStart) -> None:
    """A run that exists and has no event yet: head 0, and seq 1 will follow."""
    empty = TopicLog()
    assert _classify(start, empty) == Serve(0, chain_start(empty.topic.name))


def test_everything_pruned() -> None:
    """floor_seq = head_seq + 1: a client at the head continues, one before it is stale."""
    log = _log(floor=HEAD + 1)
    assert _classify(_cursor(HEAD, log), log) == Serve(HEAD, log.chains[HEAD])
    assert _classify(_cursor(HEAD - 1, log), log) == RETENTION
    assert _classify(SubscribeFrom.EARLIEST, log) == Serve(HEAD, log.chains[HEAD])


def test_order_of_the_tests() -> None:
    """Lineage, ahead of head, chain, floor, frames, bytes: the first that applies is the answer."""
    log = _log()
    tight = _budget(events=0, size=0)
    assert _classify(_cursor(FLOOR - 2, lineage=OTHER_LINEAGE), log, tight) == MISMATCH
    assert _classify(_cursor(HEAD + 1), log, tight) == MISMATCH
    assert _classify(CursorStart(FLOOR, LINEAGE, bytes(32)), log, tight) == MISMATCH
    assert _classify(_cursor(FLOOR - 2, log), log, tight) == RETENTION
    assert _classify(_cursor(FLOOR, log), log, tight) == BUDGET


@pytest.mark.parametrize("has_chain", [True, False])
@pytest.mark.parametrize("seq", [FLOOR, 150, HEAD - 1])
def test_a_missing_row_is_trouble_and_no_verdict(seq: int, has_chain: bool) -> None:
    """INV-5: an observation that contradicts itself never becomes a stale cursor."""
    log = _log()
    cursor = _cursor(seq, log if has_chain else None)
    with pytest.raises(LookupError, match=f"seq={seq}"):
        classify(cursor, log.observe(), None, chain_start=log.chains[0], topic_class=_budget())


def test_no_row_is_needed_at_the_ends() -> None:
    """At floor - 1 and at the head the head row alone says everything."""
    log = _log()
    seen: Observation = log.observe()
    for seq in (FLOOR - 1, HEAD):
        answer = classify(_cursor(seq, log), seen, None, chain_start=log.chains[0], topic_class=_budget())
        assert answer == Serve(seq, log.chains[seq])
