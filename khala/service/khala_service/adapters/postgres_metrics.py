"""Shows the pools of a service at /metrics, and how far its clock is from the database's."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from khala_service.adapters.postgres import PostgresPool
from khala_service.metrics import MetricsRegistry

__all__ = ["PoolCollector", "watch_pools"]

_Read = Callable[[PostgresPool], float]

_GAUGES: Final[Mapping[str, tuple[str, _Read]]] = {
    "khala_database_connections": ("Open connections of the pool.", lambda pool: pool.size()),
    "khala_database_connections_max": (
        "Most connections that the pool may open.",
        lambda pool: pool.max_size(),
    ),
    "khala_database_connections_in_use": (
        "Connections of the pool that a query or transaction holds.",
        lambda pool: pool.size() - pool.idle_size(),
    ),
    "khala_database_waiting": ("Who waits for a connection of the pool.", lambda pool: pool.use.waiting),
}
_COUNTERS: Final[Mapping[str, tuple[str, _Read]]] = {
    "khala_database_acquires": ("Connections asked for.", lambda pool: pool.use.acquires),
    "khala_database_acquire_failures": (
        "Connections asked for that could not be had in time.",
        lambda pool: pool.use.failures,
    ),
    "khala_database_wait_seconds": ("Time spent waiting for connections.", lambda pool: pool.use.wait_s),
}


class PoolCollector:
    """Collects the use of some pools, each under its name."""

    def __init__(self, pools: Mapping[str, PostgresPool]) -> None:
        self._pools = pools

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by the registry at a scrape."""
        for name, (text, read) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=["pool"])
            for label, pool in self._pools.items():
                gauge.add_metric([label], read(pool))
            yield gauge
        for name, (text, read) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=["pool"])
            for label, pool in self._pools.items():
                counter.add_metric([label], read(pool))
            yield counter
        skews = [pool.use.clock_skew_s for pool in self._pools.values()]
        yield GaugeMetricFamily(
            "khala_clock_skew_seconds",
            "This machine's clock minus the database's, when readiness was asked last.",
            value=max(skews, key=abs, default=0.0),
        )


def watch_pools(metrics: MetricsRegistry, pools: Mapping[str, PostgresPool]) -> None:
    """Register the metrics of all pools of a service; call once."""
    metrics.register(PoolCollector(pools))
