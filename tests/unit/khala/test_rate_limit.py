"""Token buckets and sliding counts, at the limit and one beyond."""

import pytest

from khala.core.rate_limit import SlidingCount, TokenBucket


def test_burst_then_nothing() -> None:
    """Burst tokens at once; one more is refused."""
    bucket = TokenBucket.full(10.0, 3, now=100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(("elapsed_s", "is_taken"), [(0.0, False), (0.0625, False), (0.125, True)])
def test_refills_at_its_rate(elapsed_s: float, is_taken: bool) -> None:
    """After 1 / rate_per_s seconds there is one token, and not before."""
    bucket = TokenBucket.full(8.0, 1, now=0.0)
    assert bucket.take(0.0)
    assert bucket.take(elapsed_s) is is_taken


def test_never_holds_more_than_the_burst() -> None:
    """An hour of silence earns no more than the burst."""
    bucket = TokenBucket.full(8.0, 2, now=0.0)
    assert [bucket.take(3_600.0) for _ in range(3)] == [True, True, False]


def test_a_refusal_changes_nothing() -> None:
    """Refused tokens stay for a smaller request."""
    bucket = TokenBucket.full(8.0, 4, now=0.0)
    assert not bucket.take(0.0, 5)
    assert bucket.take(0.0, 4)


def test_time_that_goes_backwards_earns_nothing() -> None:
    """An earlier ``now`` neither adds nor removes tokens."""
    bucket = TokenBucket.full(8.0, 1, now=10.0)
    assert bucket.take(10.0)
    assert not bucket.take(5.0)
    assert bucket.take(10.125)


def test_wait_says_when() -> None:
    """wait_s is 0 while there are tokens, else the time until there will be."""
    bucket = TokenBucket.full(8.0, 2, now=0.0)
    assert bucket.wait_s() == 0.0
    assert bucket.take(0.0, 2)
    assert bucket.wait_s() == 0.125
    assert bucket.wait_s(2) == 0.25
    assert bucket.take(0.25, 2)


def test_sliding_count_at_the_limit() -> None:
    """The limit-th event within the window exceeds; the one before does not."""
    count = SlidingCount(3, 60.0)
    assert [count.exceeds(t) for t in (0.0, 1.0, 2.0, 3.0)] == [False, False, True, True]


@pytest.mark.parametrize(("third_at", "is_exceeded"), [(59.0, True), (60.0, False), (61.0, False)])
def test_sliding_count_forgets(third_at: float, is_exceeded: bool) -> None:
    """An event counts for window_s and not a moment longer."""
    count = SlidingCount(3, 60.0)
    count.exceeds(0.0)
    count.exceeds(1.0)
    assert count.exceeds(third_at) is is_exceeded


def test_sliding_count_is_bounded() -> None:
    """INV-7: a flood is not remembered event by event."""
    count = SlidingCount(3, 60.0)
    for _ in range(1_000):
        count.exceeds(0.0)
    assert len(count._times) <= 4


def test_retuning_keeps_what_was_earned() -> None:
    """A bucket earns at its old rate until the change; a full one is full again, a fuller one is cut."""
    bucket = TokenBucket.full(1.0, 10, now=0.0)
    assert bucket.take(0.0, 10)
    bucket.retune(100.0, 5, now=2.0)
    assert not bucket.take(2.0, 2.5)
    assert bucket.take(2.0, 2)
    bucket.retune(100.0, 20, now=10.0)
    assert bucket.take(10.0, 20)
    bucket.retune(1.0, 20, now=100.0)
    bucket.retune(1.0, 3, now=100.0)
    assert not bucket.take(100.0, 4)
    assert bucket.take(100.0, 3)
