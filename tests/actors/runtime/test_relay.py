"""Copies for the nodes: order, bounds, and a driver that is slow, broken or away."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanout_drivers.base import RECORD_ENTRIES_MAX_BYTES
from khala_contracts.chain import chain_next, chain_start
from khala_contracts.codec import EntryTemplate
from khala_contracts.topics import Lineage
from khala_service import failpoints
from khala_service.logs import configure_logging
from runtime.actors.relay import (
    CRASHED_TOPICS_MAX,
    HEALTH_CHECK_S,
    RETRY_FIRST_S,
    RETRY_MAX_S,
    TOPICS_MAX,
    Relay,
)
from runtime.core.batch_commit import CommittedTopic
from runtime.core.record_copies import records_of
from runtime.core.relayed_records import RelayedRecord, RelayedRecords
from runtime.ports import TopicRecord
from tests.actors.runtime.rig import (
    LINEAGE,
    SIGNER,
    VERIFIER,
    CountedMetrics,
    FixedClock,
    RecordingDriver,
    topic_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from khala_contracts.fanout_records import FanoutRecord
    from khala_contracts.topics import TopicName

CLOCK = FixedClock()
NOW_US = int(CLOCK.now() * 1e6)


def commits(number: int, *counts: int, size: int = 10) -> list[CommittedTopic]:
    """Return consecutive commits to one topic with this many events each."""
    topic = topic_of(number)
    chain, seq = chain_start(topic), 0
    made: list[CommittedTopic] = []
    for count in counts:
        first, before, chains = seq + 1, chain, b""
        payloads = [bytes([index % 256]) * size for index in range(count)]
        for payload in payloads:
            seq += 1
            chain = chain_next(chain, seq, 1, "thought", payload)
            chains += chain
        made.append(
            CommittedTopic(
                topic, "run_events", first, ["thought"] * count, payloads, [1] * count, chains, before, 5
            )
        )
    return made


def entries_of(made: list[CommittedTopic]) -> list[bytes]:
    """Return all entries of the commits."""
    template = EntryTemplate(made[0].topic)
    return [
        template.entry(commit.first_seq + index, "thought", payload, 1)
        for commit in made
        for index, payload in enumerate(commit.payloads)
    ]


@asynccontextmanager
async def relaying(
    *, bytes_max: int = 1 << 20
) -> AsyncIterator[tuple[Relay, RecordingDriver, CountedMetrics]]:
    """Serve a relay."""
    driver, metrics = RecordingDriver(), CountedMetrics()
    relay = Relay(driver, SIGNER, clock=CLOCK, metrics=metrics, bytes_max=bytes_max)
    async with trio.open_nursery() as nursery:
        await nursery.start(relay.serve)
        yield relay, driver, metrics
        nursery.cancel_scope.cancel()


async def test_publishes_what_was_committed() -> None:
    """A record carries the entries, the chain around them and when the commit was seen."""
    (commit,) = commits(1, 3)
    async with relaying() as (relay, driver, metrics):
        relay.offer([commit], lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        (record,) = driver.records()
        assert driver.published[0][0] == record.topic == commit.topic
        assert (record.first_seq, record.last_seq, record.lineage) == (1, 3, LINEAGE)
        assert record.chain_before == commit.chain_before
        assert record.chain_after == commit.chains[-32:]
        assert list(record.entries) == entries_of([commit])
        assert record.committed_at_us == NOW_US
        assert metrics.dropped == 0


async def test_offer_never_waits_and_joins_what_waits() -> None:
    """While the driver is busy, commits of one topic are joined into one record, in order."""
    made = commits(1, 1, 2, 3)
    async with relaying() as (relay, driver, _):
        driver.gate = trio.Event()
        relay.offer(commits(2, 1), lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        for commit in made:
            relay.offer([commit], lineage=Lineage(LINEAGE))
        assert relay.waiting_topics == 1
        assert relay.waiting_bytes == 60
        driver.gate.set()
        await wait_all_tasks_blocked()
        record = driver.records()[1]
        assert (record.first_seq, record.last_seq) == (1, 6)
        assert list(record.entries) == entries_of(made)
        assert relay.waiting_bytes == relay.waiting_topics == 0


async def test_wrong_order_is_put_right() -> None:
    """Two writers may hand over one topic's commits in the wrong order; what waits is sorted."""
    first, second, third = commits(1, 1, 1, 1)
    async with relaying() as (relay, driver, _):
        relay.offer([third], lineage=Lineage(LINEAGE))
        relay.offer([first], lineage=Lineage(LINEAGE))
        relay.offer([second], lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        (record,) = driver.records()
        assert (record.first_seq, record.last_seq) == (1, 3)


async def test_a_hole_splits_the_record() -> None:
    """Commits that do not continue each other travel as records of their own."""
    first, _, third = commits(1, 1, 1, 1)
    async with relaying() as (relay, driver, _):
        relay.offer([first], lineage=Lineage(LINEAGE))
        relay.offer([third], lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        assert [(record.first_seq, record.last_seq) for record in driver.records()] == [(1, 1), (3, 3)]
        assert driver.records()[1].chain_before == third.chain_before


@pytest.mark.parametrize(("bytes_max", "hints"), [(60, 0), (59, 1)])
async def test_bytes_are_bounded(bytes_max: int, hints: int) -> None:
    """relay_bytes_max bytes of copies may wait; one more and the topic's copies shrink to a hint."""
    made = commits(1, 2, 2, 2)
    async with relaying(bytes_max=bytes_max) as (relay, driver, metrics):
        driver.gate = trio.Event()
        for commit in made:
            relay.offer([commit], lineage=Lineage(LINEAGE))
        assert relay.waiting_bytes == (0 if hints else 60)
        driver.gate.set()
        await wait_all_tasks_blocked()
        (record,) = driver.records()
        assert (record.first_seq, record.last_seq) == (1, 6)
        assert record.chain_before == made[0].chain_before
        assert record.chain_after == made[-1].chains[-32:]
        assert len(record.entries) == (0 if hints else 6)
        assert metrics.dropped == 3 * hints


async def test_hint_goes_on_growing() -> None:
    """After a topic has shrunk, later commits only move its hint: nothing is kept that cannot be used."""
    made = commits(1, 2, 2, 2, 2)
    async with relaying(bytes_max=30) as (relay, driver, metrics):
        driver.gate = trio.Event()
        for commit in made:
            relay.offer([commit], lineage=Lineage(LINEAGE))
        assert relay.waiting_bytes == 0
        driver.gate.set()
        await wait_all_tasks_blocked()
        (record,) = driver.records()
        assert (record.first_seq, record.last_seq, record.entries) == (1, 8, ())
        assert metrics.dropped == 4


async def test_topics_are_bounded() -> None:
    """News of more topics than TOPICS_MAX are dropped and counted."""
    async with relaying(bytes_max=1 << 30) as (relay, driver, metrics):
        driver.gate = trio.Event()
        relay.offer(commits(0, 1), lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        for number in range(1, TOPICS_MAX + 3):
            relay.offer(commits(number, 1), lineage=Lineage(LINEAGE))
        assert relay.waiting_topics == TOPICS_MAX
        assert metrics.dropped == 2


async def test_driver_that_is_away(autojump_clock: MockClock) -> None:
    """A driver that does not take a record is told the ranges later: nothing is copied to it meanwhile."""
    async with relaying() as (relay, driver, metrics):
        driver.failures = 1
        relay.offer(commits(1, 1), lineage=Lineage(LINEAGE))
        relay.offer(commits(2, 1), lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        assert driver.records() == []
        assert relay.waiting_bytes == 0
        await trio.sleep(RETRY_FIRST_S)
        await wait_all_tasks_blocked()
        assert [(record.topic, record.entries) for record in driver.records()] == [
            (topic_of(1), ()), (topic_of(2), ()),
        ]  # fmt: skip
        assert metrics.publish_failures == ["unavailable"]
        assert metrics.publications == [False, False]
        assert metrics.dropped == 2
        # Back to copies.
        relay.offer(commits(3, 1), lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        assert metrics.publications == [False, False, True]


async def test_driver_that_stays_away(autojump_clock: MockClock) -> None:
    """FD-04: it is tried after pauses that double up to RETRY_MAX_S; what waits stays one hint per topic."""
    async with relaying() as (relay, driver, metrics):
        driver.failures = 1_000
        made = commits(1, *[1] * 700)
        for commit in made:
            relay.offer([commit], lineage=Lineage(LINEAGE))
            await trio.sleep(1)
            assert relay.waiting_topics <= 1
            assert relay.waiting_bytes == 0
        # 0.1 + 0.2 + ... + 25.6 = 51 s, then one every 30 s.
        assert len(metrics.publish_failures) == pytest.approx(10 + (700 - 51) / RETRY_MAX_S, abs=1)
        assert relay.lag_s == 700
        driver.failures = 0
        await trio.sleep(RETRY_MAX_S)
        await wait_all_tasks_blocked()
        (record,) = driver.records()
        assert (record.first_seq, record.last_seq, record.entries) == (1, 700, ())
        assert relay.lag_s == 0


async def test_driver_that_comes_back(autojump_clock: MockClock) -> None:
    """A driver that says it is healthy again is used within HEALTH_CHECK_S, however long the pause was."""
    async with relaying() as (relay, driver, _):
        driver.failures, driver.is_healthy = 10, False
        relay.offer(commits(1, 1), lineage=Lineage(LINEAGE))
        await trio.sleep(30)
        relay.offer(commits(2, 1), lineage=Lineage(LINEAGE))
        assert relay.waiting_bytes == 0
        await trio.sleep(30)
        assert driver.records() == []
        driver.failures, driver.is_healthy = 0, True
        await trio.sleep(HEALTH_CHECK_S)
        await wait_all_tasks_blocked()
        assert [record.entries for record in driver.records()] == [(), ()]


async def test_driver_that_blocks_for_ever(autojump_clock: MockClock) -> None:
    """A publish that never returns is given up after PUBLISH_TIMEOUT_S; commits never notice."""
    async with relaying(bytes_max=100) as (relay, driver, metrics):
        driver.gate = trio.Event()
        for number in range(50):
            begun = trio.current_time()
            relay.offer(commits(number, 2), lineage=Lineage(LINEAGE))
            assert trio.current_time() == begun
            assert relay.waiting_bytes <= 100
            await trio.sleep(0.1)
        assert metrics.publish_failures[0] == "timeout"
        assert relay.waiting_topics <= 50
        driver.gate.set()
        await trio.sleep(RETRY_MAX_S)
        await wait_all_tasks_blocked()
        assert {record.topic for record in driver.records()} == {topic_of(number) for number in range(50)}
        assert relay.waiting_topics == relay.waiting_bytes == 0


async def test_broken_health_check(autojump_clock: MockClock) -> None:
    """A driver whose health cannot be asked is tried after the pauses all the same."""
    async with relaying() as (relay, driver, _):
        driver.failures, driver.health_error = 5, RuntimeError("a bug of the driver")
        relay.offer(commits(1, 1), lineage=Lineage(LINEAGE))
        await trio.sleep(10)
        assert len(driver.records()) == 1


async def test_poison_costs_its_own_topic_its_copies(capfd: pytest.CaptureFixture[str]) -> None:
    """RT-26: news that cannot be encoded become a hint; other topics are copied, and it is counted and said."""
    configure_logging("runtime")
    (good,), (poison,), (after,) = commits(1, 1), commits(2, 1), commits(3, 1)
    poison = attrs.evolve(poison, schema_versions=[])
    async with relaying() as (relay, driver, metrics):
        relay.offer([good, poison, after], lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        assert [(record.topic, bool(record.entries)) for record in driver.records()] == [
            (good.topic, True), (poison.topic, False), (after.topic, True),
        ]  # fmt: skip
        assert metrics.poisons == 1
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    alarms = [line for line in lines if line["event"] == "relay_poisoned"]
    assert [(line["level"], line["topic"]) for line in alarms] == [("error", poison.topic)]


async def test_driver_that_raises_anything(autojump_clock: MockClock) -> None:
    """A driver's own bug for one topic's records drops that topic's news and stops nothing."""
    async with relaying() as (relay, driver, metrics):
        driver.poisonous = topic_of(2)
        for number in (1, 2, 3):
            relay.offer(commits(number, 1), lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        assert [record.topic for record in driver.records()] == [topic_of(1), topic_of(3)]
        # Once as a copy, once as a hint.
        assert metrics.poisons == 2
        assert relay.waiting_topics == relay.waiting_bytes == relay.lag_s == 0


async def test_a_point_after_the_hint_is_contained(autojump_clock: MockClock) -> None:
    """What fails after the driver took a record is no reason to stop."""
    failpoints.arm("runtime.after_hint=raise")
    async with relaying() as (relay, driver, metrics):
        relay.offer(commits(1, 1), lineage=Lineage(LINEAGE))
        relay.offer(commits(2, 1), lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        assert driver.records()[-1].topic == topic_of(2)
        assert metrics.poisons == 1


async def test_heads_of_topics() -> None:
    """A head travels as a hint from the beginning of the topic, and joins what waits for the same topic."""
    (first, second) = commits(1, 2, 1)
    head = TopicRecord(
        first.topic, "run_events", Lineage(LINEAGE), 9, b"h" * 32, 0, 1, chain_start(first.topic), 0, "none",
        None, None,
    )  # fmt: skip
    async with relaying() as (relay, driver, _):
        driver.gate = trio.Event()
        relay.offer([first], lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        relay.offer([second], lineage=Lineage(LINEAGE))
        relay.offer_heads([head, attrs.evolve(head, topic=topic_of(2), head_seq=0)])
        assert relay.waiting_topics == 1
        driver.gate.set()
        await wait_all_tasks_blocked()
        told = driver.records()[1]
        assert (told.first_seq, told.last_seq, told.entries) == (1, 9, ())
        assert told.chain_after == head.head_chain
        relay.offer_heads([head])
        await wait_all_tasks_blocked()
        told = driver.records()[2]
        assert (told.first_seq, told.last_seq, told.chain_before) == (1, 9, chain_start(first.topic))


async def test_what_was_relayed_is_remembered() -> None:
    """Who asks when the nodes were told of an event is answered from a bounded memory."""
    relayed = RelayedRecords(capacity=2)
    driver, metrics = RecordingDriver(), CountedMetrics()
    relay = Relay(driver, SIGNER, clock=CLOCK, metrics=metrics, bytes_max=15, relayed=relayed)
    async with trio.open_nursery() as nursery:
        await nursery.start(relay.serve)
        relay.offer(commits(1, 2), lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        relay.offer(commits(2, 1), lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        assert relayed.find(topic_of(1), 2) == RelayedRecord(topic_of(1), 1, 2, False, "recording", NOW_US)
        assert relayed.find(topic_of(2), 1) == RelayedRecord(topic_of(2), 1, 1, True, "recording", NOW_US)
        assert relayed.find(topic_of(2), 2) is None
        relay.offer(commits(3, 1), lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        assert len(relayed) == 2
        assert relayed.find(topic_of(1), 2) is None
        nursery.cancel_scope.cancel()


def test_records_are_split_at_the_limit() -> None:
    """Entries above RECORD_ENTRIES_MAX_BYTES travel as several records, each continuing the previous."""
    made = commits(1, 5, size=200_000)
    records = list(records_of(made, lineage=Lineage(LINEAGE), seen_at_us=1))
    assert [(record.first_seq, record.last_seq) for record in records] == [(1, 2), (3, 4), (5, 5)]
    assert all(sum(map(len, record.entries)) <= RECORD_ENTRIES_MAX_BYTES for record in records)
    assert [entry for record in records for entry in record.entries] == entries_of(made)
    chain = made[0].chain_before
    for record in records:
        assert record.chain_before == chain
        chain = record.chain_after
    assert chain == made[0].chains[-32:]


@pytest.mark.parametrize("over", [0, 1])
def test_an_entry_at_the_limit(over: int) -> None:
    """One entry of exactly the limit travels; one byte more and it is a hint."""
    overhead = (
        len(entries_of(commits(1, 1, size=RECORD_ENTRIES_MAX_BYTES // 2))[0]) - RECORD_ENTRIES_MAX_BYTES // 2
    )
    made = commits(1, 1, size=RECORD_ENTRIES_MAX_BYTES - overhead + over)
    (record,) = records_of(made, lineage=Lineage(LINEAGE), seen_at_us=1)
    assert len(record.entries) == 1 - over


@attrs.define
class PromptDriver(RecordingDriver):
    """A driver that takes records in the caller's step, as long as it is not told otherwise."""

    takes_at_once: int = 1_000
    at_once: list[FanoutRecord] = attrs.field(factory=list)

    def publish_nowait(self, topic: TopicName, data: bytes) -> bool:
        """Take a record, or refuse it; a poisonous topic meets a bug."""
        if topic == self.poisonous:
            raise LookupError(topic)
        if not self.takes_at_once:
            return False
        self.takes_at_once -= 1
        self.published.append((topic, data))
        self.at_once.append(VERIFIER.open_untrusted(data))
        return True


@asynccontextmanager
async def relaying_at_once(driver: PromptDriver) -> AsyncIterator[tuple[Relay, CountedMetrics]]:
    """Serve a relay before such a driver."""
    metrics = CountedMetrics()
    relay = Relay(driver, SIGNER, clock=CLOCK, metrics=metrics, bytes_max=1 << 20)
    async with trio.open_nursery() as nursery:
        await nursery.start(relay.serve)
        await wait_all_tasks_blocked()
        yield relay, metrics
        nursery.cancel_scope.cancel()


async def test_a_commit_is_told_in_its_own_step() -> None:
    """A driver that takes records at once has them when `offer` returns; the task repeats none."""
    driver = PromptDriver()
    first, second = commits(1, 2, 3)
    async with relaying_at_once(driver) as (relay, metrics):
        relay.offer([first], lineage=Lineage(LINEAGE))
        relay.offer([second], lineage=Lineage(LINEAGE))
        assert [(record.first_seq, record.last_seq) for record in driver.at_once] == [(1, 2), (3, 5)]
        assert (relay.waiting_topics, relay.waiting_bytes, relay.lag_s) == (0, 0, 0)
        await wait_all_tasks_blocked()
        assert len(driver.published) == 2
        assert metrics.publications == [True, True]


async def test_what_a_driver_does_not_take_at_once_is_told_by_the_task() -> None:
    """A refusal loses nothing and overtakes nothing: the task publishes what is left, in order."""
    driver = PromptDriver(takes_at_once=1)
    first, second, third = commits(1, 1, 1, 1)
    async with relaying_at_once(driver) as (relay, metrics):
        for commit in (first, second, third):
            relay.offer([commit], lineage=Lineage(LINEAGE))
        driver.takes_at_once = 1_000
        await wait_all_tasks_blocked()
        assert [(record.first_seq, record.last_seq) for record in driver.records()] == [(1, 1), (2, 3)]
        assert metrics.dropped == 0


async def test_nothing_is_told_at_once_behind_a_driver_that_is_busy_or_away(
    autojump_clock: MockClock,
) -> None:
    """While the task publishes, or the driver is left alone, a commit waits its turn behind it."""
    driver = PromptDriver(takes_at_once=0, failures=1)
    first, second = commits(1, 1, 1)
    async with relaying_at_once(driver) as (relay, _):
        driver.gate = trio.Event()
        relay.offer([first], lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        driver.takes_at_once = 1_000
        relay.offer([second], lineage=Lineage(LINEAGE))
        assert not driver.at_once
        driver.gate.set()
        await wait_all_tasks_blocked()
        relay.offer(commits(2, 1), lineage=Lineage(LINEAGE))
        assert not driver.at_once, "the driver has just failed"
        await trio.sleep(RETRY_FIRST_S + HEALTH_CHECK_S)
        assert [record.last_seq for record in driver.records()] == [2, 1]


async def test_poison_met_at_once_is_contained_by_the_task() -> None:
    """INV-21: `offer` never fails; the poisonous topic costs its own copies, its neighbour is told."""
    driver = PromptDriver(poisonous=topic_of(1))
    async with relaying_at_once(driver) as (relay, metrics):
        relay.offer([*commits(1, 1), *commits(2, 1)], lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        assert [record.topic for record in driver.records()] == [topic_of(2)]
        assert metrics.poisons == 2


async def test_news_of_several_records_are_told_by_the_task_once() -> None:
    """A driver that takes the first record at once and not the second does not get the first again."""
    driver = PromptDriver(takes_at_once=1)
    async with relaying_at_once(driver) as (relay, metrics):
        relay.offer(commits(1, 5, size=200_000), lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        told = [(record.first_seq, record.last_seq) for record in driver.records()]
        assert told == [(1, 2), (3, 4), (5, 5)]
        assert metrics.publications == [True, True, True]


async def test_a_driver_that_takes_others_at_once_is_not_to_blame() -> None:
    """Invariant 4: topics whose news no driver can take pause nothing while records of others are taken between them."""
    driver = PromptDriver()
    async with relaying_at_once(driver) as (relay, _):
        for number in range(1, CRASHED_TOPICS_MAX + 1):
            driver.poisonous = topic_of(number)
            relay.offer(commits(number, 1), lineage=Lineage(LINEAGE))
            await wait_all_tasks_blocked()
            relay.offer(commits(100 + number, 1), lineage=Lineage(LINEAGE))
            assert driver.records()[-1].topic == topic_of(100 + number), "told at once"
