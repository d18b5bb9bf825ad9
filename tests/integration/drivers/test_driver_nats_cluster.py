"""Three NATS servers in a cluster, a login for each role, and servers that are killed: FD-03, FD-08."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import attrs
import pytest
import trio

from fanout_drivers.base import PositionUnknown, RecordCopy
from fanout_drivers.nats import NatsDriver, NatsLimits
from fanout_drivers.nats_interest import SPREAD_S
from fanout_drivers.nats_login import NatsLogin
from fanout_drivers.opening import DriverContext, FanoutConfig, open_driver
from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from khala_service.errors import Unavailable
from khala_service.secret import Secret
from tests.contract.driver_suite import MARKER, TOPIC, DriverSuite, Received, receive_news, wait_healthy
from tests.integration.drivers.rig import PREFIX, Cluster, free_port, running_driver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fanout_drivers.base import FanoutDriver

pytestmark = pytest.mark.slow

DEADLINE_S = 30.0
Role: TypeAlias = Literal["runtime", "control", "node"]
ROLES: Final[tuple[Role, ...]] = ("runtime", "control", "node")


@attrs.define(eq=False)
class Ends:
    """What three processes have, each with the login of its role, as one driver for the suite."""

    cluster: Cluster
    runtime: NatsDriver
    control: NatsDriver
    node: NatsDriver

    def __getattr__(self, name: str) -> object:
        owner = {"publish": self.runtime, "publish_nowait": self.runtime, "hint_revocations": self.control}
        return getattr(owner.get(name, self.node), name)

    async def check_health(self) -> bool:
        """Whether all are connected."""
        return all([await end.check_health() for end in (self.runtime, self.control, self.node)])

    async def wait_moved(self, end: NatsDriver) -> None:
        """Kill the server that an end is connected to, and return when everybody is at one that is left."""
        victim, connects = self.cluster.broker_of(end), end.counters.connects
        await victim.kill()
        while end.counters.connects == connects:
            await trio.sleep(0.02)
        await wait_healthy(self)  # type: ignore[arg-type]
        assert self.cluster.broker_of(end) is not victim


@asynccontextmanager
async def open_end(cluster: Cluster, role: Role, limits: NatsLimits | None) -> AsyncIterator[NatsDriver]:
    """Open the driver of one process: as the composition roots do, if its bounds need not be small."""
    if limits is not None:
        async with running_driver(cluster.driver(role, limits)) as driver:
            yield driver
        return
    user, password = cluster.brokers[0].command.login(role)
    config = FanoutConfig(
        driver="nats",
        nats_servers=cluster.urls,
        nats_user=user,
        nats_password=Secret(password),
        nats_doorbell=False,
    )
    context = DriverContext(config=config, database_dsn=Secret("postgresql://nowhere"), component=role)
    async with open_driver(context, is_one_process=False) as opened:
        assert isinstance(opened, NatsDriver)
        yield opened


@asynccontextmanager
async def open_ends(folder: Path, limits: NatsLimits | None = None) -> AsyncIterator[Ends]:
    """Start three servers and connect the three ends; an error of the block comes out as it is."""
    error_of_block: Exception | None = None
    async with AsyncExitStack() as held:
        await held.enter_async_context(open_asyncio_loop())
        nursery = await held.enter_async_context(trio.open_nursery())
        held.callback(nursery.cancel_scope.cancel)
        cluster = Cluster(folder, nursery)
        with trio.fail_after(DEADLINE_S):
            await cluster.start()
        drivers = [await held.enter_async_context(open_end(cluster, role, limits)) for role in ROLES]
        ends = Ends(cluster, *drivers)
        await wait_healthy(ends)  # type: ignore[arg-type]
        try:
            yield ends
        except Exception as error:  # noqa: BLE001 - raised again below, outside the nursery
            error_of_block = error
    if error_of_block is not None:
        raise error_of_block


class TestClusterWithAKilledServer(DriverSuite):
    """Each test runs on what is left of three servers after that of the node was killed under it."""

    # Of what was published between a subscription and its arrival at every server.
    notice_within_s = 2 * SPREAD_S + 0.1
    folder: Path

    @pytest.fixture(autouse=True)
    def _take_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    @asynccontextmanager
    async def open_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open the ends of three processes, and kill the node's server."""
        async with open_ends(self.folder) as ends:
            await ends.wait_moved(ends.node)
            yield ends  # type: ignore[misc]

    @asynccontextmanager
    async def open_small_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one whose subscribers hold 50 messages."""
        async with open_ends(self.folder, NatsLimits(queue_max_records=50)) as ends:
            await ends.wait_moved(ends.node)
            yield ends  # type: ignore[misc]

    @asynccontextmanager
    async def open_absent_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one for three ports on which nobody listens."""
        servers = tuple(f"nats://127.0.0.1:{free_port()}" for _ in range(3))
        async with (
            open_asyncio_loop(),
            running_driver(NatsDriver(servers, NatsLogin("khala-test"), PREFIX)) as driver,
        ):
            yield driver


