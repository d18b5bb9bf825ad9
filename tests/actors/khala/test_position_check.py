"""The position check on demand: drivers that lost something, one query for all, bounded and never lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from khala.core.limits import NodeLimits
from khala_contracts.topics import TopicName
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.topic_log import run_topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock

    from fanout_drivers.delivery_queue import DeliveryQueue
    from khala.core.classification import Observation
    from khala.ports import JournalReader
    from tests.actors.khala.node_under_test import NodeUnderTest

TOPIC, OTHER_TOPIC = run_topic(1), run_topic(2)


def up_to(seq: int) -> list[int]:
    """Seqs ``1 .. seq``."""
    return list(range(1, seq + 1))


def queue_of(node: NodeUnderTest) -> DeliveryQueue:
    """What the driver's end of this node says comes from here."""
    (subscriber,) = node.driver._subscribers
    return subscriber.queue


async def test_one_check_for_everything(autojump_clock: MockClock) -> None:
    """A notice about all topics is one query; who is behind is read at once, who is not is not read."""
    logs = [log_of(run_topic(number), 1) for number in range(20)]
    async with open_node(*logs) as node:
        client = await node.follow(*(log.topic for log in logs))
        pages = node.journal.reads["read_page"]
        for log in logs[:3]:
            log.append(1)
        queue_of(node).announce_nowait()
        await node.settle()
        assert trio.current_time() == 0  # not even the 20 ms for which a record would be awaited
        assert node.journal.reads["read_heads"] == 1
        assert node.journal.reads["read_page"] == pages + 3
        assert [client.position(log.topic) for log in logs] == [2] * 3 + [1] * 17
        assert node.counters.position_unknown == 1


async def test_a_notice_names_topics(autojump_clock: MockClock) -> None:
    """A notice about some topics reads those, without a query over all; unknown names are nobody."""
    logs = [log_of(TOPIC, 1), log_of(OTHER_TOPIC, 1)]
    async with open_node(*logs) as node:
        client = await node.follow(TOPIC, OTHER_TOPIC)
        before = len(node.journal.pages_asked)
        for log in logs:
            log.append(1)
        queue_of(node).announce_nowait(TOPIC.name)
        queue_of(node).announce_nowait(TopicName("run:nobody"))
        await node.settle()
        assert [name for name, _ in node.journal.pages_asked[before:]] == [TOPIC.name]
        assert node.journal.reads["read_heads"] == 0
        assert (client.position(TOPIC), client.position(OTHER_TOPIC)) == (2, 1)


async def test_checks_are_bounded(autojump_clock: MockClock) -> None:
    """However many notices come, at most position_checks_per_s (50) queries a second are made."""
    async with open_node(log_of(TOPIC, 1)) as node:
        await node.follow(TOPIC)
        for _ in range(1_000):
            queue_of(node).announce_nowait()
            await trio.sleep(0.001)
        assert 49 <= node.journal.reads["read_heads"] <= 51


async def test_slow_checks_leave_time(autojump_clock: MockClock) -> None:
    """Over very many topics a check takes long: wanted ones take a fifth of the time, and never wait for long."""
    async with open_node(log_of(TOPIC, 1)) as node:
        await node.follow(TOPIC)
        for took_s, expected in ((0.05, 40), (0.3, 12)):
            node.journal.delay_s = took_s
            before = node.journal.reads["read_heads"]
            for _ in range(100):
                queue_of(node).announce_nowait()
                await trio.sleep(0.1)
            assert abs(node.journal.reads["read_heads"] - before - expected) <= 1


async def test_the_last_notice_is_answered(autojump_clock: MockClock) -> None:
    """A notice that comes while a check is under way gets a check of its own: nothing waits for 500 ms."""
    log = log_of(TOPIC, 1)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        node.journal.hold("read_heads")
        queue_of(node).announce_nowait()
        await node.settle()
        log.append(1)  # after the statement's snapshot
        queue_of(node).announce_nowait()
        await node.settle()
        node.journal.open_gate("read_heads")
        await trio.sleep(0.021)
        assert client.seqs(TOPIC) == up_to(2)
        assert node.journal.reads["read_heads"] == 2


@pytest.mark.parametrize("names_it", [True, False])
async def test_a_notice_while_a_topic_opens(autojump_clock: MockClock, names_it: bool) -> None:
    """What is committed while the first head is read, and announced, does not wait for the regular check."""
    log = log_of(TOPIC, 3)
    async with open_node(log, limits=NodeLimits(position_check_interval_s=1_000)) as node:
        node.journal.hold("observe")
        client = await node.follow(TOPIC)
        log.append(1)
        queue_of(node).announce_nowait(TOPIC.name if names_it else None)
        await node.settle()
        node.journal.open_gate("observe")
        await node.settle()
        assert client.seqs(TOPIC) == up_to(4)


async def test_the_regular_check_stays(autojump_clock: MockClock) -> None:
    """A driver that lost the last record and its own notice: found within the interval."""
    log = log_of(TOPIC, 1)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        queue_of(node).announce_nowait()
        await node.settle()
        log.append(1)
        await trio.sleep(0.53)
        assert client.seqs(TOPIC) == up_to(2)


