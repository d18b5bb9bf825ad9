"""What projectors report at /metrics; explained in runbooks/metrics.md and runbooks/projections.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from runtime.ports import PROJECTION_FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala_service.metrics import MetricsRegistry
    from runtime.core.projection_queue import ProjectionQueue

__all__ = ["PrometheusProjectionMetrics"]

_PREFIX: Final = "khala_runtime_projection"


class PrometheusProjectionMetrics:
    """ProjectionMetrics on Prometheus."""

    def __init__(self, registry: MetricsRegistry, *, queue_of: Callable[[], ProjectionQueue]) -> None:
        """Register everything; the gauges look at the queue at each scrape."""
        self._events = registry.counter(f"{_PREFIX}_events_total", "Events applied to the read model.")
        self._summaries = registry.counter(f"{_PREFIX}_summaries_total", "Summary frames written.")
        self._failures = registry.counter(
            f"{_PREFIX}_failures_total",
            "Steps that were not committed, by reason.",
            ("reason",),
            known=PROJECTION_FAILURES,
        )
        self._duration = registry.histogram(
            f"{_PREFIX}_duration_seconds", "One step, from its first lock to the answer to COMMIT."
        )
        gauge = registry.gauge_of
        gauge(
            f"{_PREFIX}_queue_sources",
            "Runs that wait for a step; not those set aside.",
            lambda: len(queue_of()),
        )
        gauge(
            f"{_PREFIX}_events_behind",
            "Events that wait to be applied; not those of runs set aside.",
            lambda: queue_of().events_behind,
        )
        gauge(
            f"{_PREFIX}_lag_seconds",
            "Age of the oldest event that waits to be applied; not of runs set aside.",
            lambda: queue_of().seconds_behind(trio.current_time()),
        )
        gauge(
            f"{_PREFIX}_set_aside",
            "Runs that failed alone and wait for another try.",
            lambda: queue_of().set_aside_count,
        )

    def applied(self, *, events: int, summaries: int, duration_s: float) -> None:
        """Count one step."""
        self._events.inc(events)
        self._summaries.inc(summaries)
        self._duration.observe(duration_s)

    def failed(self, reason: str) -> None:
        """Count one step that was not committed."""
        self._failures.labels(reason).inc()
