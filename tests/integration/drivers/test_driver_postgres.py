"""The doorbell, alone and inside the faulty driver, passes the suite of all drivers on a real PostgreSQL."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from fanout_drivers.base import PositionUnknown
from fanout_drivers.faults import FaultRates
from fanout_drivers.faulty import FaultyDriver
from fanout_drivers.opening import DriverContext, FanoutConfig, open_driver
from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from khala_service.adapters.postgres import open_pool
from khala_service.secret import Secret
from tests.contract.driver_suite import TOPIC, DriverSuite, receive_news, wait_healthy
from tests.contract.wild_driver import WILD, WildSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fanout_drivers.base import FanoutDriver, FanoutSubscriber
    from tests.postgres_cluster import Database, PostgresTestCluster

pytestmark = pytest.mark.slow

DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def database(postgres_cluster: PostgresTestCluster) -> Iterator[Database]:
    """One database for all: the drivers write nothing into it."""
    with postgres_cluster.database() as made:
        yield made


def context_of(database: Database, component: str = "runtime") -> DriverContext:
    """Return what a composition root would open the driver with."""
    role = {"runtime": "khala_runtime", "node": "khala_reader"}[component]
    return DriverContext(
        config=FanoutConfig(driver="postgres"),
        database_dsn=Secret(database.dsns[role]),
        component="runtime" if component == "runtime" else "node",
    )


@attrs.define(eq=False)
class TwoProcesses:
    """A runtime's driver to publish with and a node's to subscribe with, as one driver for the suite."""

    runtime: FanoutDriver
    node: FanoutDriver

    def __getattr__(self, name: str) -> object:
        return getattr(self.runtime if name == "publish" else self.node, name)

    async def check_health(self) -> bool:
        """Whether both are."""
        return await self.runtime.check_health() and await self.node.check_health()


@asynccontextmanager
async def open_two(database: Database) -> AsyncIterator[FanoutDriver]:
    """Open both ends, each with its own role."""
    async with AsyncExitStack() as held:
        await held.enter_async_context(open_asyncio_loop())
        runtime = await held.enter_async_context(open_driver(context_of(database), is_one_process=False))
        node = await held.enter_async_context(open_driver(context_of(database, "node"), is_one_process=False))
        yield TwoProcesses(runtime, node)  # type: ignore[misc]


async def cut_listeners(database: Database) -> int:
    """End the backends of every listening connection; return how many there were."""
    async with open_pool(database.superuser_dsn, application_name="test", min_size=0) as pool:
        ended = await pool.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'khala-doorbell-node' AND datname = current_database()"
        )
    return len(ended)


class _OnDatabase:
    """Opens drivers on the database of this module."""

    database: Database

    @pytest.fixture(autouse=True)
    def _take_database(self, database: Database) -> None:
        self.database = database

    async def lose_rings(self, driver: FanoutDriver, sent: list[bytes]) -> None:
        """Cut the listening connections, and publish while nobody listens."""
        assert await cut_listeners(self.database) >= 1
        for data in sent:
            await driver.publish(TOPIC, data)


class TestPostgresDriver(_OnDatabase, DriverSuite):
    """As the composition roots open it: runtime and node with roles of their own."""

    @asynccontextmanager
    async def open_absent_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one for an address on which nobody listens."""
        context = attrs.evolve(
            context_of(self.database), database_dsn=Secret("postgresql://nobody@127.0.0.1:1/nothing")
        )
        async with open_asyncio_loop(), open_driver(context, is_one_process=False) as driver:
            yield driver

    @asynccontextmanager
    async def open_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open both ends."""
        async with open_two(self.database) as driver:
            yield driver

    @asynccontextmanager
    async def open_small_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open both ends; one notice is all that ever waits."""
        async with open_two(self.database) as driver:
            yield driver

    async def make_it_lose(
        self, driver: FanoutDriver, subscriber: FanoutSubscriber, sent: list[bytes]
    ) -> None:
        """Cut the listener; what was rung meanwhile is covered by the notice of its return."""
        del subscriber
        await self.lose_rings(driver, sent)


class TestCalmFaultyPostgresDriver(_OnDatabase, DriverSuite):
    """Without faults it is the inner driver."""

    @asynccontextmanager
    async def open_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one around both ends."""
        async with open_two(self.database) as driver:
            yield FaultyDriver(driver, FaultRates())

    @asynccontextmanager
    async def open_small_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one around both ends."""
        async with open_two(self.database) as driver:
            yield FaultyDriver(driver, FaultRates())

    async def make_it_lose(
        self, driver: FanoutDriver, subscriber: FanoutSubscriber, sent: list[bytes]
    ) -> None:
        """Cut the listener."""
        del subscriber
        await self.lose_rings(driver, sent)


