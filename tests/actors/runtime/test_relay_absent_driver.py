"""A driver that takes nothing, by itself or by its own bugs: what is counted, remembered, and when it is tried."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanout_drivers.faults import FaultRates
from fanout_drivers.faulty import FaultyDriver
from fanout_drivers.nats import NatsDriver, NatsLimits
from fanout_drivers.nats_login import NatsLogin
from khala_contracts.topics import Lineage
from khala_service.logs import configure_logging
from runtime.actors.relay import CRASHED_TOPICS_MAX, HEALTH_CHECK_S, RETRY_FIRST_S, Relay
from runtime.core.relayed_records import RelayedRecords
from tests.actors.runtime.rig import LINEAGE, SIGNER, CountedMetrics, RecordingDriver, topic_of
from tests.actors.runtime.test_relay import CLOCK, commits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fanout_drivers.base import FanoutDriver

HERE = Lineage(LINEAGE)


@attrs.define(eq=False)
class FakeSession:
    """As much of a connection to NATS as publishing looks at."""

    payload_max_bytes: int = 1 << 20


@attrs.define(eq=False)
class Desk:
    """A relay that is served, and what it reports to."""

    relay: Relay
    metrics: CountedMetrics
    relayed: RelayedRecords

    def offer(self, *numbers: int) -> None:
        """Commit one event to each of these topics."""
        for number in numbers:
            self.relay.offer(commits(number, 1), lineage=HERE)


@asynccontextmanager
async def relaying_to(driver: FanoutDriver) -> AsyncIterator[Desk]:
    """Serve a relay."""
    metrics, relayed = CountedMetrics(), RelayedRecords()
    relay = Relay(driver, SIGNER, clock=CLOCK, metrics=metrics, bytes_max=1 << 20, relayed=relayed)
    async with trio.open_nursery() as nursery:
        await nursery.start(relay.serve)
        yield Desk(relay, metrics, relayed)
        nursery.cancel_scope.cancel()


def nats_driver(limits: NatsLimits | None = None) -> NatsDriver:
    """Return a driver that nobody serves: its broker is away until a test says otherwise."""
    return NatsDriver(("nats://127.0.0.1:1",), NatsLogin("khala-test"), "test", limits or NatsLimits())


def connect(driver: NatsDriver) -> None:
    """Let the broker be there."""
    driver._session = FakeSession()  # type: ignore[assignment]
    driver._is_connected = True


@pytest.mark.parametrize("is_faulty", [False, True])
async def test_an_absent_broker_is_told_nothing(autojump_clock: MockClock, is_faulty: bool) -> None:
    """NATS away: refused records count and are remembered as such; back, each topic's hint follows at once."""
    nats = nats_driver()
    driver: FanoutDriver = FaultyDriver(nats, FaultRates()) if is_faulty else nats
    async with relaying_to(driver) as desk:
        begun = trio.current_time()
        desk.offer(1, 2)
        assert trio.current_time() == begun
        await trio.sleep(60)
        assert desk.metrics.publications == []
        assert set(desk.metrics.publish_failures) == {"unavailable"}
        assert 5 < len(desk.metrics.publish_failures) == nats.counters.publish_failures < 15
        assert desk.relayed.find(topic_of(1), 1) is None
        assert (desk.relay.waiting_topics, desk.relay.waiting_bytes) == (2, 0)
        connect(nats)
        await trio.sleep(HEALTH_CHECK_S)
        await wait_all_tasks_blocked()
        assert desk.metrics.publications == [False, False]
        told = desk.relayed.find(topic_of(1), 1)
        assert told is not None
        assert not told.is_copy
        assert desk.relay.waiting_topics == 0
        # The absence is over: copies again, at once.
        desk.offer(3)
        await wait_all_tasks_blocked()
        assert desk.metrics.publications == [False, False, True]


