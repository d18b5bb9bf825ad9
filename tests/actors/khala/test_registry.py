"""The topics of a node: shared, lingering, bounded together, and checked in one query."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from fanout_drivers.base import DriverCounters
from fanout_drivers.delivery_queue import DeliveryQueue
from fanout_drivers.memory import MemoryDriver, MemorySubscriber
from khala.core.limits import NodeLimits
from khala_contracts.codec import CursorStart
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import LINEAGE, run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from khala_contracts.topics import TopicName

TOPIC, OTHER_TOPIC = run_topic(1), run_topic(2)


def up_to(seq: int) -> list[int]:
    """Seqs ``1 .. seq``."""
    return list(range(1, seq + 1))


# -- life of a topic -------------------------------------------------------------------------------


async def test_a_topic_is_shared(autojump_clock: MockClock) -> None:
    """However many follow it, a topic is one task and one driver subscription."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        tasks_before = len(node.nursery.child_tasks)
        clients = [await node.follow(TOPIC) for _ in range(5)]
        assert len(node.registry) == node.counters.topics_live == 1
        assert len(node.nursery.child_tasks) == tasks_before + 5 + 1  # one per connection, one topic
        (subscriber,) = node.driver._subscribers
        assert subscriber._topics == {TOPIC.name}
        assert all(client.seqs(TOPIC) == up_to(3) for client in clients)


async def test_a_topic_lingers(autojump_clock: MockClock) -> None:
    """30 s after the last subscriber left it is gone, with its task, window and driver subscription."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        await node.commit(log)
        tasks = len(node.nursery.child_tasks)
        await trio.sleep(35)
        assert len(node.registry) == 1
        client.unsubscribe(TOPIC)
        await trio.sleep(29.5)
        client.peer.ping()
        assert len(node.registry) == 1
        await trio.sleep(2)
        assert len(node.registry) == node.counters.topics_live == 0
        assert node.registry.windows_bytes == 0
        assert len(node.nursery.child_tasks) == tasks - 1
        (subscriber,) = node.driver._subscribers
        assert subscriber._topics == set()


async def test_a_lingering_topic_is_found_warm(autojump_clock: MockClock) -> None:
    """A reconnect within the linger replays from the window, without a page."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        client.peer.leave()
        await node.settle()
        for _ in range(4):
            await node.commit(log)
        pages = node.journal.reads["read_page"]
        again = await node.connect(TOPIC)
        again.subscribe(TOPIC, start=CursorStart(3, LINEAGE))
        await node.settle()
        assert again.seqs(TOPIC) == [4, 5, 6, 7]
        assert node.journal.reads["read_page"] == pages
        await trio.sleep(20)
        assert len(node.registry) == 1


async def test_many_cold_topics_cost_no_task(autojump_clock: MockClock) -> None:
    """KH-38: topics followed one after the other leave nothing behind."""
    logs = [log_of(run_topic(number), 1) for number in range(300)]
    async with open_node(*logs) as node:
        tasks = len(node.nursery.child_tasks)
        client = await node.connect(*(log.topic for log in logs[:200]))
        for log in logs[:200]:
            client.subscribe(log.topic)
            client.unsubscribe(log.topic)
        await node.settle()
        client.peer.leave()
        await trio.sleep(40)
        assert len(node.nursery.child_tasks) == tasks
        assert len(node.registry) == 0
        assert node.registry.windows_bytes == 0
        assert node.registry._by_use == {}
        assert node.registry._scopes == {}


async def test_a_refused_subscribe_leaves_no_topic(autojump_clock: MockClock) -> None:
    """A topic opened for a subscribe that was denied goes like any other idle one."""
    async with open_node() as node:
        client = await node.connect(TOPIC)
        client.subscribe(TOPIC)
        await node.settle()
        assert len(node.registry) == 1
        await trio.sleep(32)
        assert len(node.registry) == 0


