"""Copies for the nodes: order, bounds, and a driver that is slow, broken or away."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fanout_drivers.base import RECORD_ENTRIES_MAX_BYTES
from khala_contracts.chain import chain_next, chain_start
from khala_contracts.codec import EntryTemplate
from khala_contracts.topics import Lineage
from runtime.actors.relay import TOPICS_MAX, Relay, records_of
from runtime.core.batch_commit import CommittedTopic
from tests.actors.runtime.rig import (
    LINEAGE,
    SIGNER,
    CountedMetrics,
    FixedClock,
    RecordingDriver,
    topic_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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


async def test_driver_that_is_away() -> None:
    """A publish that fails is counted and the next one is tried; nobody is told twice."""
    async with relaying() as (relay, driver, metrics):
        driver.failures = 1
        relay.offer(commits(1, 1), lineage=Lineage(LINEAGE))
        relay.offer(commits(2, 1), lineage=Lineage(LINEAGE))
        await wait_all_tasks_blocked()
        assert [record.topic for record in driver.records()] == [topic_of(2)]
        assert metrics.dropped == 1


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
