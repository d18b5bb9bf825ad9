"""Counters of the control service at /metrics. Implements `ports.Meters`.

Labels are actions, reason codes and outcomes: closed sets, never an id or a topic.
"""

from collections.abc import Sequence

from control.core.audit import Action
from control.core.redemptions import RedeemOutcome
from khala_service.metrics import MetricsRegistry


class PrometheusMeters:
    """The service's own instruments; request and pool metrics come with the HTTP edge and the pool."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._done = registry.counter(
            "khala_control_actions_total",
            "Things done: sign-ins, refreshes, keys made and revoked, sync tokens minted.",
            ("action",),
        )
        self._refusals = registry.counter(
            "khala_control_refusals_total", "Refused requests.", ("action", "code")
        )
        self._suppressed = registry.counter(
            "khala_control_audit_suppressed_total",
            "Refusals that exceeded the ration of audit rows and were only counted.",
        )
        self._redemptions = registry.counter(
            "khala_control_redemptions_total", "Sync tokens presented by nodes.", ("outcome",)
        )
        self._swept = registry.counter(
            "khala_control_swept_rows_total", "Redemption records and ended sessions removed."
        )

    def count_done(self, action: Action) -> None:
        """Count one thing that was done."""
        self._done.labels(action.value).inc()

    def count_refusal(self, action: Action, code: str) -> None:
        """Count one refusal."""
        self._refusals.labels(action.value, code).inc()

    def count_suppressed(self) -> None:
        """Count one refusal without a row of its own."""
        self._suppressed.inc()

    def count_redemptions(self, outcomes: Sequence[RedeemOutcome]) -> None:
        """Count the outcomes of one batch."""
        for outcome in outcomes:
            self._redemptions.labels(outcome.value).inc()

    def count_swept(self, rows: int) -> None:
        """Count rows that were removed."""
        self._swept.inc(rows)
