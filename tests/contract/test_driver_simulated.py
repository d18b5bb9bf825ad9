"""The simulation's broker passes the suite of all drivers: calm, and with everything going wrong."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

import trio

from chaos.sim.driver_model import FanoutModel
from chaos.sim.gates import BrokerFaults, Latency
from fanout_drivers.base import PositionUnknown, RecordCopy, RevocationsHint
from khala_service.errors import Unavailable
from tests.actors.runtime.memory_journal_store import open_gate
from tests.contract.driver_suite import DriverSuite, in_virtual_time
from tests.topic_log import run_topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from fanout_drivers.base import FanoutDriver

TOPIC = run_topic(1).name


def open_model(faults: BrokerFaults, *, queue_max_records: int = 4_096) -> FanoutModel:
    """Return a broker."""
    return FanoutModel(rng=Random(1), faults=faults, queue_max_records=queue_max_records)


@in_virtual_time
class TestCalmBroker(DriverSuite):
    """Everything is a little late."""

    @asynccontextmanager
    async def open_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one for a process."""
        yield open_model(BrokerFaults()).open_driver(open_gate())

    @asynccontextmanager
    async def open_small_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one whose subscribers hold 50 messages."""
        yield open_model(BrokerFaults(), queue_max_records=50).open_driver(open_gate())

    @asynccontextmanager
    async def open_absent_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one whose broker is down."""
        yield open_model(BrokerFaults(is_down=True)).open_driver(open_gate())


WILD = BrokerFaults(loss=0.1, duplicate=0.2, reorder=0.2, forge=0.1, corrupt=0.05, delay=Latency(0.0, 0.3))


@in_virtual_time
class TestWildBroker(DriverSuite):
    """Everything at once."""

    @asynccontextmanager
    async def open_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one for a process."""
        yield open_model(WILD).open_driver(open_gate())

    @asynccontextmanager
    async def open_small_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one whose subscribers hold 50 messages."""
        yield open_model(WILD, queue_max_records=50).open_driver(open_gate())


async def test_each_fault_happens_and_is_counted(autojump_clock: MockClock) -> None:
    """A tenth of each: about so many of a thousand, and nobody is told."""
    del autojump_clock
    model = open_model(BrokerFaults(loss=0.1, duplicate=0.1, reorder=0.1, forge=0.1, corrupt=0.1))
    driver = model.open_driver(open_gate())
    async with driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        for number in range(1_000):
            await driver.publish(TOPIC, b"%d" % number)
        await trio.sleep(1)
        got: list[bytes] = []
        with trio.move_on_after(1):
            while True:
                delivery = await subscriber.receive()
                assert isinstance(delivery, RecordCopy)
                got.append(delivery.data)
    for fault in ("loss", "duplicate", "reorder", "forge", "corrupt"):
        assert 60 < model.injected[fault] < 140, fault
    genuine = [data for data in got if data.isdigit() and int(data) < 1_000]
    assert 700 < len(set(genuine)) < 950
    assert genuine != sorted(genuine, key=int)


async def test_a_place_that_is_cut_off_hears_nothing_and_is_not_told(autojump_clock: MockClock) -> None:
    """One way: what is sent to it vanishes, what it sends arrives; after the cut it is told when it asks anew."""
    del autojump_clock
    model = open_model(BrokerFaults())
    here, there = model.open_driver(open_gate("here")), model.open_driver(open_gate("there"))
    async with here.open_subscriber() as near, there.open_subscriber() as far:
        await near.subscribe(TOPIC)
        await far.subscribe(TOPIC)
        model.faults.cut_to["there"] = None
        await here.publish(TOPIC, b"one")
        await there.publish(TOPIC, b"two")
        assert [await near.receive(), await near.receive()] == [
            RecordCopy(TOPIC, b"one"),
            RecordCopy(TOPIC, b"two"),
        ]
        with trio.move_on_after(5) as scope:
            await far.receive()
        assert scope.cancelled_caught
        del model.faults.cut_to["there"]
        model.announce("there")
        assert [await far.receive(), await far.receive()] == [RevocationsHint(), PositionUnknown(None)]


async def test_what_a_place_says_into_a_cut_is_refused_or_lost(autojump_clock: MockClock) -> None:
    """Some of it is refused, which is counted; some of it the kernel took, and nobody ever hears of it."""
    del autojump_clock
    model = open_model(BrokerFaults())
    driver = model.open_driver(open_gate("mute"))
    async with driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        model.faults.cut_from["mute"] = None
        reasons: set[str] = set()
        for _ in range(100):
            try:
                await driver.publish(TOPIC, b"lost")
            except Unavailable as error:
                reasons.add(error.reason)
        assert reasons == {"broker_unreachable"}
        assert 20 < driver.counters.publish_failures < 80
        assert not driver.publish_nowait(TOPIC, b"lost")
        with trio.move_on_after(5) as scope:
            await subscriber.receive()
        assert scope.cancelled_caught
