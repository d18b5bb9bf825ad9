"""Turns of a leaving node's clients: never more a second than the others admit, and all of them in time."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khala.core.departures import Departure, plan_departures
from khala.core.limits import NodeLimits

LIMITS = NodeLimits(drain_return_per_s=200.0, drain_timeout_s=30.0, close_timeout_s=2.0)


@given(count=st.integers(0, 3_000), rate=st.floats(1, 1_000), seed=st.integers(0, 100))
def test_no_second_holds_more_than_the_rate(count: int, rate: float, seed: int) -> None:
    """KH-10: in any second as many return as the rate says, and one or two whose slots it cuts; in count / rate all have."""
    limits = NodeLimits(drain_return_per_s=rate)
    turns = plan_departures(count, limits=limits, now=1_000.0, rng=Random(seed))
    times = [turn.returns_at for turn in turns]
    assert len(turns) == count
    assert times == sorted(times)
    assert all(1_000.0 <= at < 1_000.0 + count / rate + 1e-6 for at in times)
    most = int(rate) + 2
    assert all(late - early >= 1.0 - 1e-6 for early, late in zip(times, times[most:], strict=False))


def test_turns_are_jittered() -> None:
    """Two nodes that leave at once do not send their clients in step."""
    one, other = (plan_departures(50, limits=LIMITS, now=0.0, rng=Random(seed)) for seed in (1, 2))
    assert len({turn.returns_at for turn in (*one, *other)}) == 100


def test_whose_turn_is_too_late_is_closed_before_the_end() -> None:
    """10,000 clients at 200 a second need 50 s: who comes after the last call is closed at it, and waits for its turn."""
    turns = plan_departures(10_000, limits=LIMITS, now=100.0, rng=Random(1))
    last = turns[-1]
    assert (last.closes_at, last.flushed_by) == (124.0, 126.0)
    assert 149.9 < last.returns_at < 150.0
    assert all(turn.closes_at == min(turn.returns_at, 124.0) for turn in turns)
    # Two steps before the end of the drain: the closing handshake, and what the node itself does last.
    assert all(turn.flushed_by + 2 * LIMITS.close_timeout_s <= 130.0 for turn in turns)


@pytest.mark.parametrize(("drain_timeout_s", "last_call_s", "flushed_s"), [(1.5, 0.6, 0.9), (0.0, 0.0, 0.0)])
def test_a_short_drain_has_its_steps_too(
    drain_timeout_s: float, last_call_s: float, flushed_s: float
) -> None:
    """`khala up` has 1.5 s: a part of it for turns, for the last frames, for the handshake, for itself."""
    limits = NodeLimits(drain_timeout_s=drain_timeout_s)
    (*_, last) = plan_departures(1_000, limits=limits, now=0.0, rng=Random(1))
    assert last.closes_at == pytest.approx(last_call_s)
    assert last.flushed_by == pytest.approx(flushed_s)


def test_milliseconds_are_never_negative() -> None:
    """Whose turn has passed is told 0: now."""
    turn = Departure(returns_at=10.0, closes_at=8.0, flushed_by=12.0)
    assert (turn.return_after_ms(7.5), turn.close_after_ms(7.5)) == (2_500, 500)
    assert (turn.return_after_ms(11.0), turn.close_after_ms(11.0)) == (0, 0)