async def collect(ends: Ends, marker: bytes) -> Received:
    """Open a node's end and return what it is told of TOPIC while servers die under a stream of records."""
    received, sent = Received(marker), 0
    async with ends.node.open_subscriber() as subscriber, trio.open_nursery() as nursery:
        await subscriber.subscribe(TOPIC)
        await subscriber.subscribe(MARKER)

        async def publish() -> None:
            nonlocal sent
            while True:
                try:
                    await ends.runtime.publish(TOPIC, b"%d" % sent)
                except Unavailable:
                    received.unknown.append(PositionUnknown(None))
                sent += 1
                await trio.sleep(0.002)

        async def kill_and_restart() -> None:
            for end in (ends.node, ends.runtime, ends.node):
                await trio.sleep(0.2)
                await ends.wait_moved(end)
                await ends.cluster.start()
            while not received.has_marker:
                await ends.runtime.publish(MARKER, marker)
                await trio.sleep(0.1)

        nursery.start_soon(publish)
        nursery.start_soon(kill_and_restart)
        while not received.has_marker:
            received.take(await receive_news(subscriber))
        nursery.cancel_scope.cancel()
    return received


async def test_servers_die_under_traffic(tmp_path: Path) -> None:
    """Those of publisher and node, one after the other: order is kept, every hole is announced, news go on."""
    with trio.fail_after(DEADLINE_S):
        async with open_ends(tmp_path) as ends:
            received = await collect(ends, b"end")
            got = [int(data) for data in received.by_topic[TOPIC]]
            assert got == sorted(set(got))
            assert len(got) > 100
            assert received.concerns(TOPIC) or got == list(range(got[0], got[-1] + 1))
            assert ends.node.counters.connects >= 3
            assert ends.runtime.counters.connects >= 2


async def test_a_server_between_two_others_is_lost(tmp_path: Path) -> None:
    """Neither the publisher's nor the node's own: both stay connected, and the node compares everything again."""
    with trio.fail_after(DEADLINE_S):
        async with open_ends(tmp_path) as ends, ends.node.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)
            await trio.sleep(2 * SPREAD_S)
            while len({ends.cluster.broker_of(end).port for end in (ends.node, ends.runtime)}) == 2:
                # Until both are at one server, so that another can be killed.
                await ends.wait_moved(ends.runtime)
                await ends.cluster.start()
            with trio.move_on_after(2 * SPREAD_S + 0.2):
                while True:
                    await subscriber.receive()
            used = ends.cluster.broker_of(ends.node)
            connects = ends.node.counters.connects
            other = next(broker for broker in ends.cluster.brokers if broker is not used)
            await other.kill()
            assert await receive_news(subscriber) == PositionUnknown(None)
            assert ends.node.counters.connects == connects
            await ends.runtime.publish(TOPIC, b"news")
            while await receive_news(subscriber) != RecordCopy(TOPIC, b"news"):
                pass
