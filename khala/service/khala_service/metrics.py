"""One registry of metrics per service; scraped at /metrics.

Label values come from closed sets only (topic classes, routes, reason codes): the number of series
is bounded by the code, never by the traffic.
"""

from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

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

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
        """Register a counter; `name` ends in ``_total``."""
        return Counter(name, documentation, labels, registry=self._registry)

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