async def test_the_journal_is_down_when_it_is_wanted(autojump_clock: MockClock) -> None:
    """A check without an answer is counted; the next regular one finds what was lost."""
    log = log_of(TOPIC, 1)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        log.append(1)
        node.journal.failures["read_heads"] = 1
        queue_of(node).announce_nowait()
        await node.settle()
        assert node.counters.position_check_failures == 1
        assert client.seqs(TOPIC) == up_to(1)
        await trio.sleep(0.53)
        assert client.seqs(TOPIC) == up_to(2)


class _Broken:
    """A journal whose position check has a bug, some times."""

    def __init__(self, inner: JournalReader, times: int) -> None:
        self.inner = inner
        self.times = times

    async def read_heads(
        self, topics: Sequence[TopicName], known: Sequence[Observation | None] = ()
    ) -> list[Observation]:
        """Fail or read."""
        if self.times:
            self.times -= 1
            raise ZeroDivisionError
        return await self.inner.read_heads(topics, known)


@pytest.mark.parametrize("is_prompt", [True, False])
async def test_a_crash_of_the_check(autojump_clock: MockClock, is_prompt: bool) -> None:
    """INV-9: a bug in a check is counted and reported; the next round comes after the interval."""
    log = log_of(TOPIC, 1)
    async with open_node(log, may_crash=True) as node:
        client = await node.follow(TOPIC)
        node.registry._journal = _Broken(node.journal, 3)  # type: ignore[assignment]
        log.append(1)
        for _ in range(100 if is_prompt else 0):
            queue_of(node).announce_nowait()
            await trio.sleep(0.001)
        await trio.sleep(2.1)
        assert node.crash_log.named == [("position_check", "")] * 3
        assert node.counters.task_restarts == {"position_check": 3}
        assert client.seqs(TOPIC) == up_to(2)


async def test_a_crash_in_one_topic_of_the_check(autojump_clock: MockClock) -> None:
    """INV-9: a topic that cannot be compared leaves those after it their comparison."""
    logs = [log_of(run_topic(number), 1) for number in range(3)]
    async with open_node(*logs, may_crash=True) as node:
        client = await node.follow(*(log.topic for log in logs))
        broken = node.registry._topics[logs[0].topic.name]
        broken.check_rights = lambda _seen: 1 / 0  # type: ignore[method-assign,assignment]
        for log in logs:
            log.append(1)
        await trio.sleep(0.53)
        assert [client.position(log.topic) for log in logs] == [2, 2, 2]
        assert node.crash_log.named == [("position_check", logs[0].topic.name)]


async def test_heals_are_bounded_and_fair(autojump_clock: MockClock) -> None:
    """500 topics behind at once: at most the readers read at a time, and all are level page by page."""
    logs = [log_of(run_topic(number), 1) for number in range(200)]
    limits = NodeLimits(journal_readers_max=8, position_check_interval_s=1_000)
    async with open_node(*logs, limits=limits) as node:
        client = await node.connect(*(log.topic for log in logs))
        for first in range(0, 200, 50):
            client.subscribe(*(log.topic for log in logs[first : first + 50]))
        await node.settle()
        node.journal.page_max_frames = 10
        node.journal.delay_s = 0.01
        for log in logs:
            log.append(30)
        node.journal.in_flight_max = 0
        queue_of(node).announce_nowait()
        spreads = []
        for _ in range(60):
            await trio.sleep(0.02)
            heads = [node.registry._topics[log.topic.name].head_seq for log in logs]
            spreads.append(max(heads) - min(heads))
        # Six of the eight: a quarter is left to replays.
        assert node.journal.in_flight_max == 6
        # First come, first served, a page each: none is two pages ahead of another.
        assert max(spreads) <= 20
        await trio.sleep(1)
        assert all(client.position(log.topic) == 31 for log in logs)


async def test_a_heal_does_not_wait_behind_replays(autojump_clock: MockClock) -> None:
    """Live delivery never waits for replays that wait, however many: a heal takes the next free reader."""
    logs = [log_of(run_topic(number), 100) for number in range(40)]
    async with open_node(*logs, limits=NodeLimits(journal_readers_max=2)) as node:
        live = await node.follow(TOPIC)
        live.seqs(TOPIC)
        client = await node.connect(*(log.topic for log in logs))
        node.journal.delay_s = 0.1
        client.subscribe(*(log.topic for log in logs))
        await trio.sleep(0.15)  # observed; forty pages are wanted, two are being read
        topic_log = next(log for log in logs if log.topic == TOPIC)
        topic_log.append(1)
        queue_of(node).announce_nowait(TOPIC.name)
        await trio.sleep(0.21)
        assert live.position(TOPIC) == 101
        assert sum(client.position(log.topic) == 100 for log in logs) < 20
        await trio.sleep(3)
        assert all(client.position(log.topic) >= 100 for log in logs)


async def test_a_check_of_many_topics_holds_up_nobody(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While many topics are compared, everybody else gets a turn after a bounded number of them."""
    monkeypatch.setattr("khala.actors.registry._TOPICS_PER_TURN", 2)
    logs = [log_of(run_topic(number), 1) for number in range(20)]
    async with open_node(*logs) as node:
        await node.follow(*(log.topic for log in logs))
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            turns = 0
            await node.registry.check_positions()
            # Ten, and in the last of them the other may come after us.
            assert turns >= 9
            nursery.cancel_scope.cancel()
