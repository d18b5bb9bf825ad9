"""Unit tests of runtime.core.fanout_trend: halves, what is covered, fairness by the minute, and bounded memory."""

from __future__ import annotations

import pytest

from runtime.core.fanout_trend import BUCKET_S, KEPT_S, FanoutChanges, FanoutTrendLog
from runtime.core.node_reports import FanoutFigures

UNJUDGED = FanoutFigures()


def noted(*times: float) -> FanoutTrendLog:
    """Return a log with one release at each time."""
    log = FanoutTrendLog()
    for now in times:
        log.note(FanoutChanges(release=1), UNJUDGED, now)
    return log


def test_nothing_is_covered_before_the_first_note() -> None:
    """A window over nothing is fair and flat, and says that it covers nothing."""
    trend = FanoutTrendLog().trend(600, 1_000.0)
    assert (trend.covered_s, trend.fairness_min, trend.before.release, trend.after.release) == (0, 1.0, 0, 0)


def test_halves_of_what_is_covered() -> None:
    """100 s after the first note the halves are 50 s each, although 600 s were asked for."""
    trend = noted(0.0, 10.0, 40.0, 60.0, 95.0).trend(600, 100.0)
    assert (trend.covered_s, trend.before.release, trend.after.release) == (100, 3, 2)


def test_the_window_ends_somewhere() -> None:
    """What is older than the window is not counted."""
    trend = noted(0.0, 890.0, 910.0, 990.0).trend(100, 1_000.0)
    assert (trend.covered_s, trend.before.release, trend.after.release) == (100, 1, 1)


def test_growth_of_a_report() -> None:
    """Differences, none below zero, and everything of a process without a report before."""
    before, after = FanoutFigures(release=3, evictions=9), FanoutFigures(release=5, evictions=2)
    assert FanoutChanges.between(before, after) == FanoutChanges(release=2, evictions=0)
    assert FanoutChanges.between(None, after) == FanoutChanges(release=5, evictions=2)


def test_one_bad_minute_is_not_hidden_by_nine_good_ones() -> None:
    """The index of all is 0.95, that of the minute in which half got nothing is 0.5."""
    log = FanoutTrendLog()
    for minute in range(10):
        is_bad = minute == 4
        served = 5 if is_bad else 10
        figures = FanoutFigures(judged=10, fairness_sum=served, fairness_squares=served)
        log.note(FanoutChanges(), figures, minute * 60.0 + 1)
    trend = log.trend(600, 600.0)
    assert trend.fairness == pytest.approx(0.95)
    assert trend.fairness_min == pytest.approx(0.5)


def test_memory_is_bounded() -> None:
    """An hour of buckets, however long it runs and however many reports come in each."""
    log = FanoutTrendLog()
    for number in range(3 * KEPT_S // BUCKET_S):
        for _ in range(3):
            log.note(FanoutChanges(release=1), UNJUDGED, number * float(BUCKET_S))
    assert len(log._buckets) == KEPT_S // BUCKET_S
    trend = log.trend(KEPT_S, 3.0 * KEPT_S - BUCKET_S)
    assert trend.covered_s == KEPT_S
    assert trend.before.release + trend.after.release == 3 * KEPT_S // BUCKET_S
