"""Token buckets: the rate, the burst, one more, and what is forgotten."""

from __future__ import annotations

import pytest

from khala_contracts.topics import TOPIC_CLASSES
from runtime.core.rate_limit import Rate, RateLimiter, rates_of


def limiter(per_s: float = 10.0, burst: float = 100.0) -> RateLimiter:
    """Return a limiter with one limited class."""
    return RateLimiter({"limited": Rate(per_s, burst)})


def test_rates_of_the_registry() -> None:
    """Classes without a rate are absent; the others have ten seconds of their rate as burst."""
    rates = rates_of(TOPIC_CLASSES, {})
    assert rates["run_events"] == Rate(240.0, 2_400.0)
    assert rates["notifications"] == Rate(90.0, 900.0)
    assert "user_runs" not in rates


def test_overrides() -> None:
    """A configured rate replaces the registry's; 0 lifts it; a strange name is refused."""
    rates = rates_of(TOPIC_CLASSES, {"run_events": 1_000.0, "app": 0.0})
    assert rates["run_events"] == Rate(1_000.0, 10_000.0)
    assert "app" not in rates
    with pytest.raises(ValueError, match="no topic class"):
        rates_of(TOPIC_CLASSES, {"run": 1.0})
    with pytest.raises(ValueError, match="events per second"):
        rates_of(TOPIC_CLASSES, {"app": -1.0})


def test_burst_then_rate() -> None:
    """An unused bucket gives its burst and not one more; afterwards tokens come at the rate."""
    bucket = limiter()
    assert bucket.wait_s("t", "limited", 100, now=0.0) == 0.0
    bucket.take("t", "limited", 100, now=0.0)
    assert bucket.wait_s("t", "limited", 1, now=0.0) == pytest.approx(0.1)
    assert bucket.wait_s("t", "limited", 1, now=0.1) == pytest.approx(0.0)
    assert bucket.wait_s("t", "limited", 50, now=1.0) == pytest.approx(4.0)
    assert bucket.wait_s("t", "limited", 100, now=1_000.0) == 0.0
    assert bucket.wait_s("t", "limited", 101, now=10.0) == 0.0


def test_exactly_the_tokens_and_one_more() -> None:
    """A batch passes with exactly its tokens and waits for the one that is missing."""
    bucket = limiter()
    bucket.take("t", "limited", 40, now=0.0)
    assert bucket.wait_s("t", "limited", 60, now=0.0) == 0.0
    assert bucket.wait_s("t", "limited", 61, now=0.0) == pytest.approx(0.1)


def test_pending_counts() -> None:
    """Events decided but not committed count against the next decision."""
    bucket = limiter()
    assert bucket.wait_s("t", "limited", 60, now=0.0, pending=40) == 0.0
    assert bucket.wait_s("t", "limited", 61, now=0.0, pending=40) == pytest.approx(0.1)


def test_larger_than_the_bucket() -> None:
    """A batch above the burst passes a full bucket, leaves it in debt, and is not refused for ever."""
    bucket = limiter()
    assert bucket.wait_s("t", "limited", 150, now=0.0) == 0.0
    bucket.take("t", "limited", 150, now=0.0)
    assert bucket.wait_s("t", "limited", 1, now=0.0) == pytest.approx(5.1)


def test_topics_are_apart_and_some_are_free() -> None:
    """One topic's flood says nothing about another; classes without a rate leave no state."""
    bucket = limiter()
    bucket.take("t", "limited", 100, now=0.0)
    assert bucket.wait_s("u", "limited", 100, now=0.0) == 0.0
    bucket.take("v", "free", 10_000, now=0.0)
    assert bucket.wait_s("v", "free", 10_000, now=0.0) == 0.0
    assert bucket.topic_count == 1


def test_time_that_goes_back_gives_nothing() -> None:
    """A clock that is set back neither gives tokens nor takes any."""
    bucket = limiter()
    bucket.take("t", "limited", 100, now=10.0)
    assert bucket.wait_s("t", "limited", 1, now=5.0) == pytest.approx(0.1)


def test_full_buckets_are_forgotten() -> None:
    """No state stays behind for topics that are idle: a missing bucket is a full one."""
    bucket = limiter()
    for number in range(2_000):
        bucket.take(f"t{number}", "limited", 1, now=float(number))
    assert bucket.topic_count < 1_025
    bucket.forget_full(now=1e6)
    assert bucket.topic_count == 0


def test_other_rates_after_a_reload() -> None:
    """What differs is said, and topics begin anew; the same rates change nothing."""
    buckets = limiter(per_s=10.0, burst=10.0)
    buckets.take("t", "limited", 10, now=0.0)
    assert buckets.replace_rates({"limited": Rate(10.0, 10.0)}) == []
    assert buckets.wait_s("t", "limited", 1, now=0.0) > 0
    assert buckets.replace_rates({"limited": Rate(1.0, 5.0), "new": Rate(2.0, 2.0)}) == [
        ("limited", 10.0, 1.0),
        ("new", 0.0, 2.0),
    ]
    assert buckets.rate_text("limited") == "1"
    assert buckets.wait_s("t", "limited", 5, now=0.0) == 0
    buckets.take("t", "limited", 5, now=0.0)
    assert buckets.wait_s("t", "limited", 1, now=0.0) == 1.0
    assert buckets.replace_rates({}) == [("limited", 1.0, 0.0), ("new", 2.0, 0.0)]
    assert (buckets.wait_s("t", "limited", 1_000, now=0.0), buckets.rate_text("limited")) == (0.0, "0")


@pytest.mark.parametrize(
    ("per_s", "text"), [(240.0, "240"), (0.5, "0.5"), (2e6, "2000000"), (0.00001, "0.00001")]
)
def test_a_rate_is_written_without_an_exponent(per_s: float, text: str) -> None:
    """As a limit's value it goes to the audit log, which takes digits and a point."""
    assert limiter(per_s=per_s, burst=1.0).rate_text("limited") == text
