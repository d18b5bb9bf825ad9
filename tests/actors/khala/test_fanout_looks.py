"""KH-27: what a node reports of its topics, and when it calls its own deliveries unfair."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs
import pytest
import trio

from khala.actors.fanout_looks import FanoutLooks
from khala.core.fanout_figures import DUE_AFTER_S
from khala.core.limits import NodeLimits
from khala_contracts.codec import SubscribeFrom
from khala_contracts.fairness import jain_index
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import TopicLog, run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from khala.actors.fanout_looks import FanoutLook
    from khala.core.subscription import DeliverySink, Subscription
    from tests.actors.khala.node_under_test import NodeUnderTest

NOW = SubscribeFrom.NOW


class Deaf:
    """A sink that gives its topic no turn."""

    def wake(self, subscription: Subscription) -> None:
        """Do nothing."""


def looks_at(node: NodeUnderTest) -> FanoutLooks:
    """Return looks at a node's connections."""
    looks = FanoutLooks()
    looks.watch(node.connections)
    return looks


def fairness_of(look: FanoutLook) -> float:
    """Return Jain's index of a look."""
    sums = look.fairness
    return jain_index(sums.judged, sums.total, sums.squares)


async def test_topics_of_a_look(autojump_clock: MockClock) -> None:
    """Head, subscribers and growth per second of each topic that somebody follows; no growth at the first look."""
    busy, quiet = log_of(run_topic(1), 5), log_of(run_topic(2), 0)
    async with open_node(busy, quiet) as node:
        looks = looks_at(node)
        for _ in range(2):
            await node.follow(busy.topic, start=NOW)
        await node.follow(quiet.topic, start=NOW)
        first = {row.topic: row for row in (await looks.look()).topics}
        assert [row.frames_per_s for row in first.values()] == [0.0, 0.0]
        await node.commit(busy, 10)
        await trio.sleep(5)
        second = {row.topic: row for row in (await looks.look()).topics}
        assert set(second) == {busy.topic.name, quiet.topic.name}
        row = second[busy.topic.name]
        assert (row.head_seq, row.subscribers, row.replaying, row.lag_frames_max) == (15, 2, 0, 0)
        assert row.frames_per_s == pytest.approx(2.0)
        assert second[quiet.topic.name].frames_per_s == 0.0
        # Draining may begin, and end, at the very moment of a look: in no time there is no rate.
        await node.commit(quiet, 1)
        third = {row.topic: row for row in (await looks.look()).topics}
        assert (third[quiet.topic.name].head_seq, third[quiet.topic.name].frames_per_s) == (1, 0.0)


async def test_everybody_served_is_fair(autojump_clock: MockClock) -> None:
    """Who got everything has a whole share; who came since the last look, or had nothing to get, is not judged."""
    busy, quiet = log_of(run_topic(1), 0), log_of(run_topic(2), 0)
    async with open_node(busy, quiet) as node:
        looks = looks_at(node)
        for _ in range(3):
            await node.follow(busy.topic, start=NOW)
        await node.follow(quiet.topic, start=NOW)
        await trio.sleep(1)
        assert (await looks.look()).fairness.judged == 0
        await trio.sleep(1)
        await node.follow(busy.topic, start=NOW)
        await node.commit(busy, 4)
        await trio.sleep(5)
        look = await looks.look()
        assert (look.fairness.judged, fairness_of(look)) == (3, 1.0)


@pytest.mark.parametrize(("age_s", "index"), [(DUE_AFTER_S, 1.0), (DUE_AFTER_S + 0.1, 0.5)])
async def test_who_is_forgotten_is_seen(autojump_clock: MockClock, age_s: float, index: float) -> None:
    """Two of four free sockets are not served: 0.5, once the frames have waited for longer than a fan-out takes."""
    log = log_of(run_topic(1), 0)
    async with open_node(log) as node:
        looks = looks_at(node)
        clients = [await node.follow(log.topic, start=NOW) for _ in range(4)]
        await trio.sleep(1)
        await looks.look()
        for client in clients[:2]:
            # What a bug in the fan-out would do: neither sent to directly, nor woken.
            (subscription,) = client.connection.subscriptions.values()
            subscription.direct = None
            subscription.sink = cast("DeliverySink", Deaf())
        await node.commit(log, 3)
        await trio.sleep(age_s)
        assert fairness_of(await looks.look()) == pytest.approx(index)


async def test_a_slow_client_alone_is_not_unfair(autojump_clock: MockClock) -> None:
    """Its socket takes nothing: that is told by other figures, and lowers the index of nobody."""
    log = log_of(run_topic(1), 0)
    async with open_node(log) as node:
        looks = looks_at(node)
        stalled = SimulatedTransport(buffer_bytes=4_096)
        await node.follow(log.topic, start=NOW)
        await node.follow(log.topic, start=NOW, transport=stalled)
        await trio.sleep(1)
        await looks.look()
        stalled.stall()
        await node.commit(log, 50, payload=bytes(1_000))
        await trio.sleep(3)
        look = await looks.look()
        assert (look.fairness.judged, fairness_of(look)) == (1, 1.0)
        (row,) = look.topics
        assert row.lag_frames_max == 0  # put on the connection; its bytes wait there


async def test_topics_of_one_slow_connection(autojump_clock: MockClock) -> None:
    """Four equal backlogs on a socket that is always full: judged, and close to even."""
    logs = [log_of(run_topic(number), 0) for number in range(1, 5)]
    # Nobody is acted on meanwhile.
    limits = attrs.evolve(NodeLimits(), write_stall_timeout_s=600.0)
    async with open_node(*logs, limits=limits) as node:
        looks = looks_at(node)
        transport = SimulatedTransport(buffer_bytes=4_096)
        client = await node.follow(*(log.topic for log in logs), start=NOW, transport=transport)
        for log in logs:
            await commit_much(node, log)
        client.read(4_096)
        await node.settle()
        await looks.look()
        for _ in range(300):
            client.read(4_096)
            await node.settle()
        look = await looks.look()
        assert look.fairness.judged == 4
        assert fairness_of(look) > 0.9


async def commit_much(node: NodeUnderTest, log: TopicLog) -> None:
    """Put a megabyte into a topic."""
    for _ in range(10):
        await node.commit(log, 100, payload=bytes(1_000))


async def test_nothing_stays_of_who_has_left(autojump_clock: MockClock) -> None:
    """Subscriptions that are gone are not remembered, nor are their topics."""
    log = log_of(run_topic(1), 0)
    async with open_node(log) as node:
        looks = looks_at(node)
        client = await node.follow(log.topic, start=NOW)
        await looks.look()
        client.unsubscribe(log.topic)
        await node.settle()
        assert (await looks.look()).topics == []
        assert (looks._heads, looks._behind) == ({}, {})
