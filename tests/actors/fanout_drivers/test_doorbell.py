"""When the doorbell rings, in virtual time: at once, at most 50 times a second, and once after the last."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from fanout_drivers.background import open_background
from fanout_drivers.base import PositionUnknown, RevocationsHint
from fanout_drivers.postgres import CHECK_S, PostgresDriver
from khala_service.adapters.postgres_doorbell import Bell
from khala_service.errors import DatabaseError, Unavailable
from tests.contract.driver_suite import TOPIC, receive_news

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock


@attrs.define(eq=False)
class House:
    """A door with a bell: who rings is heard by everybody who is in. A wire can be cut."""

    rings: list[float] = attrs.field(factory=list)
    hints: list[float] = attrs.field(factory=list)
    listeners: list[FakeListener] = attrs.field(factory=list)
    # How long a ring takes; None: the next one fails.
    ring_s: float | None = 0.0
    ring_error: Exception = attrs.field(factory=lambda: Unavailable("database_connection_lost"))
    is_open: bool = True
    logins: int = 0

    async def ring(self, bell: Bell) -> None:
        if self.ring_s is None:
            self.ring_s = 0.0
            raise self.ring_error
        await trio.sleep(self.ring_s)
        (self.rings if bell is Bell.RECORDS else self.hints).append(trio.current_time())
        for listener in self.listeners:
            listener.rung.add(bell)
            listener.heard.set()

    @asynccontextmanager
    async def open_ringer(self) -> AsyncIterator[House]:
        await self.log_in()
        yield self

    @asynccontextmanager
    async def open_listener(self) -> AsyncIterator[FakeListener]:
        await self.log_in()
        listener = FakeListener()
        self.listeners.append(listener)
        try:
            yield listener
        finally:
            self.listeners.remove(listener)

    async def log_in(self) -> None:
        await trio.lowlevel.checkpoint()
        self.logins += 1
        if not self.is_open:
            raise Unavailable("database_unreachable")


@attrs.define(eq=False)
class FakeListener:
    """Hears; may be deaf without knowing, until it checks."""

    heard: trio.Event = attrs.field(factory=trio.Event)
    rung: set[Bell] = attrs.field(factory=set)
    is_deaf: bool = False
    checks: int = 0

    async def wait_ring(self) -> frozenset[Bell]:
        await self.heard.wait()
        self.heard, rung = trio.Event(), frozenset(self.rung)
        self.rung.clear()
        return rung

    async def check(self) -> None:
        await trio.lowlevel.checkpoint()
        self.checks += 1
        if self.is_deaf:
            raise Unavailable("database_timeout")


@asynccontextmanager
async def open_rung(house: House) -> AsyncIterator[PostgresDriver]:
    """A publisher's driver on this house."""
    driver = PostgresDriver(house.open_ringer, house.open_listener, rng=lambda: 1.0)

    async def serve() -> None:
        await driver.serve(is_publisher=True)

    async with open_background(serve):
        await trio.testing.wait_all_tasks_blocked()
        yield driver


@pytest.mark.parametrize("ring_s", [0.0, 0.003])
async def test_a_second_of_commits(autojump_clock: MockClock, ring_s: float) -> None:
    """1,000 publications in a second: the first rings at once, then at most 50/s, the last is rung for."""
    del autojump_clock
    house = House(ring_s=ring_s)
    async with open_rung(house) as driver:
        started_at = trio.current_time()
        for _ in range(1_000):
            await driver.publish(TOPIC, b"")
            await trio.sleep(0.001)
        last_at = trio.current_time() - 0.001
        await trio.sleep(1)
    assert house.rings[0] == pytest.approx(started_at + ring_s)
    assert house.rings[-1] > last_at
    assert 35 <= len(house.rings) <= 51
    assert all(b - a >= 0.02 - 1e-9 for a, b in pairwise(house.rings))


async def test_a_commit_during_a_ring_is_rung_for(autojump_clock: MockClock) -> None:
    """The mark is taken before the ring: what commits while it is under way may have been missed by it."""
    del autojump_clock
    house = House(ring_s=0.010)
    async with open_rung(house) as driver:
        await driver.publish(TOPIC, b"")
        await trio.sleep(0.005)
        await driver.publish(TOPIC, b"")
        await trio.sleep(1)
    assert len(house.rings) == 2


async def test_silence_rings_nothing(autojump_clock: MockClock) -> None:
    """Without a publication there is no ring."""
    del autojump_clock
    house = House()
    async with open_rung(house):
        await trio.sleep(100)
    assert house.rings == []


@pytest.mark.parametrize(
    # 54000: PostgreSQL's queue of notifications is full.
    "error",
    [Unavailable("database_connection_lost"), DatabaseError("54000")],
    ids=["lost", "refused"],
)
async def test_a_failed_ring_is_made_up_for(autojump_clock: MockClock, error: Exception) -> None:
    """The connection breaks under a ring, or the ring is refused: it is rung for again, and counted."""
    del autojump_clock
    house = House(ring_s=None, ring_error=error)
    async with open_rung(house) as driver:
        await driver.publish(TOPIC, b"")
        await trio.sleep(5)
        assert await driver.check_health()
    assert len(house.rings) == 1
    assert house.logins == 2
    assert driver.counters.publish_failures == 1
    assert driver.counters.connects == 2