class TestWildFaultyPostgresDriver(_OnDatabase, WildSuite):
    """Half of the notices are lost without a word, others come twice and late."""

    @asynccontextmanager
    async def open_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one around both ends."""
        async with open_two(self.database) as driver:
            yield FaultyDriver(driver, attrs.evolve(WILD, loss=0.5), seed=1)

    @asynccontextmanager
    async def open_small_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one around both ends."""
        async with self.open_driver() as driver:
            yield driver

    async def make_it_lose(
        self, driver: FanoutDriver, subscriber: FanoutSubscriber, sent: list[bytes]
    ) -> None:
        """Ring again and again until a notice was lost."""
        assert isinstance(driver, FaultyDriver)
        with trio.fail_after(DEADLINE_S):
            while not driver.injected["loss"]:
                await driver.publish(TOPIC, sent[0])
                with trio.move_on_after(0.05):
                    await receive_news(subscriber)


async def test_a_node_hears_of_lost_and_new_connections(database: Database) -> None:
    """The listener's backend is ended: a notice at once, another when it listens again; health tells."""
    async with open_two(database) as driver, driver.open_subscriber() as subscriber:
        with trio.fail_after(DEADLINE_S):
            await wait_healthy(driver)
            assert await receive_news(subscriber) == PositionUnknown(None), "that it listens now"
            assert await cut_listeners(database) == 1
            assert await receive_news(subscriber) == PositionUnknown(None), "that it was cut"
            assert driver.counters.connects == 1
            assert await receive_news(subscriber) == PositionUnknown(None), "that it is back"
            assert driver.counters.connects == 2
            await wait_healthy(driver)
            await driver.publish(TOPIC, b"")
            assert await receive_news(subscriber) == PositionUnknown(None)


async def test_a_ring_survives_the_loss_of_the_ringer(database: Database) -> None:
    """The ringing connection is ended while it is idle: the next publication is rung for all the same."""
    async with open_two(database) as driver, driver.open_subscriber() as subscriber:
        with trio.fail_after(DEADLINE_S):
            await wait_healthy(driver)
            assert await receive_news(subscriber) == PositionUnknown(None)
            async with open_pool(database.superuser_dsn, application_name="test", min_size=0) as pool:
                await pool.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'khala-doorbell-runtime' AND datname = current_database()"
                )
            await driver.publish(TOPIC, b"")
            assert await receive_news(subscriber) == PositionUnknown(None)


async def test_a_role_that_only_reads_may_listen(database: Database) -> None:
    """LISTEN needs no right to write: it works with default_transaction_read_only."""
    context = context_of(database, "node")
    read_only = Secret(context.database_dsn.reveal() + "?default_transaction_read_only=on")
    async with AsyncExitStack() as held:
        await held.enter_async_context(open_asyncio_loop())
        node = await held.enter_async_context(
            open_driver(attrs.evolve(context, database_dsn=read_only), is_one_process=False)
        )
        runtime = await held.enter_async_context(open_driver(context_of(database), is_one_process=False))
        subscriber = await held.enter_async_context(node.open_subscriber())
        with trio.fail_after(DEADLINE_S):
            await wait_healthy(node)
            assert await receive_news(subscriber) == PositionUnknown(None)
            await runtime.publish(TOPIC, b"")
            assert await receive_news(subscriber) == PositionUnknown(None)


async def test_what_reaches_the_server(database: Database) -> None:
    """Rings are empty, few, and transactions of their own: LISTEN and NOTIFY and nothing else."""
    async with open_two(database) as driver, driver.open_subscriber() as subscriber:
        await wait_healthy(driver)
        before = len(database.statements("khala_runtime"))
        started_at = trio.current_time()
        for _ in range(2_000):
            await driver.publish(TOPIC, bytes(1_000))
        with trio.fail_after(DEADLINE_S):
            await receive_news(subscriber)
            while driver.counters.received < 1:
                await receive_news(subscriber)
        took_s = trio.current_time() - started_at
    rings = database.statements("khala_runtime")[before:]
    assert set(rings) == {"NOTIFY khala_doorbell"}
    assert 1 <= len(rings) <= 2 + 50 * took_s
    assert any(sql.startswith("LISTEN") for sql in database.statements("khala_reader"))
