from __future__ import annotations

import random

import attrs
import pytest

from khala_client.core.backoff import Backoff, BackoffLimits


@attrs.frozen
class Fixed:
    """An rng that always draws the same."""

    value: float

    def random(self) -> float:
        """Return the value."""
        return self.value


def test_ceilings_double_from_250_ms_to_30_s() -> None:
    """SPEC section 6: 250 ms doubling to 30 s."""
    backoff = Backoff()
    ceilings = []
    for _ in range(10):
        ceilings.append(backoff.ceiling_s())
        backoff.next_delay_s(Fixed(0.0))
    assert ceilings == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_full_jitter_draws_from_zero_to_the_ceiling() -> None:
    """The delay is the draw times the ceiling; 1,000 clients do not meet."""
    assert Backoff().next_delay_s(Fixed(0.0)) == 0
    assert Backoff().next_delay_s(Fixed(0.5)) == 0.125
    rng = random.Random(1)
    delays = []
    for _ in range(1_000):
        backoff = Backoff()
        for _ in range(6):
            delay_s = backoff.next_delay_s(rng)
        delays.append(delay_s)
    bins = [sum(1 for delay_s in delays if index <= delay_s < index + 1) for index in range(8)]
    assert max(bins) <= 0.15 * len(delays) + 30


def test_the_servers_return_time_replaces_the_draw() -> None:
    """retry_after_ms is exact, counts as a failure, and is bounded by 15 minutes."""
    backoff = Backoff()
    assert backoff.next_delay_s(Fixed(0.9), retry_after_ms=1_234) == 1.234
    assert backoff.failures == 1
    assert backoff.next_delay_s(Fixed(0.9), retry_after_ms=2**32 - 1) == 900


@pytest.mark.parametrize(("lasted_s", "ceiling_s"), [(59.9, 1.0), (60.0, 0.25)])
def test_only_a_stable_minute_forgives(lasted_s: float, ceiling_s: float) -> None:
    """Reset after 60 s stable, and not before."""
    backoff = Backoff()
    backoff.next_delay_s(Fixed(0.0))
    backoff.next_delay_s(Fixed(0.0))
    backoff.begin(100.0)
    backoff.end(100.0 + lasted_s)
    assert backoff.ceiling_s() == ceiling_s


def test_an_end_without_a_beginning_forgives_nothing() -> None:
    """A connection that never got its welcome was not stable, however long it took."""
    backoff = Backoff(BackoffLimits(first_s=1, ceiling_s=8, stable_after_s=1))
    backoff.next_delay_s(Fixed(0.0))
    backoff.end(1e9)
    assert backoff.ceiling_s() == 2


def test_thousands_of_failures_stay_at_the_ceiling() -> None:
    """The power stays finite."""
    backoff = Backoff()
    backoff.failures = 1_000_000
    assert backoff.next_delay_s(Fixed(0.5)) == 15
