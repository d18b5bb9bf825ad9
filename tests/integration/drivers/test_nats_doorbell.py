"""NATS with PostgreSQL's doorbell beside it: what nodes hear while one of the two is away. Real servers of both."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

import fanout_drivers.beside
from fanout_drivers.base import HintsBeside, PositionUnknown, RecordCopy, RevocationsHint, find_hinter
from fanout_drivers.faults import FaultRates
from fanout_drivers.faulty import FaultyDriver
from fanout_drivers.opening import DriverContext, FanoutConfig, open_driver
from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from khala_service.config import Secret
from khala_service.errors import Unavailable
from tests.contract.driver_suite import QUIET_S, TOPIC, wait_healthy
from tests.integration.drivers.rig import Broker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import Literal

    from fanout_drivers.base import Delivery, FanoutDriver, FanoutSubscriber
    from tests.postgres_cluster import Database

pytestmark = pytest.mark.slow

DEADLINE_S = 30.0
EVERYTHING = PositionUnknown(None)
DATABASE_ROLES = {"runtime": "khala_runtime", "control": "khala_control", "node": "khala_reader"}


@attrs.define(eq=False)
class Both:
    """A broker, and the drivers of a runtime and a node that know it and the database."""

    broker: Broker
    runtime: FanoutDriver
    node: FanoutDriver


@asynccontextmanager
async def open_both(folder: Path, database: Database) -> AsyncIterator[Both]:
    """Start a NATS server and open both drivers by configuration, each with the logins of its role."""
    async with AsyncExitStack() as held:
        await held.enter_async_context(open_asyncio_loop())
        nursery = await held.enter_async_context(trio.open_nursery())
        held.callback(nursery.cancel_scope.cancel)
        broker = Broker(folder, nursery)
        await broker.start()

        async def open_role(role: Literal["runtime", "node"]) -> FanoutDriver:
            user, password = broker.command.login(role)
            config = FanoutConfig(
                driver="nats",
                nats_servers=(broker.command.url,),
                nats_user=user,
                nats_password=Secret(password),
            )
            dsn = Secret(database.dsns[DATABASE_ROLES[role]])
            context = DriverContext(config=config, database_dsn=dsn, component=role)
            driver = await held.enter_async_context(open_driver(context, is_one_process=False))
            await wait_healthy(driver)
            return driver

        both = Both(broker, await open_role("runtime"), await open_role("node"))
        with trio.fail_after(DEADLINE_S):
            yield both


async def drain(subscriber: FanoutSubscriber) -> list[Delivery]:
    """Return what comes until nothing does."""
    got: list[Delivery] = []
    while True:
        with trio.move_on_after(QUIET_S) as scope:
            got.append(await subscriber.receive())
        if scope.cancelled_caught:
            return got


async def test_a_node_hears_of_commits_while_nats_is_away_and_heals(
    tmp_path: Path, runtime_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With NATS nothing rings; without it each commit does, at once; back, for the time of healing; then no more."""
    monkeypatch.setattr(fanout_drivers.beside, "HEALING_S", 2.0)
    async with open_both(tmp_path, runtime_database) as both, both.node.open_subscriber() as subscriber:
        runtime, node = both.runtime, both.node
        assert isinstance(runtime, HintsBeside)
        hinter = find_hinter(runtime)
        assert hinter is not None
        await subscriber.subscribe(TOPIC)
        # That it listens now.
        while await subscriber.receive() != EVERYTHING:
            pass
        await drain(subscriber)
        runtime.hint_beside_nowait()
        await runtime.publish(TOPIC, b"copy")
        assert await drain(subscriber) == [RecordCopy(TOPIC, b"copy")]
        assert runtime.counters.hints_beside == 0
        await both.broker.kill()
        while await runtime.check_health() or await node.check_health():
            await trio.sleep(0.01)
        await drain(subscriber)
        for _ in range(3):
            began = trio.current_time()
            with pytest.raises(Unavailable, match="broker_away"):
                await runtime.publish(TOPIC, b"lost")
            runtime.hint_beside_nowait()
            assert await subscriber.receive() == EVERYTHING
            # Position checks alone would take twice as long on average; here it is a round trip.
            assert trio.current_time() - began < 0.4
            assert await drain(subscriber) == []
        with pytest.raises(Unavailable, match="broker_away"):
            await hinter.hint_revocations()
        assert await subscriber.receive() == RevocationsHint()
        assert runtime.counters.hints_beside == 4
        await both.broker.start()
        await wait_healthy(runtime)
        runtime.hint_beside_nowait()
        while await subscriber.receive() != EVERYTHING:
            pass
        await wait_healthy(node)
        await trio.sleep(2.0)
        await drain(subscriber)
        runtime.hint_beside_nowait()
        await runtime.publish(TOPIC, b"copy")
        assert await drain(subscriber) == [RecordCopy(TOPIC, b"copy")]
        assert runtime.counters.hints_beside == 5


async def test_without_the_database_nats_brings_everything(
    tmp_path: Path, runtime_database: Database
) -> None:
    """The other way round: a doorbell that cannot connect delays and breaks nothing; a faulty driver passes it on."""
    unreachable = attrs.evolve(
        runtime_database, dsns=dict.fromkeys(runtime_database.dsns, "postgresql://nobody@127.0.0.1:1/nothing")
    )
    async with open_both(tmp_path, unreachable) as both, both.node.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        await drain(subscriber)
        await both.runtime.publish(TOPIC, b"copy")
        assert await subscriber.receive() == RecordCopy(TOPIC, b"copy")
        assert both.node.counters.trouble == both.runtime.counters.trouble == ""
        await both.broker.kill()
        while await both.runtime.check_health():
            await trio.sleep(0.01)
        FaultyDriver(both.runtime, FaultRates()).hint_beside_nowait()
        assert both.runtime.counters.hints_beside == 1
