"""How many nodes report, at /metrics; which ones, and how they do, is the fan-out metrics' (http/nodes.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from prometheus_client.core import GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from runtime.core.node_registry import NodeRegistry

__all__ = ["NodeRegistryCollector"]

_NAME: Final = "khala_runtime_nodes"


class NodeRegistryCollector:
    """Counts the nodes of a registry at each scrape."""

    def __init__(self, registry: NodeRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield one gauge, by state."""
        totals = self._registry.totals(trio.current_time())
        states = {
            "ready": totals.nodes_ready,
            "draining": totals.nodes_draining,
            "not_ready": totals.nodes - totals.nodes_ready - totals.nodes_draining,
            "silent": totals.nodes_silent,
        }
        family = GaugeMetricFamily(_NAME, "Nodes, by what they reported last.", labels=["state"])
        for state, count in states.items():
            family.add_metric([state], count)
        yield family
