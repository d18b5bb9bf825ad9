"""Shows the node's counters to Prometheus; read at each scrape, never written on the way of a frame.

Names and meanings are explained in runbooks/metrics.md. Series of closed sets exist from the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from khala.core.counters import DURATION_BUCKETS_S, PEER_CLOSE_CODES, RATIO_BUCKETS
from khala.core.limits import VIOLATIONS
from khala.core.records import RecordDecision
from khala.core.slow_consumer import SlowConsumerAction
from khala_contracts.codec import StaleReason
from khala_contracts.reason_codes import REGISTRY
from khala_service.adapters.postgres_metrics import watch_pools
from khala_service.limit_metrics import LimitCollector

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from fanout_drivers.driver_watch import DriverWatch
    from khala.actors.access_audit import AccessAudit
    from khala.actors.evictions import Evictions
    from khala.actors.registry import TopicRegistry
    from khala.core.counters import DurationCounts, NodeCounters
    from khala.core.limits import NodeLimits
    from khala_service.adapters.postgres import PostgresPool
    from khala_service.metrics import MetricsRegistry

_PREFIX: Final = "khala_node_"
_CLASS: Final = "topic_class"
_VERSION: Final = "app_version"

# By field of NodeCounters.
TOTALS: Final = {
    "connections_accepted": "WebSocket connections accepted.",
    "go_aways": "Clients told to go, since the node leaves.",
    "bytes_pumped": "Bytes handed to sockets by the writers.",
    "records_forged": "Driver records whose MAC or topic did not hold.",
    "position_unknown": "Notices of drivers that something may have been missed.",
    "revocation_hints": "Hints of the driver that control's log of revocations has grown.",
    "heals": "Journal reads that closed a gap.",
    "pages_read": "Replay pages read from the journal.",
    "page_read_failures": "Replay page reads without an answer.",
    "observations_read": "Statements that read what subscribes see.",
    "resumes_unread": "Subscribes at a head that had not moved, answered without such a statement.",
    "rows_unreadable": "Journal rows met whose bytes are not their frame, counted each time.",
    "position_checks": "Position checks answered.",
    "position_check_failures": "Position checks without an answer.",
}
GAUGES: Final = {
    "connections_open": "WebSocket connections now.",
    "handshakes_open": "Connections that have not sent a valid hello yet.",
    "subscriptions_open": "Subscriptions now.",
    "topics_live": "Topics with a task now.",
}
_CLOSING_REASONS: Final = tuple(row.name for row in REGISTRY.values() if row.close_code is not None)
# Label, meaning, values that exist from the start.
LABELLED: Final[Mapping[str, tuple[str, str, Iterable[str]]]] = {
    "handshakes_rejected": (
        "status",
        "Upgrade requests refused, by HTTP status.",
        ("400", "403", "404", "429"),
    ),
    "hellos_refused": ("reason", "Hellos refused, by reason code.", _CLOSING_REASONS),
    "closes": (
        "reason",
        "Connections ended, by reason code (ours) or close code (the client's).",
        (*_CLOSING_REASONS, *map(str, sorted(PEER_CLOSE_CODES)), "other"),
    ),
    "evictions": (
        "what",
        "Connections and topics ended because control revoked what they stood on.",
        ("connection", "topic"),
    ),
    "audit_events": (
        "fate",
        "Decisions about access: told to the audit log, or only counted there, and why.",
        ("sent", "rationed", "no_room", "refused"),
    ),
    "reports": (
        "outcome",
        "Reports to the runtime's registry of nodes.",
        ("sent", "unavailable", "refused"),
    ),
    "subscribes": (
        "result",
        "Subscribes answered, by topic: served, stale, or a reason code.",
        ("served", "stale", "forbidden", "topic_invalid", "limit_exceeded", "unavailable"),
    ),
    "records": (
        "decision",
        "Driver records, by decision.",
        (*(decision.value for decision in RecordDecision), "overflow"),
    ),
}
# Kinds of tasks and pieces of work whose crashes are contained; see actors/supervision.py.
TASK_KINDS: Final = (
    "access_audit", "connection", "control_client", "frame", "linger", "node_reporter", "observations", "observer", "page_read",
    "position_check", "pump", "record", "revocation_feed", "start_gate", "sweep", "topic",
)  # fmt: skip
# By field of ClassCounters.
BY_CLASS: Final = {
    "joins": "Subscriptions that began.",
    "frames_appended": "Frames put into windows.",
    "bytes_appended": "Encoded bytes of frames put into windows.",
    "deliveries": "Ranges handed to connections.",
    "frames_dropped": "Frames that a living subscription was never given. Stays 0.",
}
# By field of VersionCounters; the gauge among them is below.
BY_VERSION: Final = {
    "welcomes": "Hellos that were welcomed.",
    "reconnects": "Connections whose first subscribe resumes with a cursor.",
}
# By field of DeliveryState.
DELIVERY: Final = {
    "pages_bytes": "Bytes of journal pages that subscriptions send from.",
    "outbound_bytes": "Bytes that wait for sockets: remainders and control lanes.",
    "outbound_bytes_max": "The largest of them on one connection.",
    "connections_blocked": "Connections with bytes that the kernel does not take.",
    "subscriptions_waiting_for_page": "Subscriptions that wait for a page of the journal.",
    "subscriptions_stuck": "Live subscriptions with frames to send that nobody sends.",
}
# By field of ClassDelivery: name at /metrics, meaning.
DELIVERY_BY_CLASS: Final = {
    "subscriptions": ("subscriptions_by_class", "Subscriptions now, by topic class."),
    "replaying": ("subscriptions_replaying", "Subscriptions before their replay_complete."),
    "replay_lag_frames": ("replay_lag_frames", "Frames that replays have still to send, in all."),
    "replay_lag_frames_max": ("replay_lag_frames_max", "The most of them for one subscription."),
    "replay_lag_bytes": ("replay_lag_bytes", "Encoded bytes that replays have still to send, in all."),
    "replay_age_max_s": ("replay_age_max_seconds", "Time since the oldest running replay began."),
    "live_lag_frames_max": ("live_lag_frames_max", "Frames that the last live subscription is behind."),
    "spread_frames_max": (
        "fairness_spread_frames",
        "Frames between the first and the last live subscriber of one topic, the largest.",
    ),
}


class NodeCollector:
    """Collects one node's counters, and gauges that are read when asked."""

    def __init__(self, counters: NodeCounters, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        """Show ``counters``, and each of ``gauges`` under its name, with its meaning."""
        self._counters = counters
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; called by the registry at a scrape."""
        counters = self._counters
        for name, text in TOTALS.items():
            yield CounterMetricFamily(_PREFIX + name, text, value=getattr(counters, name))
        for name, (label, text, known) in LABELLED.items():
            yield _labelled(_PREFIX + name, text, label, known, getattr(counters, name))
        yield _labelled(
            "khala_task_restarts",
            "Contained crashes, by kind of task.",
            "kind",
            TASK_KINDS,
            counters.task_restarts,
        )
        for name, text in GAUGES.items():
            yield GaugeMetricFamily(_PREFIX + name, text, value=getattr(counters, name))
        for name, (text, read) in self._gauges.items():
            yield GaugeMetricFamily(_PREFIX + name, text, value=read())
        evictions = HistogramMetricFamily(
            _PREFIX + "eviction_delay_seconds",
            "From the time of a revocation by control's clock to the end of a connection.",
        )
        delays = counters.eviction_delays
        evictions.add_metric([], list(_buckets_of(delays)), delays.sum_s)
        yield evictions
        yield self.slow_consumer_actions()
        yield self._replay_budgets_used()
        yield from self._collect_by_class()
        yield from self._collect_by_version()
        yield from self._collect_delivery()

    def slow_consumer_actions(self) -> Metric:
        """Return the actions against slow consumers, by action and tier."""
        counters = self._counters
        family = CounterMetricFamily(
            _PREFIX + "slow_consumer_actions", "Actions against slow consumers.", labels=["action", "tier"]
        )
        disconnect = SlowConsumerAction.DISCONNECT.value
        # A connection that takes nothing at all ends for all of its topics, whatever their tiers.
        without_tier = counters.slow_consumer_actions[disconnect]
        for tier, counts in counters.slow_topic_actions.items():
            for action in SlowConsumerAction:
                family.add_metric([action.value, tier], counts[action.value])
            without_tier -= counts[disconnect]
        family.add_metric([disconnect, "any"], without_tier)
        return family

    def _replay_budgets_used(self) -> Metric:
        family = HistogramMetricFamily(
            "khala_replay_budget_used_ratio",
            "What each subscribe needs of its replay budget; above 1 it was refused.",
            labels=["tier"],
        )
        for tier, used in self._counters.replay_budget_used.items():
            family.add_metric([tier], list(_cumulated(RATIO_BUCKETS, used.buckets)), used.sum)
        return family

    def _collect_by_class(self) -> Iterator[Metric]:
        by_class = self._counters.by_class
        for name, text in BY_CLASS.items():
            family = CounterMetricFamily(_PREFIX + name, text, labels=[_CLASS])
            for topic_class, counts in by_class.items():
                family.add_metric([topic_class], getattr(counts, name))
            yield family
        stale = CounterMetricFamily(_PREFIX + "stale_cursors", "Stale cursors.", labels=[_CLASS, "reason"])
        replays = HistogramMetricFamily(
            _PREFIX + "replay_duration_seconds",
            "From subscribed to replay_complete, where there were frames to replay.",
            labels=[_CLASS],
        )
        for topic_class, counts in by_class.items():
            for reason in StaleReason:
                stale.add_metric([topic_class, reason.value], counts.stale_cursors[reason.value])
            durations = counts.replay_durations
            replays.add_metric([topic_class], list(_buckets_of(durations)), durations.sum_s)
        yield stale
        yield replays

    def _collect_by_version(self) -> Iterator[Metric]:
        by_version = self._counters.by_version
        for name, text in BY_VERSION.items():
            family = CounterMetricFamily(_PREFIX + name, text, labels=[_VERSION])
            for version, counts in by_version.items():
                family.add_metric([version], getattr(counts, name))
            yield family
        clients = GaugeMetricFamily(_PREFIX + "clients_open", "Welcomed connections now.", labels=[_VERSION])
        for version, counts in by_version.items():
            clients.add_metric([version], counts.clients_open)
        yield clients

    def _collect_delivery(self) -> Iterator[Metric]:
        state = self._counters.delivery
        for name, text in DELIVERY.items():
            yield GaugeMetricFamily(_PREFIX + name, text, value=getattr(state, name))
        yield GaugeMetricFamily(
            _PREFIX + "write_stall_max_seconds",
            "Longest time for which bytes have waited and the kernel took none.",
            value=state.write_stall_max_s,
        )
        for field, (name, text) in DELIVERY_BY_CLASS.items():
            family = GaugeMetricFamily(_PREFIX + name, text, labels=[_CLASS])
            for topic_class, delivery in state.by_class.items():
                family.add_metric([topic_class], getattr(delivery, field))
            yield family


def watch_node(
    metrics: MetricsRegistry,
    counters: NodeCounters,
    topics: TopicRegistry,
    limits: NodeLimits,
    *,
    pools: Mapping[str, PostgresPool],
    driver: DriverWatch,
    evictions: Evictions,
    audit: AccessAudit,
) -> None:
    """Register everything that a node says of itself; call once."""
    gauges: dict[str, tuple[str, Callable[[], float]]] = {
        "windows_bytes": ("Memory of the windows of all topics.", lambda: topics.windows_bytes),
        "position_check_age_seconds": (
            "Time since the last position check that was answered.",
            lambda: trio.current_time() - topics.checked_at,
        ),
        "revocation_staleness_seconds": (
            "Time since control's log of revocations was last read to its head.",
            lambda: evictions.feed.staleness_s,
        ),
        "audit_waiting": ("Events that the audit log does not have yet.", lambda: audit.waiting),
        "audit_oldest_age_seconds": (
            "How long the oldest of them has waited.",
            lambda: audit.oldest_age_s,
        ),
        "revocations_held": ("Ended sessions, keys and memberships held.", lambda: len(evictions.view)),
    }
    metrics.register(NodeCollector(counters, gauges))
    reasons = {name: reason.name for name, reason in VIOLATIONS.items()}
    metrics.register(LimitCollector("node", limits, counters.limit_violations, reasons))
    metrics.register(driver)
    watch_pools(metrics, pools)


def _labelled(
    name: str, text: str, label: str, known: Iterable[str], counts: Counter[str]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for value in sorted({*known, *counts}):
        family.add_metric([value], counts.get(value, 0))
    return family


def _buckets_of(durations: DurationCounts) -> Iterator[tuple[str, float]]:
    return _cumulated(DURATION_BUCKETS_S, durations.buckets)


def _cumulated(bounds: Iterable[float], counts: Iterable[int]) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        yield bound, total
