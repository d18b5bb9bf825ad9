"""Which nodes there are, by what they report; in bounded memory and with an age on everything. Pure.

A node that reports is known; after ``SILENT_AFTER_S`` without a report it is silent, and counts in no total
but the number of the silent; after ``FORGOTTEN_AFTER_S`` it is forgotten. One that says that it leaves is
forgotten at once. Nothing here is durable: after a start the registry is whole again within one interval.

Invariant: at most ``NODES_MAX`` nodes, with at most ``REPORT_TOPICS_MAX`` topics each.
"""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Final

import attrs

from runtime.core.fanout_trend import FanoutChanges, FanoutTrendLog
from runtime.core.node_reports import FanoutFigures, add_figures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.core.fanout_trend import FanoutTrend
    from runtime.core.node_reports import NodeReport, TopicReport

__all__ = [
    "FORGOTTEN_AFTER_S",
    "NODES_MAX",
    "SILENT_AFTER_S",
    "FanoutTotals",
    "NodeRegistry",
    "NodeStanding",
    "RegistryFull",
    "TopicStanding",
]

# Three intervals of 5 s: two reports may get lost.
SILENT_AFTER_S: Final = 15.0
# Long enough for an operator to see which node vanished; a name that is made at each start never comes back.
FORGOTTEN_AFTER_S: Final = 300.0
# Each is a process with thousands of clients; beyond it somebody invents names.
NODES_MAX: Final = 256
# A first report comes within one interval of the start. What an older process did before is not news.
_NEW_PROCESS_MS: Final = 15_000


class RegistryFull(Exception):
    """There are NODES_MAX nodes, and all of them report."""


@attrs.frozen
class NodeStanding:
    """One node: its newest report, and how old that is."""

    report: NodeReport
    age_s: float

    @property
    def is_silent(self) -> bool:
        """Whether a report is overdue."""
        return self.age_s > SILENT_AFTER_S


@attrs.frozen(kw_only=True)
class FanoutTotals:
    """The nodes that are not silent, together."""

    nodes: int
    nodes_ready: int
    nodes_draining: int
    nodes_silent: int
    figures: FanoutFigures


@attrs.frozen(kw_only=True)
class TopicStanding:
    """One topic over the nodes that are not silent; ranks count from 1."""

    topic: str
    topic_class: str
    nodes: int
    subscribers: int
    replaying: int
    head_seq: int
    frames_per_s: float
    lag_frames_max: int
    rate_rank: int = 0
    lag_rank: int = 0


@attrs.frozen
class _Known:
    report: NodeReport
    at: float


class NodeRegistry:
    """The nodes of one runtime. ``now`` is monotonic seconds everywhere."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Known] = {}
        self._trend = FanoutTrendLog()

    def take(self, report: NodeReport, now: float) -> None:
        """Take a report.

        Raises:
            RegistryFull: It is of a node that is not known, and there is no room; nothing has changed.
        """
        self._forget(now)
        known = self._nodes.get(report.node_id)
        if known is None:
            self._make_room(now)
        self._trend.note(_changes(known, report), report.figures, now)
        if report.is_leaving:
            self._nodes.pop(report.node_id, None)
        else:
            self._nodes[report.node_id] = _Known(report, now)

    def standings(self, now: float) -> list[NodeStanding]:
        """Return every node that is known, by name."""
        self._forget(now)
        return [NodeStanding(known.report, now - known.at) for _, known in sorted(self._nodes.items())]

    def totals(self, now: float) -> FanoutTotals:
        """Return the nodes together."""
        standings = self.standings(now)
        heard = [standing.report for standing in standings if not standing.is_silent]
        return FanoutTotals(
            nodes=len(heard),
            nodes_ready=sum(report.is_ready for report in heard),
            nodes_draining=sum(report.is_draining for report in heard),
            nodes_silent=len(standings) - len(heard),
            figures=add_figures(report.figures for report in heard),
        )

    def topics(self, limit: int, now: float) -> list[TopicStanding]:
        """Return the most delayed and the busiest topics in turn, ``limit`` at most, each once.

        Exact for whatever is among the first hundred of each node; a topic that is on no node's list is not here.
        """
        parts: dict[str, list[TopicReport]] = {}
        for standing in self.standings(now):
            for topic in () if standing.is_silent else standing.report.topics:
                parts.setdefault(topic.topic, []).append(topic)
        merged = [_merge(rows) for rows in parts.values()]
        by_rate = sorted(merged, key=lambda row: (-row.frames_per_s, row.topic))
        by_lag = sorted(merged, key=lambda row: (-row.lag_frames_max, row.topic))
        rate_ranks, lag_ranks = _ranks(by_rate), _ranks(by_lag)
        delayed = [row for row in by_lag if row.lag_frames_max]
        in_turn = dict.fromkeys(
            row.topic for row in chain.from_iterable(zip_longest(delayed, by_rate)) if row is not None
        )
        rows = {row.topic: row for row in merged}
        return [
            attrs.evolve(rows[name], rate_rank=rate_ranks[name], lag_rank=lag_ranks[name])
            for name in list(in_turn)[:limit]
        ]

    def trend(self, window_s: int, now: float) -> FanoutTrend:
        """Return what changed in the last ``window_s`` seconds."""
        return self._trend.trend(window_s, now)

    def _forget(self, now: float) -> None:
        self._nodes = {
            node_id: known for node_id, known in self._nodes.items() if now - known.at <= FORGOTTEN_AFTER_S
        }

    def _make_room(self, now: float) -> None:
        if len(self._nodes) < NODES_MAX:
            return
        node_id, known = min(self._nodes.items(), key=lambda item: item[1].at)
        if now - known.at <= SILENT_AFTER_S:
            raise RegistryFull
        del self._nodes[node_id]


def _changes(known: _Known | None, report: NodeReport) -> FanoutChanges:
    """Return what is new in a report.

    Of a process that is known: the difference. Of another one: all of it, if it has just started; else what it
    counted before we knew it is not ours to date.
    """
    if known is not None and known.report.instance_id == report.instance_id:
        return FanoutChanges.between(known.report.figures, report.figures)
    if known is not None or report.uptime_ms <= _NEW_PROCESS_MS:
        return FanoutChanges.between(None, report.figures)
    return FanoutChanges()


def _merge(rows: list[TopicReport]) -> TopicStanding:
    return TopicStanding(
        topic=rows[0].topic,
        topic_class=rows[0].topic_class,
        nodes=len(rows),
        subscribers=sum(row.subscribers for row in rows),
        replaying=sum(row.replaying for row in rows),
        head_seq=max(row.head_seq for row in rows),
        frames_per_s=max(row.frames_per_s for row in rows),
        lag_frames_max=max(row.lag_frames_max for row in rows),
    )


def _ranks(rows: Iterable[TopicStanding]) -> dict[str, int]:
    return {row.topic: rank for rank, row in enumerate(rows, start=1)}
