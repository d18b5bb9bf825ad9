"""What the runtime reports at /metrics. Labels are topic classes and reason codes, never topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala_service.metrics import MetricsRegistry

__all__ = ["RuntimeMetrics"]

# Events: from one request alone to a full batch and the one request that may be larger.
_BATCH_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class RuntimeMetrics:
    """AppendMetrics on Prometheus."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._registry = registry
        self._commits = registry.counter("khala_runtime_commits_total", "Transactions committed.")
        self._requests = registry.counter("khala_runtime_requests_total", "Requests decided in transactions.")
        self._events = registry.counter("khala_runtime_events_total", "Events committed.")
        self._duplicates = registry.counter(
            "khala_runtime_duplicates_total", "Requests answered from an earlier one with the same key."
        )
        self._batch_events = registry.histogram(
            "khala_runtime_batch_events", "Events of one transaction.", buckets=_BATCH_BUCKETS
        )
        self._commit_duration = registry.histogram(
            "khala_runtime_commit_duration_seconds", "From the first lock to the answer to COMMIT."
        )
        self._refused = registry.counter(
            "khala_runtime_refused_total", "Requests refused, by reason code.", ("code",)
        )
        self._retried = registry.counter(
            "khala_runtime_commit_retries_total", "Transactions that did not commit, by reason.", ("reason",)
        )
        self._copies_dropped = registry.counter(
            "khala_runtime_copies_dropped_total", "Copies for nodes that were replaced by a hint or lost."
        )

    def committed(self, *, requests: int, events: int, duplicates: int, duration_s: float) -> None:
        """Count one batch that was decided, and committed if it had anything to write."""
        self._requests.inc(requests)
        self._duplicates.inc(duplicates)
        if events:
            self._commits.inc()
            self._events.inc(events)
            self._batch_events.observe(events)
            self._commit_duration.observe(duration_s)

    def refused(self, reason: str) -> None:
        """Count one refused request by reason code."""
        self._refused.labels(reason).inc()

    def retried(self, reason: str) -> None:
        """Count one transaction that did not commit."""
        self._retried.labels(reason).inc()

    def copies_dropped(self, count: int) -> None:
        """Count copies that the relay replaced by a hint."""
        self._copies_dropped.inc(count)

    def watch(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Register a gauge that is read at each scrape."""
        self._registry.gauge_of(name, documentation, read)
