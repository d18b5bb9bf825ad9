"""The faulty driver around the memory driver: harmless without faults, honest about those it has."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from fanout_drivers.base import PositionUnknown, RecordCopy, RevocationsHint
from fanout_drivers.faults import FAULTS, HELD_MAX, HOLD_MAX_S, FaultRates, Faults
from fanout_drivers.faulty import FaultyDriver
from fanout_drivers.memory import MemoryDriver
from fanout_drivers.opening import DriverContext, FanoutConfig, open_driver
from khala_contracts.errors import WireError
from khala_contracts.fanout_records import FanoutRecord, RecordSigner, RecordVerifier
from khala_service.config import ConfigRefused
from khala_service.secret import Secret
from tests.contract.driver_suite import OTHER_TOPIC, TOPIC, DriverSuite, in_virtual_time
from tests.contract.wild_driver import WILD, WildSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from fanout_drivers.base import Delivery, FanoutDriver
    from khala_contracts.topics import TopicName

KEY_ID, KEY = "k1", bytes(range(32))


@in_virtual_time
class TestCalmFaultyDriver(DriverSuite):
    """Without faults it is the inner driver."""

    @asynccontextmanager
    async def open_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one around a memory driver."""
        yield FaultyDriver(MemoryDriver(), FaultRates())

    @asynccontextmanager
    async def open_small_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one around a driver that holds 50 messages."""
        yield FaultyDriver(MemoryDriver(queue_max_records=50), FaultRates())


@in_virtual_time
class TestWildFaultyDriver(WildSuite):
    """With all faults."""

    @asynccontextmanager
    async def open_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one around a memory driver."""
        yield FaultyDriver(MemoryDriver(), WILD, seed=1)

    @asynccontextmanager
    async def open_small_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one around a driver that holds 50 messages."""
        yield FaultyDriver(MemoryDriver(queue_max_records=50), WILD, seed=2)


def record(topic: TopicName, seq: int) -> bytes:
    """Return a sealed record of one entry."""
    return RecordSigner(KEY_ID, KEY).seal(
        FanoutRecord(topic, "lin_1", seq, seq, bytes(32), b"\x01" * 32, (b"entry %d" % seq,), 0)
    )


def sent_records(count: int) -> list[RecordCopy]:
    """Return records of two topics in turns."""
    return [
        RecordCopy(topic, record(topic, seq))
        for seq in range(1, count // 2 + 1)
        for topic in (TOPIC, OTHER_TOPIC)
    ]


def suffer(rates: FaultRates, sent: list[RecordCopy], *, seed: int) -> tuple[list[Delivery], Counter[str]]:
    """Return what becomes of records that come a millisecond apart, and what was injected."""
    injected: Counter[str] = Counter()
    faults = Faults(rates, Random(seed), injected)
    arrived: list[Delivery] = []
    for number, copy in enumerate(sent):
        arrived += faults.release(number / 1_000)
        arrived += faults.take(copy, number / 1_000)
    arrived += faults.release(len(sent) / 1_000 + HOLD_MAX_S)
    return arrived, injected


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_happens_about_as_often_as_asked_and_is_counted(fault: str) -> None:
    """One fault at 20 %: its count is near, every other is zero, and the stream shows it."""
    sent = sent_records(1_000)
    arrived, injected = suffer(FaultRates(**{fault: 0.2}), sent, seed=7)
    hits = injected[fault]
    assert 150 < hits < 250
    assert {name for name in injected if "_" not in name} == {fault}
    known = set(sent)
    genuine = [delivery for delivery in arrived if delivery in known]
    match fault:
        case "loss":
            assert len(genuine) == 1_000 - hits
            assert len(arrived) == len(genuine), "silently"
        case "disconnect":
            assert len(genuine) == 1_000 - hits
            assert arrived.count(PositionUnknown(None)) == hits
        case "duplicate":
            assert len(genuine) == 1_000 + hits
            assert set(genuine) == set(sent)
        case "forge":
            assert genuine == sent
            assert len(arrived) == 1_000 + hits
        case _:
            assert Counter(genuine) == Counter(sent)
            assert genuine != sent, "in order all the same"


def test_no_forgery_opens() -> None:
    """FD-07: of every kind there are some, and none is authentic for the topic that it claims."""
    arrived, injected = suffer(FaultRates(forge=1.0), sent_records(400), seed=3)
    verifier = RecordVerifier({KEY_ID: KEY})
    opened = 0
    for delivery in arrived:
        assert isinstance(delivery, RecordCopy)
        try:
            opened += verifier.open_untrusted(delivery.data).topic == delivery.topic
        except WireError:
            continue
    assert opened == 400, "the genuine ones, and no other"
    kinds = {name: count for name, count in injected.items() if name.startswith("forge_")}
    assert set(kinds) == {"forge_flipped", "forge_other_topic", "forge_invented", "forge_other_lineage"}
    assert min(kinds.values()) > 50
    assert sum(kinds.values()) == injected["forge"] == 400


def test_one_seed_gives_one_history() -> None:
    """The same seed does the same harm; another seed does other harm."""
    sent = sent_records(300)
    assert suffer(WILD, sent, seed=11) == suffer(WILD, sent, seed=11)
    assert suffer(WILD, sent, seed=11) != suffer(WILD, sent, seed=12)


async def test_the_last_one_before_silence_arrives(autojump_clock: MockClock) -> None:
    """A record that is overtaken or delayed needs no successor in order to arrive."""
    del autojump_clock
    for rates in (FaultRates(reorder=1.0), FaultRates(delay=1.0)):
        driver = FaultyDriver(MemoryDriver(), rates)
        async with driver.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)
            await driver.publish(TOPIC, b"last")
            with trio.fail_after(HOLD_MAX_S + 0.01):
                assert await subscriber.receive() == RecordCopy(TOPIC, b"last")


async def test_every_hint_of_revocations_may_be_lost(autojump_clock: MockClock) -> None:
    """SEC-05: hint_loss = 1 drops each push and counts it; records arrive as ever."""
    del autojump_clock
    driver = FaultyDriver(MemoryDriver(), FaultRates(hint_loss=1.0))
    async with driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        for number in range(20):
            await driver.hint_revocations()
            await driver.publish(TOPIC, b"%d" % number)
            with trio.fail_after(1):
                assert await subscriber.receive() == RecordCopy(TOPIC, b"%d" % number)
    assert driver.injected == {"hint_loss": 20}


async def test_loss_concerns_hints_too_and_without_faults_they_pass(autojump_clock: MockClock) -> None:
    """A network that loses records loses hints."""
    del autojump_clock
    for rates, heard in ((FaultRates(), True), (FaultRates(loss=1.0), False), (FaultRates(delay=1.0), True)):
        driver = FaultyDriver(MemoryDriver(), rates)
        async with driver.open_subscriber() as subscriber:
            await driver.hint_revocations()
            with trio.move_on_after(5) as scope:
                assert await subscriber.receive() == RevocationsHint()
            assert scope.cancelled_caught is not heard


def test_what_is_held_back_is_bounded() -> None:
    """INV-7: HELD_MAX deliveries wait; one more lets the oldest go."""
    faults = Faults(FaultRates(delay=1.0), Random(0), Counter())
    for number in range(HELD_MAX):
        assert faults.take(RecordCopy(TOPIC, b"%d" % number), now=0.0) == []
    assert faults.release(now=0.0) == []
    faults.take(RecordCopy(TOPIC, b"one more"), now=0.0)
    assert len(faults.release(now=0.0)) == 1
    assert len(faults.release(now=HOLD_MAX_S)) == HELD_MAX


CONTEXT = DriverContext(
    config=FanoutConfig(
        driver="faulty",
        options={"inner": "memory", "seed": "5", "loss": "0.1", "forge": "1", "hint_loss": "1"},
    ),
    database_dsn=Secret("postgresql://nowhere"),
    component="node",
    mode="dev",
)


async def test_options_reach_it() -> None:
    """By configuration alone: inner driver, seed and rates; what it may do follows from them."""
    async with open_driver(CONTEXT, is_one_process=True) as driver:
        assert isinstance(driver, FaultyDriver)
        assert driver.inner.name == "memory"
        assert driver.seed == 5
        assert driver.rates == FaultRates(loss=0.1, forge=1.0, hint_loss=1.0)
        assert driver.guarantees.may_invent
        assert not driver.guarantees.announces_losses
        assert not driver.guarantees.may_reorder


async def test_production_refuses_it() -> None:
    """A driver that does harm on purpose needs mode dev; the error names the key."""
    with pytest.raises(ConfigRefused, match=r"fanout\.driver: faulty .* mode = dev"):
        async with open_driver(attrs.evolve(CONTEXT, mode="production"), is_one_process=True):
            raise AssertionError("it was opened")


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"loss": "1.5"}, "loss"),
        ({"loss": "-0.1"}, "loss"),
        ({"delay": "nan"}, "delay"),
        ({"forge": "often"}, "forge"),
        ({"seed": "x"}, "seed"),
        ({"inner": "faulty"}, "inner"),
        ({"los": "0.1"}, "los"),
        ({"hint_loss": "2"}, "hint_loss"),
    ],
)
async def test_wrong_options_are_refused_by_name(options: dict[str, str], key: str) -> None:
    """A misspelt or impossible option is a configuration error, not a calm driver."""
    context = attrs.evolve(
        CONTEXT, config=attrs.evolve(CONTEXT.config, options={"inner": "memory"} | options)
    )
    with pytest.raises(ConfigRefused, match=rf"fanout\.options\.{key}:"):
        async with open_driver(context, is_one_process=True):
            raise AssertionError("it was opened")
