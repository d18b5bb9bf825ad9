"""The memory driver passes the suite of all drivers, and drops the oldest first."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from fanout_drivers.base import PositionUnknown, RecordCopy
from fanout_drivers.memory import MemoryDriver
from tests.contract.driver_suite import OTHER_TOPIC, TOPIC, DriverSuite, in_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fanout_drivers.base import FanoutDriver


@in_virtual_time
class TestMemoryDriver(DriverSuite):
    """One process, in virtual time."""

    @asynccontextmanager
    async def open_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one with its defaults."""
        yield MemoryDriver()

    @asynccontextmanager
    async def open_small_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one that holds 50 messages."""
        yield MemoryDriver(queue_max_records=50)


@pytest.mark.parametrize(("count", "dropped"), [(3, 0), (4, 0), (5, 1), (9, 5)])
async def test_bound_in_records(count: int, dropped: int) -> None:
    """INV-7: queue_max_records wait; one more drops the oldest, and the notice comes first."""
    driver = MemoryDriver(queue_max_records=4)
    async with driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        for number in range(count):
            await driver.publish(TOPIC, b"%d" % number)
        assert driver.counters.dropped == dropped
        if dropped:
            assert await subscriber.receive() == PositionUnknown(frozenset({TOPIC}))
        for number in range(dropped, count):
            assert await subscriber.receive() == RecordCopy(TOPIC, b"%d" % number)


@pytest.mark.parametrize(("size", "dropped"), [(24, 0), (25, 0), (26, 1)])
async def test_bound_in_bytes(size: int, dropped: int) -> None:
    """INV-7: queue_max_bytes wait; one byte more drops the oldest."""
    driver = MemoryDriver(queue_max_bytes=100)
    async with driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        for _ in range(3):
            await driver.publish(TOPIC, bytes(25))
        await driver.publish(TOPIC, bytes(size))
        assert driver.counters.dropped == dropped


async def test_a_message_larger_than_the_queue_is_dropped_with_notice() -> None:
    """It cannot wait, so it is announced; what follows is delivered."""
    driver = MemoryDriver(queue_max_bytes=100)
    async with driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        await driver.publish(TOPIC, bytes(101))
        await driver.publish(TOPIC, b"small")
        assert await subscriber.receive() == PositionUnknown(frozenset({TOPIC}))
        assert await subscriber.receive() == RecordCopy(TOPIC, b"small")


async def test_the_notice_names_the_topics_that_lost() -> None:
    """A topic of which nothing was dropped is not named."""
    driver = MemoryDriver(queue_max_records=2)
    async with driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        await subscriber.subscribe(OTHER_TOPIC)
        for _ in range(3):
            await driver.publish(TOPIC, b"busy")
        await driver.publish(OTHER_TOPIC, b"quiet")
        assert await subscriber.receive() == PositionUnknown(frozenset({TOPIC}))
        assert await subscriber.receive() == RecordCopy(TOPIC, b"busy")
        assert await subscriber.receive() == RecordCopy(OTHER_TOPIC, b"quiet")


async def test_nothing_is_held_for_topics_that_were_not_subscribed() -> None:
    """A record of another topic takes no place in the queue."""
    driver = MemoryDriver(queue_max_records=1)
    async with driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        await driver.publish(TOPIC, b"kept")
        await driver.publish(OTHER_TOPIC, b"not for us")
        assert await subscriber.receive() == RecordCopy(TOPIC, b"kept")
        assert driver.counters.dropped == 0


async def test_closing_frees_the_queue() -> None:
    """A node that left holds nothing of the driver, and is no longer offered anything."""
    driver = MemoryDriver()
    async with driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        await driver.publish(TOPIC, b"x")
    assert driver._subscribers == []
    assert len(subscriber.queue) == subscriber.queue.waiting_bytes == 0
