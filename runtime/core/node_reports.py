"""What a node says of itself, as values; and how the figures of several nodes become those of all. Pure.

The contract, with the meaning of every field, is proto/openagents/runtime/v1/nodes.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from khala_contracts.fairness import jain_index

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["REPORT_TOPICS_MAX", "FanoutFigures", "NodeReport", "TopicReport", "add_figures"]

# The busiest and the most delayed hundred.
REPORT_TOPICS_MAX: Final = 200

# Of several nodes the largest; everything else adds up.
_MAXIMA: Final = frozenset({"write_stall_max_ms", "lag_frames_max"})


@attrs.frozen(kw_only=True)
class FanoutFigures:
    """Gauges of now and totals since the start of a process."""

    connections: int = 0
    subscriptions: int = 0
    topics_live: int = 0
    waiting_bytes: int = 0
    connections_blocked: int = 0
    write_stall_max_ms: int = 0
    lag_frames_max: int = 0
    frames_appended: int = 0
    deliveries: int = 0
    heals: int = 0
    records_forged: int = 0
    evictions: int = 0
    throttle: int = 0
    catch_up: int = 0
    release: int = 0
    disconnect: int = 0
    # Of the subscriptions that were judged at the last look; see khala_contracts/fairness.py.
    judged: int = 0
    fairness_sum: float = 0.0
    fairness_squares: float = 0.0

    @property
    def fairness(self) -> float:
        """Jain's index over them."""
        return jain_index(self.judged, self.fairness_sum, self.fairness_squares)


@attrs.frozen(kw_only=True)
class TopicReport:
    """One topic with subscribers on one node."""

    topic: str
    topic_class: str
    head_seq: int
    subscribers: int
    replaying: int
    frames_per_s: float
    lag_frames_max: int


@attrs.frozen(kw_only=True)
class NodeReport:
    """One report. ``not_ready`` holds the checks that fail, with their word."""

    node_id: str
    instance_id: str
    build_id: str
    started_at_ms: int
    uptime_ms: int
    is_draining: bool
    is_leaving: bool
    not_ready: Mapping[str, str]
    figures: FanoutFigures
    topics: tuple[TopicReport, ...]

    @property
    def is_ready(self) -> bool:
        """Whether the node takes clients."""
        return not self.is_draining and not self.not_ready


def add_figures(figures: Iterable[FanoutFigures]) -> FanoutFigures:
    """Return the figures of all: sums, and the largest where a field is a maximum."""
    rows = tuple(figures)
    names = [field.name for field in attrs.fields(FanoutFigures)]
    merged = {
        name: max((getattr(row, name) for row in rows), default=0)
        if name in _MAXIMA
        else sum(getattr(row, name) for row in rows)
        for name in names
    }
    return FanoutFigures(**merged)
