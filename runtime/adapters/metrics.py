"""What the runtime reports at /metrics. Labels are topic classes and reason codes, never topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from khala_contracts.reason_codes import REGISTRY
from khala_service.adapters.postgres_errors import UNAVAILABLE_REASONS

if TYPE_CHECKING:
    from khala_service.metrics import MetricsRegistry
    from runtime.actors.appender import Appender
    from runtime.actors.relay import Relay

__all__ = ["RuntimeMetrics"]

# Events: from one request alone to a full batch and the one request that may be larger.
_BATCH_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

_REFUSALS: Final = tuple(row.name for row in REGISTRY.values() if row.http_status is not None)
# Kinds of tasks of the runtime that are started again after a crash.
TASK_KINDS: Final = (
    "appender",
    "writer",
    "relay",
    "generation_watch",
    "key_cleaner",
    "limit_audit",
    "projector",
)


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
            "khala_runtime_refused_total", "Requests refused, by reason code.", ("code",), known=_REFUSALS
        )
        self._retried = registry.counter(
            "khala_runtime_commit_retries_total",
            "Transactions that did not commit, by reason.",
            ("reason",),
            known=("serialization", "commit_deadline", "internal_error", *sorted(UNAVAILABLE_REASONS)),
        )
        self._restarts = registry.counter(
            "khala_task_restarts_total", "Contained crashes, by kind of task.", ("kind",), known=TASK_KINDS
        )
        self._copies_dropped = registry.counter(
            "khala_runtime_copies_dropped_total", "Copies for nodes that were replaced by a hint or lost."
        )
        self._published = registry.counter(
            "khala_runtime_published_total",
            "Records that the driver took, by what they carry.",
            ("kind",),
            known=("copy", "hint"),
        )
        self._publish_duration = registry.histogram(
            "khala_runtime_publish_duration_seconds", "Handing one record to the driver."
        )
        self._publish_failures = registry.counter(
            "khala_runtime_publish_failures_total",
            "Records that the driver did not take, by reason.",
            ("reason",),
            known=("timeout", "unavailable"),
        )
        self._poison = registry.counter(
            "khala_runtime_relay_poison_total",
            "Attempts to publish that failed because of the news of one topic.",
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

    def published(self, *, is_copy: bool, duration_s: float) -> None:
        """Count one record that the driver took."""
        self._published.labels("copy" if is_copy else "hint").inc()
        self._publish_duration.observe(duration_s)

    def publish_failed(self, reason: str) -> None:
        """Count one record that the driver did not take."""
        self._publish_failures.labels(reason).inc()

    def poisoned(self) -> None:
        """Count one attempt that failed because of the news of one topic."""
        self._poison.inc()

    def task_restarted(self, kind: str) -> None:
        """Count one contained crash of a task; its kind is one of TASK_KINDS."""
        self._restarts.labels(kind).inc()

    def watch_queues(self, appender: Appender, relay: Relay) -> None:
        """Register what waits for a commit and for the driver; call once."""
        self._registry.gauge_of(
            "khala_runtime_inbox_requests", "Requests waiting for a commit.", lambda: appender.inbox_requests
        )
        self._registry.gauge_of(
            "khala_runtime_inbox_bytes", "Payload bytes waiting for a commit.", lambda: appender.inbox_bytes
        )
        self._registry.gauge_of(
            "khala_runtime_relay_bytes",
            "Bytes of copies waiting for the driver.",
            lambda: relay.waiting_bytes,
        )
        self._registry.gauge_of(
            "khala_runtime_relay_topics", "Topics with news that wait.", lambda: relay.waiting_topics
        )
        self._registry.gauge_of(
            "khala_runtime_relay_lag_seconds", "Age of the oldest news that waits.", lambda: relay.lag_s
        )
        self._registry.gauge_of(
            "khala_runtime_generation",
            "Generation that this process writes under; 0 before it has one.",
            lambda: appender.authority.generation if appender.authority else 0,
        )
