"""Counters of the control service at /metrics. Implements `ports.Meters`.

Labels are actions, reason codes and outcomes: closed sets, never an id or a topic.
"""

from collections.abc import Callable, Sequence
from typing import Final

from control.actors.revocation_hints import HINT_FAILED, HINTED
from control.core.audit import Action
from control.core.node_audit import ACTIONS
from control.core.redemptions import RedeemOutcome
from khala_service.metrics import MetricsRegistry

# Kinds of tasks of control that are started again after a crash.
TASK_KINDS: Final = ("sweeper", "revocation_hints")


class PrometheusMeters:
    """The service's own instruments; request and pool metrics come with the HTTP edge and the pool."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._done = registry.counter(
            "khala_control_actions_total",
            "Things done: sign-ins, refreshes, keys made and revoked, sync tokens minted.",
            ("action",),
            known=[action.value for action in Action],
        )
        self._refusals = registry.counter(
            "khala_control_refusals_total", "Refused requests.", ("action", "code")
        )
        self._suppressed = registry.counter(
            "khala_control_audit_suppressed_total",
            "Refusals that exceeded the ration of audit rows and were only counted.",
        )
        self._node_rows = registry.counter(
            "khala_control_node_audit_rows_total",
            "Rows of the audit log that nodes sent, by action.",
            ("action",),
            known=[*(action.value for action in ACTIONS.values()), Action.NODE_UNWRITTEN.value],
        )
        self._redemptions = registry.counter(
            "khala_control_redemptions_total",
            "Sync tokens presented by nodes.",
            ("outcome",),
            known=[outcome.value for outcome in RedeemOutcome],
        )
        self._swept = registry.counter(
            "khala_control_swept_rows_total", "Redemption records and ended sessions removed."
        )
        self._restarts = registry.counter(
            "khala_task_restarts_total", "Contained crashes, by kind of task.", ("kind",), known=TASK_KINDS
        )
        self._hints = registry.counter(
            "khala_control_revocation_hints_total",
            "Attempts to tell nodes that the log of revocations has grown.",
            ("outcome",),
            known=(HINTED, HINT_FAILED),
        )
        self._registry = registry

    def count_done(self, action: Action) -> None:
        """Count one thing that was done."""
        self._done.labels(action.value).inc()

    def count_refusal(self, action: Action, code: str) -> None:
        """Count one refusal."""
        self._refusals.labels(action.value, code).inc()

    def count_suppressed(self) -> None:
        """Count one refusal without a row of its own."""
        self._suppressed.inc()

    def count_node_audit(self, actions: Sequence[Action]) -> None:
        """Count rows that a node's batch has made."""
        for action in actions:
            self._node_rows.labels(action.value).inc()

    def count_redemptions(self, outcomes: Sequence[RedeemOutcome]) -> None:
        """Count the outcomes of one batch."""
        for outcome in outcomes:
            self._redemptions.labels(outcome.value).inc()

    def count_restart(self, kind: str) -> None:
        """Count one contained crash of a task; its kind is one of TASK_KINDS."""
        self._restarts.labels(kind).inc()

    def count_hint(self, outcome: str) -> None:
        """Count one hint of revocations: HINTED or HINT_FAILED."""
        self._hints.labels(outcome).inc()

    def watch_audit_backlog(self, read: Callable[[], int]) -> None:
        """Show how many refusals wait for their summary row; read at each scrape."""
        self._registry.gauge_of(
            "khala_control_audit_backlog", "Refusals counted and not written to the audit log yet.", read
        )

    def count_swept(self, rows: int) -> None:
        """Count rows that were removed."""
        self._swept.inc(rows)