async def test_a_topic_waits_for_a_slow_subscribe(autojump_clock: MockClock) -> None:
    """A topic whose first subscriber still waits for the journal is not idle, however long that takes."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        node.journal.hold("observe")
        client = await node.follow(TOPIC)
        await trio.sleep(40)
        client.peer.ping()
        node.journal.open_gate("observe")
        await node.settle()
        await node.commit(log)
        assert client.seqs(TOPIC) == up_to(4)


class _SlowToJoin(MemorySubscriber):
    """A driver for which following a topic takes a second."""

    async def subscribe(self, topic: TopicName) -> None:
        """Join, late."""
        await trio.sleep(1)
        await super().subscribe(topic)


async def test_a_client_that_leaves_while_its_topic_opens(autojump_clock: MockClock) -> None:
    """A subscribe that is cancelled in the driver releases the topic: it goes like any idle one."""
    async with open_node(log_of(TOPIC, 3)) as node:
        node.registry._subscriber = _SlowToJoin(DeliveryQueue(DriverCounters()))
        client = await node.follow(TOPIC)
        assert node.registry._topics[TOPIC.name].pending_joins == 1
        client.peer.vanish()
        await node.settle()
        assert node.registry._topics[TOPIC.name].pending_joins == 0
        await trio.sleep(32)
        assert len(node.registry) == 0


class _SlowToLeave(MemorySubscriber):
    """A driver for which leaving a topic takes a second and is final when it is done."""

    async def unsubscribe(self, topic: TopicName) -> None:
        """Leave, late."""
        await trio.sleep(1)
        await super().unsubscribe(topic)


async def test_a_topic_that_is_reopened_while_it_stops(autojump_clock: MockClock) -> None:
    """KH-38: a subscriber that arrives during the stop misses nothing, not even for a position check."""
    log = log_of(TOPIC, 3)
    driver = MemoryDriver()
    async with open_node(log, driver=driver, limits=NodeLimits(position_check_interval_s=1_000)) as node:
        slow = _SlowToLeave(DeliveryQueue(DriverCounters()))
        driver._subscribers.append(slow)
        node.registry._subscriber = slow
        node.nursery.start_soon(node.registry.run_pump)
        client = await node.follow(TOPIC)
        client.unsubscribe(TOPIC)
        await trio.sleep(30.5)
        client.peer.ping()
        assert len(node.registry) == 0
        client.subscribe(TOPIC)
        await node.settle()
        await trio.sleep(1)  # the driver has left the topic now
        await node.commit(log)
        await trio.sleep(0.03)
        assert client.seqs(TOPIC) == up_to(4)


# -- all windows together ----------------------------------------------------------------------------


async def test_windows_are_bounded_together(autojump_clock: MockClock) -> None:
    """INV-7: the windows of all topics stay within their budget; the least recently written give way."""
    logs = [log_of(run_topic(number), 0) for number in range(10)]
    limits = NodeLimits(windows_max_bytes=50_000, write_stall_timeout_s=1_000)
    async with open_node(*logs, limits=limits) as node:
        transport = SimulatedTransport()
        client = await node.connect(*(log.topic for log in logs), transport=transport)
        client.subscribe(*(log.topic for log in logs))
        await node.settle()
        client.read()
        transport.stall()
        for round_ in range(10):
            for log in logs:
                await node.commit(log, 3, payload=bytes(1_000))
                topics = node.registry._topics.values()
                total = sum(topic.window.memory_bytes for topic in topics)
                assert node.registry.windows_bytes == total
                assert total <= 50_000 or round_ == 0
        assert len(node.registry._topics[logs[9].topic.name].window) > 0
        # Who lags behind the windows is served from the journal; nothing is lost.
        transport.resume()
        await trio.sleep(1)
        assert all(client.seqs(log.topic) == up_to(30) for log in logs)


async def test_the_least_recently_written_window_gives_way(autojump_clock: MockClock) -> None:
    """A window that was written to again is kept; the one that was not is trimmed."""
    logs = [log_of(run_topic(number), 0) for number in range(3)]
    async with open_node(*logs, limits=NodeLimits(windows_max_bytes=8_000)) as node:
        await node.follow(*(log.topic for log in logs))
        for index in (0, 1, 0, 2):
            await node.commit(logs[index], 2, payload=bytes(1_000))
        held = [len(node.registry._topics[log.topic.name].window) for log in logs]
        assert held == [4, 1, 2]


async def test_a_window_that_is_sent_from_stays(autojump_clock: MockClock) -> None:
    """A client that is behind keeps what it needs in memory; another topic, written later, gives way."""
    logs = [log_of(run_topic(number), 0) for number in range(3)]
    async with open_node(*logs, limits=NodeLimits(windows_max_bytes=200_000)) as node:
        transport = SimulatedTransport()
        behind = await node.follow(logs[0].topic, transport=transport)
        await node.follow(logs[1].topic, logs[2].topic)
        behind.read()
        transport.buffer_bytes = 4_096
        await node.commit(logs[0], 64, payload=bytes(1_000))
        await node.commit(logs[1], 64, payload=bytes(1_000))
        for _ in range(20):
            behind.read()
            await node.settle()
        # It has begun another chunk of its window, so the other one is older now.
        await node.commit(logs[2], 80, payload=bytes(1_000))
        held = [len(node.registry._topics[log.topic.name].window) for log in logs]
        assert held == [64, 32, 80]
        assert node.counters.pages_read == 0


async def test_windows_age_above_half_their_budget(autojump_clock: MockClock) -> None:
    """Frames that were there for some seconds go while all windows are above half the budget, oldest use first."""
    logs = [log_of(run_topic(number), 0) for number in range(3)]
    async with open_node(*logs, limits=NodeLimits(windows_max_bytes=100_000)) as node:
        client = await node.follow(*(log.topic for log in logs))

        def held() -> list[int]:
            return [len(node.registry._topics[log.topic.name].window) for log in logs]

        for log in logs[:2]:
            await node.commit(log, 20, payload=bytes(1_000))
        await trio.sleep(30)
        assert held() == [20, 20, 0], "less than half: everything is kept"
        await node.commit(logs[2], 20, payload=bytes(1_000))
        await trio.sleep(12)
        assert held() == [0, 20, 20]
        assert node.registry.windows_bytes <= 50_000
        # New frames are held again, and who comes back has the old ones from the journal.
        await node.commit(logs[0], 5, payload=bytes(1_000))
        assert held()[0] == 5
        assert client.seqs(logs[0].topic) == up_to(25)
        late = await node.follow(logs[0].topic)
        assert late.position(logs[0].topic) == 25


async def test_what_came_since_the_last_look_does_not_age(autojump_clock: MockClock) -> None:
    """However large the windows are, the frames of the last seconds stay."""
    log = log_of(run_topic(0), 0)
    async with open_node(log, limits=NodeLimits(windows_max_bytes=40_000)) as node:
        await node.follow(log.topic)
        window = node.registry._topics[log.topic.name].window
        await node.commit(log, 10, payload=bytes(1_000))
        await trio.sleep(3)
        for _ in range(4):
            await node.commit(log, 25, payload=bytes(1_000))
            await trio.sleep(4)
            assert len(window) == 25, "what was there at the look before has aged"
            await trio.sleep(1)


async def test_a_reset_window_is_no_obstacle(autojump_clock: MockClock) -> None:
    """A window emptied by a restored journal has nothing to give; others are trimmed instead."""
    logs = [log_of(run_topic(number), 0) for number in range(3)]
    async with open_node(*logs, limits=NodeLimits(windows_max_bytes=20_000)) as node:
        client = await node.follow(*(log.topic for log in logs))
        await node.commit(logs[0], 3, payload=bytes(1_000))
        logs[0] = node.journal.restore(logs[0], 1)
        await trio.sleep(0.6)
        for _ in range(20):
            await node.commit(logs[1], 2, payload=bytes(1_000))
        assert client.seqs(logs[1].topic) == up_to(40)
        assert 0 < node.registry.windows_bytes <= 20_000


# -- the position check ---------------------------------------------------------------------------------


async def test_one_query_for_all_topics(autojump_clock: MockClock) -> None:
    """However many topics are live, a check is one statement, every 500 ms."""
    logs = [log_of(run_topic(number), 1) for number in range(50)]
    async with open_node(*logs) as node:
        await node.follow(*(log.topic for log in logs))
        await trio.sleep(5.1)
        assert node.journal.reads["read_heads"] == node.counters.position_checks == 10


async def test_the_age_of_the_last_check(autojump_clock: MockClock) -> None:
    """Readiness looks at when a check was last answered; failed checks are counted and change nothing."""
    log = log_of(TOPIC, 1)
    async with open_node(log) as node:
        await node.follow(TOPIC)
        await trio.sleep(1.1)
        assert node.registry.checked_at == 1.0
        node.journal.is_down = True
        await trio.sleep(2)
        assert node.registry.checked_at == 1.0
        assert node.counters.position_check_failures == 4
        node.journal.is_down = False
        await trio.sleep(0.5)
        assert node.registry.checked_at == 3.5


async def test_without_topics_there_is_nothing_to_check(autojump_clock: MockClock) -> None:
    """An idle node asks nothing and is not behind."""
    async with open_node() as node:
        await trio.sleep(10.1)
        assert node.journal.reads["read_heads"] == 0
        assert node.registry.checked_at == 10.0


async def test_a_topic_that_stops_during_a_check(autojump_clock: MockClock) -> None:
    """An answer about a topic that has stopped meanwhile is nobody's: the budget stays exact."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        await node.commit(log, payload=bytes(1_000))
        client.unsubscribe(TOPIC)
        await trio.sleep(29.9)
        node.journal.hold("read_heads")
        node.journal.restore(log, 1)
        await trio.sleep(2)
        assert len(node.registry) == 0
        node.journal.open_gate("read_heads")
        await trio.sleep(1)
        assert node.registry.windows_bytes == 0
        assert node.registry._by_use == {}


# -- the pump -----------------------------------------------------------------------------------------------


async def test_records_of_topics_that_nobody_follows(autojump_clock: MockClock) -> None:
    """A late record of a topic that is gone is dropped before its seal is looked at."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        (subscriber,) = node.driver._subscribers
        await subscriber.subscribe(OTHER_TOPIC.name)
        await node.driver.publish(OTHER_TOPIC.name, b"whatever")
        await node.settle()
        assert node.counters.records_forged == 0
        await node.commit(log)
        assert client.seqs(TOPIC) == up_to(4)
