"""Instruments of one service."""

import pytest

from khala_service.metrics import MetricsRegistry


def test_instruments_are_rendered() -> None:
    """What is registered appears at /metrics, with its documentation."""
    metrics = MetricsRegistry("runtime", process_metrics=False)
    metrics.counter("khala_things_total", "Things.", ("kind",)).labels("a").inc(2)
    metrics.gauge("khala_level", "Level.").set(3)
    metrics.gauge_of("khala_read", "Read at scrape.", lambda: 4.0)
    metrics.histogram("khala_wait_seconds", "Wait.", buckets=(1.0,)).observe(0.5)
    text = metrics.render().decode()
    assert "# HELP khala_things_total Things." in text
    assert 'khala_things_total{kind="a"} 2.0' in text
    assert "khala_level 3.0" in text
    assert "khala_read 4.0" in text
    assert 'khala_wait_seconds_bucket{le="1.0"} 1.0' in text
    assert metrics.sample("khala_things_total", {"kind": "a"}) == 2
    assert metrics.sample("khala_things_total", {"kind": "b"}) is None


def test_services_in_one_process_do_not_share() -> None:
    """`khala up` runs three services; each has its own series."""
    one, two = MetricsRegistry("runtime"), MetricsRegistry("control")
    one.counter("khala_things_total", "Things.").inc()
    two.counter("khala_things_total", "Things.")
    assert one.sample("khala_things_total") == 1
    assert two.sample("khala_things_total") == 0
    assert b"process_cpu_seconds_total" in one.render()


def test_a_name_is_registered_once() -> None:
    """A second registration would split one series silently."""
    metrics = MetricsRegistry("runtime", process_metrics=False)
    metrics.gauge("khala_level", "Level.")
    with pytest.raises(ValueError, match="Duplicated"):
        metrics.gauge("khala_level", "Level.")
