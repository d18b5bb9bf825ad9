"""Instruments of one service."""

from collections.abc import Iterator

import pytest

from khala_service import failpoints
from khala_service.metrics import MetricsRegistry, read_version


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


def test_a_closed_set_is_there_before_anything_happened() -> None:
    """What never happened is 0, not absent; there is no second series for the time of creation."""
    metrics = MetricsRegistry("runtime", process_metrics=False)
    metrics.counter("khala_ends_total", "Ends.", ("reason",), known=("good", "bad"))
    metrics.counter("khala_pairs_total", "Pairs.", ("a", "b"), known=[("1", "2")])
    lines = [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]
    assert lines == [
        'khala_ends_total{reason="good"} 0.0',
        'khala_ends_total{reason="bad"} 0.0',
        'khala_pairs_total{a="1",b="2"} 0.0',
    ]


@pytest.fixture
def disarmed() -> Iterator[None]:
    """Leave no point armed."""
    yield
    failpoints.disarm()


@pytest.mark.usefixtures("disarmed")
def test_a_process_says_what_it_is_and_what_is_armed() -> None:
    """Version and service; every failpoint with its passes, and how many will still act."""
    metrics = MetricsRegistry("runtime")
    name = "runtime.before_commit"
    assert metrics.sample("khala_build_info", {"service": "runtime", "version": read_version()}) == 1
    assert metrics.sample("khala_failpoints_armed") == 0
    assert metrics.sample("khala_failpoint_hits_total", {"name": name}) == 0
    failpoints.arm(f"{name}=raise@2")
    assert metrics.sample("khala_failpoints_armed") == 1
    failpoints.hit(name)
    with pytest.raises(failpoints.FailpointError):
        failpoints.hit(name)
    failpoints.hit(name)
    assert metrics.sample("khala_failpoint_hits_total", {"name": name}) == 3
    assert metrics.sample("khala_failpoints_armed") == 0
