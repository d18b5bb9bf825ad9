"""The bucket's two numbers hold for every schedule."""

from hypothesis import given
from hypothesis import strategies as st

from control.core.token_bucket import TokenBucket


def test_burst_then_rate() -> None:
    """A full burst at once, then one per 1 / rate."""
    bucket = TokenBucket(rate_per_s=2.0, burst=3.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.take(100.4) is False
    assert bucket.take(100.5) is True
    assert bucket.take(100.6) is False
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    """Setting the clock back and forth does not fill the bucket beyond what time gives."""
    bucket = TokenBucket(rate_per_s=1.0, burst=1.0)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)
    assert not bucket.take(50.9)
    assert bucket.take(51.0)


@given(st.lists(st.floats(0, 5), max_size=60), st.floats(0, 10), st.integers(1, 10))
def test_never_more_than_burst_plus_rate(gaps_s: list[float], rate_per_s: float, burst: int) -> None:
    """Admitted <= burst + rate x elapsed, and the level stays within its bounds."""
    bucket, now_s, admitted = TokenBucket(rate_per_s, burst), 1000.0, 0
    for gap_s in gaps_s:
        now_s += gap_s
        admitted += bucket.take(now_s)
        assert 0 <= bucket.level <= burst
        assert admitted <= burst + rate_per_s * (now_s - 1000.0) + 1e-6
