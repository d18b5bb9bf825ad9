"""One registry of metrics per service; scraped at /metrics.

Label values come from closed sets only (topic classes, routes, reason codes): the number of series
is bounded by the code, never by the traffic. A series of a closed set exists from the start, at 0:
what has never happened can then be told from what nobody counts. Every name is explained in
runbooks/metrics.md, which a test compares with running services.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from typing import Final

import trio
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from khala_service import failpoints, reloading

METRICS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# Seconds. From a cached read (1 ms) to the longest time-out of a request (30 s).
DURATION_BUCKETS_S: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)


# Each counter and histogram would show the time at which it was made as a second metric.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations


class ProcessStateCollector:
    """What every process says of itself: its version, and what was armed to break it."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._version = read_version()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by the registry at a scrape."""
        build = GaugeMetricFamily(
            "khala_build_info", "1; the labels say what runs here.", labels=["service", "version"]
        )
        build.add_metric([self._service, self._version], 1)
        yield build
        hits = CounterMetricFamily(
            "khala_failpoint_hits", "Passes of failpoints that were armed at least once.", labels=["name"]
        )
        counts = failpoints.hits()
        for name in failpoints.FAILPOINTS:
            hits.add_metric([name], counts.get(name, 0))
        yield hits
        reloads = CounterMetricFamily(
            "khala_config_reloads",
            "Parts of the configuration that were read again; refused: what was in force stayed.",
            labels=["outcome"],
        )
        for outcome in reloading.OUTCOMES:
            reloads.add_metric([outcome], reloading.outcomes()[outcome])
        yield reloads
        yield GaugeMetricFamily("khala_tasks", "Tasks that live in this process.", value=_living_tasks())
        yield GaugeMetricFamily(
            "khala_failpoints_armed",
            "Failpoints that will still act; 0 wherever it matters.",
            value=sum(map(failpoints.is_armed, failpoints.FAILPOINTS)),
        )


def _living_tasks() -> int:
    try:
        return trio.lowlevel.current_statistics().tasks_living
    except RuntimeError:
        # Nothing runs yet: the registry asks for the names when it is made.
        return 0


def read_version() -> str:
    """Return the version of the installed distribution, ``source`` if there is none."""
    try:
        return metadata.version("khala")
    except metadata.PackageNotFoundError:
        return "source"


class MetricsRegistry:
    """Makes the instruments of one service and renders them.

    A name can be registered once; a second registration is a programming error and raises
    ``ValueError``.
    """

    def __init__(self, service: str, *, process_metrics: bool = True) -> None:
        self.service = service
        self._registry = CollectorRegistry(auto_describe=True)
        if process_metrics:
            ProcessCollector(registry=self._registry)
            self.register(ProcessStateCollector(service))

    def counter(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        known: Iterable[str | tuple[str, ...]] = (),
    ) -> Counter:
        """Register a counter; `name` ends in ``_total``.

        Args:
            name: Prefix of the service and what is counted.
            documentation: One line.
            labels: Names of the labels.
            known: Values of the labels that exist from the start; all of them, if the set is closed.
        """
        counter = Counter(name, documentation, labels, registry=self._registry)
        for values in known:
            counter.labels(*((values,) if isinstance(values, str) else values))
        return counter

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
        """Register a gauge."""
        return Gauge(name, documentation, labels, registry=self._registry)

    def gauge_of(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Register a gauge whose value is read at each scrape; `read` must not block or raise."""
        self.gauge(name, documentation).set_function(read)

    def histogram(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] = DURATION_BUCKETS_S,
    ) -> Histogram:
        """Register a histogram; durations are in seconds and `name` says so."""
        return Histogram(name, documentation, labels, buckets=buckets, registry=self._registry)

    def register(self, collector: Collector) -> None:
        """Add series that are collected at each scrape; `collect` must not block or raise."""
        self._registry.register(collector)

    def sample(self, name: str, labels: dict[str, str] | None = None) -> float | None:
        """Return the current value of one series, None if it does not exist."""
        return self._registry.get_sample_value(name, labels or {})

    def render(self) -> bytes:
        """Return every series in the text format of Prometheus."""
        return generate_latest(self._registry)
