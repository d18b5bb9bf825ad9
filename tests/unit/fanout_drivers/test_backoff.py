"""How long a driver waits between attempts: full jitter, two caps, reset only by a stable connection."""

from __future__ import annotations

import random
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from fanout_drivers.backoff import FIRST_S, LONG_MIN_S, PATIENCE_S, SHORT_CAP_S, STABLE_S, Backoff

if TYPE_CHECKING:
    from collections.abc import Callable


def known_from_the_start(rng: Callable[[], float]) -> Backoff:
    """Return the waits of a connection that was made and lost at time 0."""
    backoff = Backoff(rng, 0.0)
    backoff.connected(0.0)
    backoff.lost(0.0)
    return backoff


def latest() -> float:
    """Return the largest draw of a jitter."""
    return 1.0


def test_it_doubles_up_to_the_short_cap() -> None:
    """With the largest draw: 0.1, 0.2, 0.4 ... 4, 4."""
    backoff = Backoff(latest, 0.0)
    delays = [backoff.next_delay_s(0.0) for _ in range(9)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0, 4.0])
    assert delays[0] == FIRST_S
    assert delays[-1] == SHORT_CAP_S


def test_the_jitter_is_full() -> None:
    """A draw of nothing waits nothing; nodes that lost a broker together come back apart."""
    backoff = Backoff(lambda: 0.0, 0.0)
    assert [backoff.next_delay_s(0.0) for _ in range(5)] == [0.0] * 5
    rng = random.Random(1)
    draws = {round(Backoff(rng.random, 0.0).next_delay_s(0.0), 6) for _ in range(100)}
    assert len(draws) > 90


@pytest.mark.parametrize(("now", "is_long"), [(PATIENCE_S - 0.001, False), (PATIENCE_S, True)])
def test_the_edge_of_patience(now: float, is_long: bool) -> None:
    """From PATIENCE_S without a connection on, attempts are at least LONG_MIN_S apart, whatever is drawn."""
    for draw in (0.0, 0.5, 1.0):
        backoff = known_from_the_start(partial(float, draw))
        for _ in range(20):
            backoff.next_delay_s(1.0)
        delay = backoff.next_delay_s(now)
        assert (LONG_MIN_S <= delay <= 2 * LONG_MIN_S) is is_long
        assert is_long or delay <= SHORT_CAP_S


@pytest.mark.parametrize("seed", range(20))
def test_ten_minutes_of_refusal(seed: int) -> None:
    """FD-04: after two minutes at most one attempt in any 30 s; a minute's outage ends within 5 s."""
    rng = random.Random(seed)
    backoff = known_from_the_start(rng.random)
    now, attempts = 0.0, []
    while now < 600:
        attempts.append(now)
        now += backoff.next_delay_s(now)
    late = [at for at in attempts if at >= PATIENCE_S + SHORT_CAP_S]
    assert all(b - a >= 30.0 for a, b in pairwise(late))
    assert 7 <= len(late) <= 17
    assert min(at for at in attempts if at >= 60.0) < 60.0 + 5.0


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
def test_the_first_connection_is_awaited_with_short_waits(draw: float) -> None:
    """KH-41: somebody waits for it to become ready: however long it takes, attempts stay 4 s apart."""
    backoff = Backoff(partial(float, draw), 0.0)
    for now in range(0, 3_600, 4):
        assert backoff.next_delay_s(float(now)) <= SHORT_CAP_S
    backoff.connected(3_600.0)
    backoff.lost(3_601.0)
    # The wait for the first connection is no outage: the patience begins now.
    assert backoff.next_delay_s(3_601.0 + PATIENCE_S - 0.001) <= SHORT_CAP_S
    assert backoff.next_delay_s(3_601.0 + PATIENCE_S) >= LONG_MIN_S


@pytest.mark.parametrize(("held_s", "is_reset"), [(STABLE_S - 0.001, False), (STABLE_S, True)])
def test_only_a_stable_connection_starts_it_anew(held_s: float, is_reset: bool) -> None:
    """A broker that accepts and drops is not hammered: the waits go on where they were."""
    backoff = Backoff(latest, 0.0)
    for _ in range(5):
        backoff.next_delay_s(0.0)
    backoff.connected(10.0)
    backoff.lost(10.0 + held_s)
    assert backoff.next_delay_s(10.0 + held_s) == pytest.approx(FIRST_S if is_reset else 3.2)


def test_time_with_a_connection_is_no_time_away() -> None:
    """Only what was spent without counts towards patience, over unstable connections together."""
    backoff = known_from_the_start(latest)
    now = 0.0
    for _ in range(5):
        now += 20.0
        backoff.connected(now)
        now += 50.0
        backoff.lost(now)
    assert backoff.next_delay_s(now + 19.9) <= SHORT_CAP_S
    assert backoff.next_delay_s(now + 20.0) >= LONG_MIN_S
