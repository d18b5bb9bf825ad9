"""Shows the node's counters to Prometheus; read at each scrape, never written on the way of a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric

    from khala.core.counters import NodeCounters

_TOTALS = {
    "connections_accepted": "WebSocket connections accepted.",
    "welcomes": "Hellos that were welcomed.",
    "frames_appended": "Frames appended to windows.",
    "deliveries": "Ranges handed to connections.",
    "bytes_pumped": "Bytes handed to sockets by the writers.",
    "records_forged": "Driver records whose MAC or topic did not hold.",
    "position_unknown": "Notices of drivers that something may have been missed.",
    "heals": "Journal reads that closed a gap.",
    "pages_read": "Replay pages read from the journal.",
    "page_read_failures": "Replay page reads without an answer.",
    "position_checks": "Position checks answered.",
    "position_check_failures": "Position checks without an answer.",
}
_LABELLED = {
    "handshakes_rejected": ("status", "Upgrade requests refused, by HTTP status."),
    "hellos_refused": ("reason", "Hellos refused, by reason code."),
    "closes": ("reason", "Connections closed, by reason code or close code."),
    "subscribes": ("result", "Subscribes answered, by result."),
    "stale_cursors": ("reason", "Stale cursors, by reason."),
    "records": ("decision", "Driver records, by decision."),
    "task_restarts": ("kind", "Contained crashes of topic and connection tasks."),
    "slow_consumer_actions": ("action", "Actions against slow consumers."),
}
_GAUGES = {
    "connections_open": "WebSocket connections now.",
    "handshakes_open": "Connections that have not sent a valid hello yet.",
    "subscriptions_open": "Subscriptions now.",
    "topics_live": "Topics with a task now.",
}


class NodeCollector:
    """Collects one node's counters, and gauges that are read when asked."""

    def __init__(self, counters: NodeCounters, gauges: dict[str, Callable[[], float]]) -> None:
        """Show ``counters``, and each of ``gauges`` under its name."""
        self._counters = counters
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; called by the registry at a scrape."""
        counters = self._counters
        for name, text in _TOTALS.items():
            yield CounterMetricFamily(f"khala_node_{name}", text, value=getattr(counters, name))
        for name, (label, text) in _LABELLED.items():
            family = CounterMetricFamily(f"khala_node_{name}", text, labels=[label])
            values: Counter[str] = getattr(counters, name)
            for value, count in sorted(values.items()):
                family.add_metric([value], count)
            yield family
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"khala_node_{name}", text, value=getattr(counters, name))
        for name, read in self._gauges.items():
            yield GaugeMetricFamily(f"khala_node_{name}", name.replace("_", " "), value=read())
