"""KH-02..04, FD-07: whatever a driver does to records, every wire is the journal, and soon.

The driver is the product's ``faulty`` around memory, by seed; time is virtual, the journal a fake. Every
transcript is judged as it is read: +1 after ``replay_complete``, the chain of the authority, no forgery.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from random import Random
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from fanout_drivers.base import RecordCopy
from fanout_drivers.faults import FaultRates
from fanout_drivers.faulty import FaultyDriver
from fanout_drivers.memory import MemoryDriver
from khala.core.limits import NodeLimits
from khala_contracts.codec import CursorStart, StaleCursor
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.topic_log import LINEAGE, TopicLog, run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from khala_contracts.topics import ParsedTopic
    from tests.actors.khala.node_under_test import ClientUnderTest, NodeUnderTest

TOPIC = run_topic(1)
# SPEC section 1, promise 4.
SOON_S = 2.0
HARM = FaultRates(loss=0.10, duplicate=0.20, reorder=0.20, delay=0.05, disconnect=0.01, forge=0.05)


def up_to(seq: int, *, after: int = 0) -> list[int]:
    """Seqs ``after + 1 .. seq``."""
    return list(range(after + 1, seq + 1))


async def test_the_last_record_before_silence(autojump_clock: MockClock) -> None:
    """KH-04: the last record is lost and nothing follows it: there within 2 s, on every node and wire."""
    driver = FaultyDriver(MemoryDriver(), FaultRates(loss=1.0), seed=1)
    log = log_of(TOPIC, 5)
    async with open_node(log, driver=driver) as node:  # type: ignore[arg-type]
        clients = [await node.follow(TOPIC, is_text=is_text) for is_text in (False, True)]
        await node.commit(log)
        assert [client.seqs(TOPIC) for client in clients] == [up_to(5)] * 2
        await trio.sleep(SOON_S)
        assert [client.seqs(TOPIC) for client in clients] == [up_to(6)] * 2
        assert driver.injected["loss"] == 1


async def test_one_of_each_ten_is_lost(autojump_clock: MockClock) -> None:
    """KH-04: each loss is one gap filled from the journal, and no other read is made."""
    log = log_of(TOPIC, 0)
    async with open_node(log, limits=NodeLimits(position_check_interval_s=1_000)) as node:
        client = await node.follow(TOPIC)
        for number in range(1, 501):
            record = log.append(1)
            if number % 10:
                await node.publish(record)
            await trio.sleep(0.03)
        assert node.counters.heals == 49  # the 500th is lost with nothing after it
        assert client.seqs(TOPIC) == up_to(499)
        node.registry.want_check()
        await node.settle()
        assert client.seqs(TOPIC) == up_to(500)
        assert node.counters.heals == 50


async def test_forgeries_reach_nobody(autojump_clock: MockClock) -> None:
    """FD-07: the right topic, the next seq and another key: never delivered, counted, and the real one comes."""
    driver = FaultyDriver(MemoryDriver(), FaultRates(forge=1.0), seed=3)
    log = log_of(TOPIC, 0)
    async with open_node(log, driver=driver) as node:  # type: ignore[arg-type]
        client = await node.follow(TOPIC)
        for _ in range(200):
            await node.commit(log)
        await trio.sleep(SOON_S)
        assert client.seqs(TOPIC) == up_to(200)
        assert client.transcript.topics[TOPIC.name].chain == log.chains[200]
        forged = driver.injected["forge"]
        assert forged >= 190
        # Those about another topic belong to nobody here; the others were looked at and refused.
        assert 0.5 * forged < node.counters.records_forged <= forged


async def test_records_held_and_dropped(autojump_clock: MockClock) -> None:
    """More records above a gap than may be held: what does not fit is read, in order, once."""
    log = log_of(TOPIC, 0)
    limits = NodeLimits(held_records_max=8, heal_delay_s=0.5)
    async with open_node(log, limits=limits) as node:
        client = await node.follow(TOPIC)
        log.append(1)  # lost
        for _ in range(30):
            await node.commit(log)
        await trio.sleep(0.6)
        assert client.seqs(TOPIC) == up_to(31)
        await node.commit(log)
        assert client.seqs(TOPIC) == up_to(32)


async def test_the_inbox_is_bounded_in_bytes(autojump_clock: MockClock) -> None:
    """INV-7: a burst of large records that its topic has not looked at is a hint beyond inbox_max_bytes."""
    log = log_of(TOPIC, 0)
    async with open_node(log, limits=NodeLimits(inbox_max_bytes=250_000)) as node:
        client = await node.follow(TOPIC)
        topic = node.registry._topics[TOPIC.name]
        for number in range(1, 6):
            topic.offer_record(log.append(1, payload=bytes(100_000)))
            assert topic._inbox_bytes == sum(len(e) for r in topic._inbox for e in r.entries) <= 250_000
            assert len(topic._inbox) == min(number, 2)
        await node.settle()
        assert topic._inbox_bytes == 0
        assert client.seqs(TOPIC) == up_to(5)
        assert node.counters.records["overflow"] == 3


@attrs.define(eq=False)
class _Hopper:
    """A client that follows every topic and changes nodes, resuming where it stands."""

    rng: Random
    topics: list[ParsedTopic]
    client: ClientUnderTest
    positions: dict[str, int] = attrs.field(factory=dict)
    hops: int = 0

    async def hop(self, nodes: list[NodeUnderTest]) -> None:
        """Leave, without a word or with one, and resume on another node."""
        self.note()
        self.client.peer.vanish() if self.rng.random() < 0.5 else self.client.peer.leave()
        node = self.rng.choice(nodes)
        self.client = await node.connect(*self.topics, is_text=self.rng.random() < 0.3)
        for topic in self.topics:
            self.client.subscribe(topic, start=CursorStart(self.positions[topic.name], LINEAGE))
        self.hops += 1

    def note(self) -> None:
        """Apply what has come: the transcript has judged that it is +1 from where it resumed."""
        for topic in self.topics:
            self.positions[topic.name] = max(self.positions.get(topic.name, 0), self.client.position(topic))


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_is_lost_under_all_faults(autojump_clock: MockClock, seed: int) -> None:
    """Three nodes, ten topics, clients that hop; loss, duplicates, reordering, delay, forgery: contiguous."""
    rng = Random(seed)
    logs = [log_of(run_topic(number), rng.randrange(20)) for number in range(10)]
    topics = [log.topic for log in logs]
    memory = MemoryDriver()
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                open_node(*logs, driver=FaultyDriver(memory, HARM, seed * 3 + number))  # type: ignore[arg-type]
            )
            for number in range(3)
        ]
        hoppers = []
        for number in range(9):
            client = await nodes[number % 3].connect(*topics)
            client.subscribe(*topics)
            hoppers.append(_Hopper(Random(rng.random()), topics, client))
        for _ in range(150):
            log = rng.choice(logs)
            record = log.append(rng.choice((1, 1, 3)))
            await memory.publish(record.topic, nodes[0].signer.seal(record))
            await trio.sleep(rng.random() * 0.02)
            if rng.random() < 0.05:
                await rng.choice(hoppers).hop(nodes)
        await trio.sleep(SOON_S)
        for hopper in hoppers:
            hopper.note()
            assert hopper.positions == {log.topic.name: log.head_seq for log in logs}
            assert hopper.client.take_all(StaleCursor) == []
        assert sum(hopper.hops for hopper in hoppers) > 0
        for fault in ("loss", "duplicate", "reorder", "delay", "forge"):
            assert memory.counters.injected[fault] > 5, fault
        assert sum(node.counters.records_forged for node in nodes) > 0


async def test_a_record_of_a_future_that_never_came(autojump_clock: MockClock) -> None:
    """A sealed record of a history that was cut off behind us: the journal decides, nothing is repeated."""
    log = log_of(TOPIC, 5)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        other = TopicLog(TOPIC)
        other.append(5, payload=b"y")
        await node.publish(other.append(1, payload=b"y"))
        await trio.sleep(SOON_S)
        assert client.seqs(TOPIC) == up_to(5)
        assert node.counters.records["conflict"] == 1
        await node.commit(log)
        assert client.seqs(TOPIC) == up_to(6)


async def test_copies_of_nothing(autojump_clock: MockClock) -> None:
    """Bytes that are no record at all: counted, and nobody waits."""
    log = log_of(TOPIC, 1)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        for data in (b"", b"\xff" * 100, b"\x0a\x03abc"):
            for subscriber in node.driver._subscribers:
                subscriber.offer_nowait(RecordCopy(TOPIC.name, data))
        await node.commit(log)
        assert client.seqs(TOPIC) == up_to(2)
        assert node.counters.records_forged == 3
