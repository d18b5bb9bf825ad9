"""KH-28 on a whole node: ten thousand topics that are followed and written to make no new label value."""

from __future__ import annotations

import pytest

from khala.adapters.metrics import NodeCollector
from khala.core.limits import NodeLimits
from khala_service.metrics import MetricsRegistry
from tests.actors.khala.node_under_test import open_node
from tests.topic_log import TopicLog, run_topic

pytestmark = pytest.mark.slow

TOPICS = 10_000
PER_CLIENT = 250
PER_SUBSCRIBE = 50


async def test_ten_thousand_topics_on_a_node() -> None:
    """Every one of them is joined and delivers a frame; the scrape names none and has not grown."""
    logs = [TopicLog(run_topic(number)) for number in range(TOPICS)]
    async with open_node(*logs, limits=NodeLimits(position_check_interval_s=3600)) as node:
        registry = MetricsRegistry("node", process_metrics=False)
        registry.register(NodeCollector(node.counters, {}))
        warm = await node.follow(logs[0].topic)
        series = series_of(registry)
        warm.peer.leave(1000)
        for first in range(0, TOPICS, PER_CLIENT):
            topics = [log.topic for log in logs[first : first + PER_CLIENT]]
            client = await node.connect(*topics)
            for start in range(0, PER_CLIENT, PER_SUBSCRIBE):
                client.subscribe(*topics[start : start + PER_SUBSCRIBE])
            await node.settle()
            client.read()
        for log in logs:
            await node.driver.publish(log.topic.name, node.signer.seal(log.append(1)))
        await node.settle()
        run_events = node.counters.by_class["run_events"]
        assert (run_events.joins, run_events.frames_appended) == (TOPICS + 1, TOPICS)
        assert run_events.deliveries == TOPICS
        assert node.counters.topics_live == TOPICS
        assert series_of(registry) == series
        assert b"run_0" not in registry.render()


def series_of(registry: MetricsRegistry) -> set[str]:
    """Return names and labels of every series, without values."""
    lines = registry.render().decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}
