"""Classification against what it means: can the frames after the cursor be served, and is it ours.

Mutants killed (each was tried): the floor, head and both budgets off by one; lineage, ahead-of-head,
chain, floor or a budget not tested; the floor tested before the chain is comparable; a row below the
floor believed; the budget counted from the row instead of the floor; the stored floor reason ignored.
Survivors are equivalent: judging ``now`` by the budget (nothing is replayed), and asking the row instead
of the head row for the chain at the head.
"""

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from khala.core.classification import CursorRow, Serve, Stale, SubscriptionStart, classify
from khala_contracts.chain import chain_next, chain_start
from khala_contracts.codec import CursorStart, StaleReason, SubscribeFrom, decode_entries
from tests.topic_log import LINEAGE, OTHER_LINEAGE, TopicLog, run_topic


@st.composite
def logs(draw: st.DrawFn) -> TopicLog:
    """A topic with frames of different sizes, retained from anywhere on."""
    log = TopicLog()
    for size in draw(st.lists(st.integers(0, 200), max_size=30)):
        log.append(payload=bytes(size))
    log.floor_seq = draw(st.integers(1, log.head_seq + 1))
    log.floor_reason = draw(st.sampled_from([StaleReason.RETENTION_EXPIRED, StaleReason.COMPACTION_BOUNDARY]))
    return log


@st.composite
def starts(draw: st.DrawFn, log: TopicLog) -> SubscriptionStart:
    """Anything that the codec lets through."""
    if draw(st.integers(0, 3)) == 0:
        word: SubscribeFrom = draw(st.sampled_from(SubscribeFrom))
        return word
    edges = [
        0,
        log.floor_seq - 2,
        log.floor_seq - 1,
        log.floor_seq,
        log.head_seq,
        log.head_seq + 1,
        2**63 - 1,
    ]
    seq = draw(st.one_of(st.sampled_from([e for e in edges if e >= 0]), st.integers(0, log.head_seq + 2)))
    lineage = draw(st.sampled_from([LINEAGE, LINEAGE, OTHER_LINEAGE]))
    if seq == 0:
        lineage = draw(st.sampled_from(["", lineage]))
    known = log.chains[seq] if seq <= log.head_seq else bytes(32)
    chain = draw(st.sampled_from([b"", known, known, bytes(32)]))
    return CursorStart(seq, lineage, chain)


OFF_BY_ONE_OR_PLENTY = st.sampled_from([-1, 0, 1, 100_000, 100_000])


@settings(max_examples=400, deadline=None)
@given(data=st.data(), log=logs())
def test_the_answer_is_what_it_means(data: st.DataObject, log: TopicLog) -> None:
    """INV-5: each answer holds as a statement about the log, whichever rule gave it.

    Mutants killed: see the list in the module's docstring.
    """
    start = data.draw(starts(log))
    # Budgets at the edge of what is asked for, or plenty, so that neither hides the other.
    asked = min(start.seq, log.head_seq) if isinstance(start, CursorStart) else log.floor_seq - 1
    events = max(0, log.head_seq - asked + data.draw(OFF_BY_ONE_OR_PLENTY))
    size = max(0, log.bytes_totals[-1] - log.bytes_totals[asked] + data.draw(OFF_BY_ONE_OR_PLENTY))
    topic_class = attrs.evolve(run_topic().topic_class, replay_budget_events=events, replay_budget_bytes=size)
    seq = start.seq if isinstance(start, CursorStart) else 0
    answers = {
        classify(start, log.observe(), row, chain_start=chain_start(log.topic.name), topic_class=topic_class)
        for row in _rows_seen(log, seq)
    }
    assert len(answers) == 1
    (answer,) = answers
    head = log.head_seq
    is_ours = True
    position = {SubscribeFrom.NOW: head, SubscribeFrom.EARLIEST: log.floor_seq - 1}.get(start, seq)  # type: ignore[arg-type]
    if isinstance(start, CursorStart):
        is_comparable = log.floor_seq - 1 <= seq <= head
        is_ours = (
            start.lineage in {LINEAGE, ""}
            and seq <= head
            and not (start.chain and is_comparable and start.chain != log.chains[seq])
        )
    is_retained = position + 1 >= log.floor_seq
    if not is_ours:
        assert answer == Stale(StaleReason.LINEAGE_MISMATCH)
    elif not is_retained:
        assert answer == Stale(log.floor_reason)
    elif start is not SubscribeFrom.NOW and not _is_in_budget(log, position, events, size):
        assert answer == Stale(StaleReason.REPLAY_BUDGET_EXCEEDED)
    else:
        assert isinstance(answer, Serve)
        assert answer.start_seq == position
        _check_that_it_can_be_served(log, answer)


def _rows_seen(log: TopicLog, seq: int) -> list[CursorRow | None]:
    """Rows that two nodes may see: one below the floor may have been deleted already or not."""
    if log.row(seq) is None and 1 <= seq <= log.head_seq:
        return [None, CursorRow(log.chains[seq], log.bytes_totals[seq])]
    return [log.row(seq)]


def _is_in_budget(log: TopicLog, position: int, events: int, size: int) -> bool:
    replay = log.entries[position:]
    return len(replay) <= events and sum(map(len, replay)) <= size


def _check_that_it_can_be_served(log: TopicLog, answer: Serve) -> None:
    """The retained frames continue at start_seq + 1, and their chain begins with chain_at_start."""
    page = log.page(answer.start_seq)
    assert page.last_seq == log.head_seq
    chain = answer.chain_at_start
    for number, frame in enumerate(decode_entries(page.blob), start=answer.start_seq + 1):
        assert frame.seq == number
        chain = chain_next(chain, frame.seq, frame.schema_version, frame.kind, frame.payload)
    assert chain == log.chains[log.head_seq]