async def test_publishing_never_waits_for_the_database(autojump_clock: MockClock) -> None:
    """The database is away: publications return at once, cost nothing, and are rung for when it is back."""
    del autojump_clock
    house = House(is_open=False)
    async with open_rung(house) as driver:
        assert not await driver.check_health()
        before = trio.current_time()
        for _ in range(10_000):
            await driver.publish(TOPIC, bytes(1_000))
        assert trio.current_time() == before
        house.is_open = True
        await trio.sleep(5)
        assert await driver.check_health()
    assert len(house.rings) == 1


async def test_a_node_hears_each_ring_once_at_most(autojump_clock: MockClock) -> None:
    """Rings that nobody took coalesce; a notice for the connection itself comes first."""
    del autojump_clock
    house = House()
    async with open_rung(house) as driver, driver.open_subscriber() as subscriber:
        assert await receive_news(subscriber) == PositionUnknown(None)
        for _ in range(100):
            await driver.publish(TOPIC, b"")
            await trio.sleep(0.02)
        assert len(house.rings) == 100
        assert await receive_news(subscriber) == PositionUnknown(None)
        with trio.move_on_after(1) as scope:
            await receive_news(subscriber)
        assert scope.cancelled_caught


async def test_a_deaf_connection_is_found(autojump_clock: MockClock) -> None:
    """A listener that hears nothing any more, without an end of its connection, is replaced, with notices."""
    del autojump_clock
    house = House()
    async with open_rung(house) as driver, driver.open_subscriber() as subscriber:
        assert await receive_news(subscriber) == PositionUnknown(None)
        (listener,) = house.listeners
        await trio.sleep(CHECK_S * 2.5)
        assert listener.checks == 2
        listener.is_deaf = True
        before = trio.current_time()
        assert await receive_news(subscriber) == PositionUnknown(None)
        assert trio.current_time() - before <= CHECK_S
        assert not await driver.check_health()
        assert await receive_news(subscriber) == PositionUnknown(None)
        assert await driver.check_health()
        assert house.listeners != [listener]


async def test_checks_go_on_while_it_rings(autojump_clock: MockClock) -> None:
    """A busy doorbell does not put off the sign of life for ever."""
    del autojump_clock
    house = House()
    async with open_rung(house) as driver, driver.open_subscriber():
        await trio.testing.wait_all_tasks_blocked()
        (listener,) = house.listeners
        for _ in range(int(CHECK_S * 3 / 0.1)):
            await driver.publish(TOPIC, b"")
            await trio.sleep(0.1)
        assert listener.checks >= 2


@pytest.mark.parametrize("away_s", [100, 580, 600, 620])
async def test_a_database_that_comes_late_is_found_soon(autojump_clock: MockClock, away_s: float) -> None:
    """KH-41: however long the database was away, both ends are connected within 10 s of its return."""
    del autojump_clock
    house = House(is_open=False)
    async with open_rung(house) as driver, driver.open_subscriber():
        await trio.sleep(away_s)
        house.is_open = True
        await trio.sleep(10)
        assert await driver.check_health()


async def test_a_node_does_not_ring(autojump_clock: MockClock) -> None:
    """A driver that only subscribes opens no ringing connection."""
    del autojump_clock
    house = House()
    driver = PostgresDriver(house.open_ringer, house.open_listener)

    async def serve() -> None:
        await driver.serve(is_publisher=False)

    async with open_background(serve), driver.open_subscriber() as subscriber:
        await receive_news(subscriber)
        await trio.sleep(100)
        assert house.logins == 1
        assert await driver.check_health()


async def test_hints_of_revocations_have_a_bell_of_their_own(autojump_clock: MockClock) -> None:
    """A hint rings no record and the other way round; a node hears each as what it is."""
    del autojump_clock
    house = House()
    async with open_rung(house) as driver, driver.open_subscriber() as subscriber:
        assert await subscriber.receive() == RevocationsHint(), "that it listens now"
        assert await subscriber.receive() == PositionUnknown(None)
        await driver.hint_revocations()
        assert await subscriber.receive() == RevocationsHint()
        assert (len(house.rings), len(house.hints)) == (0, 1)
        await trio.sleep(1)
        await driver.publish(TOPIC, b"")
        assert await subscriber.receive() == PositionUnknown(None)
        assert (len(house.rings), len(house.hints)) == (1, 1)
        assert driver.counters.published == 1


async def test_a_hint_that_finds_no_database_is_rung_when_it_is_back(autojump_clock: MockClock) -> None:
    """Also one whose ring failed; and each connection of a node counts as a hint."""
    del autojump_clock
    house = House(is_open=False)
    async with open_rung(house) as driver:
        await driver.hint_revocations()
        await trio.sleep(10)
        assert house.hints == []
        house.ring_s = None
        house.is_open = True
        await trio.sleep(10)
        assert len(house.hints) == 1
        assert driver.counters.publish_failures == 1