async def test_a_full_outbox_is_tried_again_soon(autojump_clock: MockClock) -> None:
    """A broker that is there and has no room: nothing is lost, the topic that was refused is told next."""
    driver = nats_driver(NatsLimits(outbox_max_records=1))
    connect(driver)
    async with relaying_to(driver) as desk:
        desk.offer(1, 2)
        await wait_all_tasks_blocked()
        assert desk.metrics.publications == [True]
        assert driver._outbox.clear() == 1
        await trio.sleep(RETRY_FIRST_S)
        await wait_all_tasks_blocked()
        assert desk.metrics.publications == [True, False]
        assert driver.counters.publish_failures == len(desk.metrics.publish_failures) == 1


async def test_a_return_between_two_looks_is_noticed(autojump_clock: MockClock) -> None:
    """Health that came back after the last look of one pause ends the next one, which would last long."""
    driver = RecordingDriver(failures=1_000, is_healthy=False)
    async with relaying_to(driver) as desk:
        desk.offer(1)
        # Tried after 0.1 + 0.2 + ... + 6.4 = 12.7 s, in vain; then would come a pause of 12.8 s.
        await trio.sleep(12.6)
        assert len(desk.metrics.publish_failures) == 7
        driver.failures, driver.is_healthy = 1, True
        await trio.sleep(0.2)
        await wait_all_tasks_blocked()
        assert len(desk.metrics.publish_failures) == 8
        assert len(driver.records()) == 1


async def test_poison_during_an_absence_costs_no_pause(autojump_clock: MockClock) -> None:
    """INV-21: topics whose news cannot be told do not prolong the absence for the others."""
    driver = RecordingDriver(failures=1)
    async with relaying_to(driver) as desk:
        desk.offer(1, 2)
        await wait_all_tasks_blocked()
        driver.poisonous = topic_of(1)
        await trio.sleep(RETRY_FIRST_S)
        await wait_all_tasks_blocked()
        assert [record.topic for record in driver.records()] == [topic_of(2)]
        assert desk.metrics.poisons == len(desk.metrics.publish_failures) == 1


@attrs.define
class BuggyDriver(RecordingDriver):
    """Fails in its own way, whatever it is given, until it is repaired."""

    is_broken: bool = True
    tries: int = 0

    async def publish(self, topic: str, data: bytes) -> None:
        self.tries += 1
        if self.is_broken:
            await trio.lowlevel.checkpoint()
            raise LookupError("a bug of the driver")
        await super().publish(topic, data)  # type: ignore[arg-type]


async def test_a_driver_that_only_crashes_is_paused(
    autojump_clock: MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its own bugs, for one topic after the other: pauses that double, one traceback for a piece of news."""
    configure_logging("runtime")
    driver = BuggyDriver()
    async with relaying_to(driver) as desk:
        desk.offer(*range(CRASHED_TOPICS_MAX))
        await wait_all_tasks_blocked()
        # Each as a copy, then as a hint.
        assert driver.tries == desk.metrics.poisons == 2 * CRASHED_TOPICS_MAX
        lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
        alarms = [line for line in lines if line["event"] == "relay_poisoned"]
        assert sum("exception" in line for line in alarms) == CRASHED_TOPICS_MAX
        assert [line["reason"] for line in lines if line["event"] == "driver_away"] == ["driver_crashed"]
        for number in range(1_000):
            desk.offer(number)
            assert desk.relay.waiting_bytes == 0
            await trio.sleep(0.1)
        # 0.1 + 0.2 + ... + 25.6 = 51 s, then after 30 s more; three hints each time.
        assert 30 < driver.tries < 2 * CRASHED_TOPICS_MAX + 12 * CRASHED_TOPICS_MAX
        driver.is_broken = False
        await trio.sleep(30)
        await wait_all_tasks_blocked()
        assert desk.relay.waiting_topics == 0
        desk.offer(2_000)
        await wait_all_tasks_blocked()
        assert driver.records()[-1].entries
