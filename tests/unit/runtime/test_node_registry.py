"""Unit tests of runtime.core.node_registry: who is known, for how long, and what all nodes are together."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from runtime.core.node_registry import (
    FORGOTTEN_AFTER_S,
    NODES_MAX,
    SILENT_AFTER_S,
    NodeRegistry,
    RegistryFull,
)
from runtime.core.node_reports import FanoutFigures, NodeReport, TopicReport


def report(node_id: str = "node-1", **changes: Any) -> NodeReport:
    """Return a report of a ready node that has just started."""
    plain = NodeReport(
        node_id=node_id,
        instance_id=f"{node_id}-life-1",
        build_id="0.1.0",
        started_at_ms=0,
        uptime_ms=1_000,
        is_draining=False,
        is_leaving=False,
        not_ready={},
        figures=FanoutFigures(),
        topics=(),
    )
    return attrs.evolve(plain, **changes)


def topic(name: str, *, rate: float = 0.0, lag: int = 0, subscribers: int = 1, head: int = 1) -> TopicReport:
    """Return a topic of a report."""
    return TopicReport(
        topic=name,
        topic_class="run_events",
        head_seq=head,
        subscribers=subscribers,
        replaying=0,
        frames_per_s=rate,
        lag_frames_max=lag,
    )


def test_silent_and_forgotten() -> None:
    """At SILENT_AFTER_S a node still counts, after it no more; after FORGOTTEN_AFTER_S nobody names it."""
    registry = NodeRegistry()
    registry.take(report(figures=FanoutFigures(connections=3)), 0.0)
    assert registry.totals(SILENT_AFTER_S).figures.connections == 3
    late = registry.totals(SILENT_AFTER_S + 0.1)
    assert (late.nodes, late.nodes_silent, late.figures.connections) == (0, 1, 0)
    assert [standing.age_s for standing in registry.standings(FORGOTTEN_AFTER_S)] == [FORGOTTEN_AFTER_S]
    assert registry.standings(FORGOTTEN_AFTER_S + 0.1) == []


def test_who_leaves_is_not_missed() -> None:
    """The last words of a node: it is in no list, and never silent."""
    registry = NodeRegistry()
    registry.take(report(), 0.0)
    registry.take(report(is_draining=True, is_leaving=True), 1.0)
    assert registry.standings(1.0) == []
    assert registry.totals(100.0).nodes_silent == 0


def test_totals() -> None:
    """Sums, and the largest of maxima; ready is who neither drains nor has a failing check."""
    registry = NodeRegistry()
    registry.take(report("node-1", figures=FanoutFigures(connections=2, lag_frames_max=5)), 0.0)
    registry.take(
        report("node-2", figures=FanoutFigures(connections=3, lag_frames_max=4), is_draining=True), 0.0
    )
    registry.take(report("node-3", not_ready={"fanout": "unavailable"}), 0.0)
    totals = registry.totals(0.0)
    assert (totals.nodes, totals.nodes_ready, totals.nodes_draining) == (3, 1, 1)
    assert (totals.figures.connections, totals.figures.lag_frames_max) == (5, 5)


def test_fairness_over_all_nodes() -> None:
    """One node that serves half of its subscribers is not hidden by an index of its own of 1."""
    registry = NodeRegistry()
    registry.take(
        report("node-1", figures=FanoutFigures(judged=10, fairness_sum=10, fairness_squares=10)), 0.0
    )
    registry.take(report("node-2", figures=FanoutFigures(judged=10)), 0.0)
    assert registry.totals(0.0).figures.fairness == pytest.approx(0.5)


def test_room() -> None:
    """NODES_MAX nodes and no more: a further one takes the place of one that is silent, or none."""
    registry = NodeRegistry()
    for number in range(NODES_MAX):
        registry.take(report(f"node-{number:03}"), number / NODES_MAX)
    with pytest.raises(RegistryFull):
        registry.take(report("another"), 1.0)
    registry.take(report("node-001"), 1.0)
    registry.take(report("another"), SILENT_AFTER_S + 0.001)
    names = {standing.report.node_id for standing in registry.standings(SILENT_AFTER_S + 0.001)}
    assert len(names) == NODES_MAX
    assert "another" in names
    assert "node-000" not in names


def test_topics_of_several_nodes_are_one() -> None:
    """Subscribers add up; a frame that each node gets is counted once; the worst lag counts."""
    registry = NodeRegistry()
    registry.take(report("node-1", topics=(topic("a", rate=10.0, lag=1, subscribers=2, head=7),)), 0.0)
    registry.take(report("node-2", topics=(topic("a", rate=9.0, lag=3, subscribers=5, head=6),)), 0.0)
    (found,) = registry.topics(20, 0.0)
    assert (found.nodes, found.subscribers, found.frames_per_s, found.lag_frames_max, found.head_seq) == (
        2, 7, 10.0, 3, 7,
    )  # fmt: skip


def test_the_busiest_and_the_most_delayed_in_turn() -> None:
    """Each once, with its place in both orders, and never more than asked for."""
    registry = NodeRegistry()
    registry.take(
        report(
            topics=(
                topic("busy", rate=100.0),
                topic("busier", rate=200.0),
                topic("late", rate=1.0, lag=50),
                topic("later", rate=2.0, lag=60),
                topic("quiet"),
            )
        ),
        0.0,
    )
    found = registry.topics(20, 0.0)
    assert [row.topic for row in found] == ["later", "busier", "late", "busy", "quiet"]
    assert [(row.rate_rank, row.lag_rank) for row in found] == [(3, 1), (1, 3), (4, 2), (2, 4), (5, 5)]
    assert [row.topic for row in registry.topics(3, 0.0)] == ["later", "busier", "late"]


def test_a_silent_nodes_topics_do_not_count() -> None:
    """What was true a quarter of a minute ago says nothing of now."""
    registry = NodeRegistry()
    registry.take(report(topics=(topic("a"),)), 0.0)
    assert registry.topics(20, SILENT_AFTER_S + 1) == []


def changes_of(registry: NodeRegistry, now: float) -> int:
    """Return the releases of the last ten minutes."""
    trend = registry.trend(600, now)
    return trend.before.release + trend.after.release


def test_only_growth_is_news() -> None:
    """Totals of a process that is known count by their difference, and once."""
    registry = NodeRegistry()
    registry.take(report(figures=FanoutFigures(release=5)), 0.0)
    registry.take(report(figures=FanoutFigures(release=7)), 5.0)
    registry.take(report(figures=FanoutFigures(release=7)), 10.0)
    assert changes_of(registry, 10.0) == 7


def test_another_process_begins_at_zero() -> None:
    """After a restart of the node its totals are all new, and its former ones are not lost."""
    registry = NodeRegistry()
    registry.take(report(figures=FanoutFigures(release=5)), 0.0)
    registry.take(report(instance_id="node-1-life-2", figures=FanoutFigures(release=2)), 5.0)
    assert changes_of(registry, 5.0) == 7


def test_what_an_old_process_did_before_is_not_news() -> None:
    """A runtime that has just started does not take a day's total for ten minutes'."""
    registry = NodeRegistry()
    registry.take(report(uptime_ms=15_001, figures=FanoutFigures(release=5_000)), 0.0)
    registry.take(report(uptime_ms=20_000, figures=FanoutFigures(release=5_001)), 5.0)
    assert changes_of(registry, 5.0) == 1
