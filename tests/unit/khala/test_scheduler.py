"""Turns by bytes: who is next, and how much at once."""

import pytest

from khala.core.in_flight import InFlight
from khala.core.limits import NodeLimits
from khala.core.scheduler import DeficitRoundRobin
from khala.core.subscription import Subscription
from tests.range_source import WindowSource, live_subscription

KIB = 1024


def _turns(*subscriptions: Subscription, quantum: int = 16 * KIB, chunk: int = 64 * KIB) -> DeficitRoundRobin:
    turns = DeficitRoundRobin(quantum, chunk, is_text=False, in_flight=InFlight(NodeLimits()))
    for subscription in subscriptions:
        turns.add(subscription)
    return turns


def _with_frames(count: int, size: int, *, number: int = 1) -> Subscription:
    source = WindowSource()
    source.write([size] * count)
    return live_subscription(source, number=number)


def _take(turns: DeficitRoundRobin) -> tuple[Subscription, int]:
    taken = turns.take_next()
    assert taken is not None
    return taken[0], len(taken[1])


def test_nothing_ready() -> None:
    """No topic has frames: nothing is taken, and who was added without frames has left."""
    turns = _turns(_with_frames(0, 1))
    assert len(turns) == 1
    assert turns.take_next() is None
    assert len(turns) == 0


def test_added_twice_takes_one_turn() -> None:
    """A topic is in the ring at most once, however often it is woken."""
    one = _with_frames(1, 10)
    turns = _turns(one, one)
    assert len(turns) == 1
    assert _take(turns) == (one, 10)
    assert turns.take_next() is None


def test_alone_a_topic_takes_a_whole_chunk() -> None:
    """With nobody to be fair to, a turn is chunk_max_bytes."""
    one = _with_frames(1_000, KIB)
    assert _take(_turns(one)) == (one, 64 * KIB)


def test_two_topics_take_quanta_in_turn() -> None:
    """With company a turn is one quantum."""
    one, two = _with_frames(100, KIB), _with_frames(100, KIB, number=2)
    turns = _turns(one, two)
    assert [_take(turns) for _ in range(4)] == [(one, 16 * KIB), (two, 16 * KIB)] * 2


def test_unused_quantum_is_carried_over() -> None:
    """A frame that does not fit now is paid for by two turns, then sent."""
    big, small = _with_frames(3, 24 * KIB), _with_frames(100, KIB, number=2)
    turns = _turns(big, small)
    taken = [_take(turns) for _ in range(4)]
    assert taken == [(small, 16 * KIB), (big, 24 * KIB), (small, 16 * KIB), (big, 24 * KIB)]


def test_a_frame_of_exactly_one_chunk_is_sent() -> None:
    """chunk_max_bytes is inclusive."""
    one = _with_frames(2, 64 * KIB)
    assert _take(_turns(one)) == (one, 64 * KIB)


@pytest.mark.parametrize("company", [0, 10_000])
def test_a_frame_larger_than_a_chunk_travels_alone(company: int) -> None:
    """One above chunk_max_bytes is sent by itself once its deficit is saved up, in company and alone."""
    big = _with_frames(3, 300 * KIB)
    turns = _turns(big, _with_frames(company, 100, number=2))
    subscription, size = _take(turns)
    while subscription is not big:
        subscription, size = _take(turns)
    assert size == 300 * KIB


def test_a_large_frame_does_not_delay_company_beyond_its_own_cost() -> None:
    """While a topic saves for a large frame, the other gets a quantum in each round."""
    big, small = _with_frames(1, 256 * KIB), _with_frames(10_000, KIB, number=2)
    turns = _turns(big, small)
    before = 0
    while True:
        subscription, size = _take(turns)
        if subscription is big:
            break
        before += size
    assert 14 * 16 * KIB <= before <= 16 * 16 * KIB


def test_a_drained_topic_leaves_without_credit() -> None:
    """A topic that is not ready has no deficit: being idle earns nothing."""
    one, two = _with_frames(1, 10), _with_frames(100, KIB, number=2)
    turns = _turns(one, two)
    assert _take(turns) == (one, 10)
    assert one.deficit_bytes == 0
    assert len(turns) == 1


def test_a_topic_that_needs_a_page_leaves_and_comes_back() -> None:
    """The read is asked for once; others go on; the page brings the topic back to its turn."""
    source = WindowSource(paged_until=1)
    source.write([10] * 3)
    paged = live_subscription(source)
    other = _with_frames(1, 10, number=2)
    turns = _turns(paged, other)
    assert _take(turns) == (other, 10)
    assert turns.take_next() is None
    assert source.asked == [paged]
    turns.add(paged)  # woken by a live frame meanwhile: still waiting
    assert turns.take_next() is None
    assert source.asked == [paged]
    assert source.answer_pages() == [paged]
    turns.add(paged)
    assert _take(turns) == (paged, 30)


def test_discard_takes_a_topic_out() -> None:
    """An ended subscription has no further turn, wherever it stood in the ring."""
    one, two, three = (_with_frames(100, KIB, number=number) for number in (1, 2, 3))
    turns = _turns(one, two, three)
    _take(turns)
    turns.discard(one)
    turns.discard(one)
    assert one.deficit_bytes == 0
    assert [_take(turns)[0] for _ in range(3)] == [two, three, two]


def test_clear_takes_every_topic_out() -> None:
    """After the socket is gone no topic takes a turn, and may be added anew."""
    one = _with_frames(100, KIB)
    turns = _turns(one)
    turns.clear()
    assert len(turns) == 0
    assert turns.take_next() is None
    turns.add(one)
    assert len(turns) == 1
