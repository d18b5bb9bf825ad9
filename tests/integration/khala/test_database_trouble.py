"""DB-08, KH-34: the database ends, is cut off, is a standby: sockets stay, cursors stay, streams go on."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio

from khala.core.limits import NodeLimits
from khala_contracts.codec import (
    CursorStart,
    ErrorMessage,
    ServerHeartbeat,
    StaleCursor,
)
from khala_service.adapters.postgres import open_asyncio_loop
from tests.integration.fragile_database import FragileDatabase, fragile_database
from tests.integration.khala.rig import open_rig
from tests.integration.khala.troubled_proxy import troubled_proxy
from tests.topic_log import LINEAGE, TopicLog, run_topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.fragile_database import Ending
    from tests.integration.khala.rig import BareClient, Rig

TOPIC, OTHER_TOPIC = run_topic(1), run_topic(2)
# SPEC: after the database is back.
RESUMED_S = 5.0
# Heartbeats that a test can wait for.
LIMITS = NodeLimits(heartbeat_interval_s=0.5)


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FragileDatabase]:
    """A server that every test of this module may end."""
    with fragile_database(tmp_path_factory.mktemp("fragile_node")) as database:
        yield database


def open_rig_of(fragile: FragileDatabase, *, nodes: int = 1, limits: NodeLimits = LIMITS):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Run nodes straight at the server."""
    database = fragile.database
    return open_rig(database.superuser_dsn, database.dsn("khala_reader"), nodes=nodes, limits=limits)


async def _write(rig: Rig, log: TopicLog, stop: trio.Event) -> None:
    """Write about a hundred events a second until told to stop, whatever becomes of the database."""
    while not stop.is_set():
        await rig.authority.commit(log)
        await trio.sleep(0.01)


def assert_no_verdict(*clients: BareClient) -> None:
    """No cursor was judged, no subscription or connection ended."""
    for client in clients:
        assert not client.is_over
        assert client.of(StaleCursor) == []


@pytest.mark.parametrize("how", ["restart", "immediate", "kill"])
async def test_the_server_ends(fragile: FragileDatabase, how: Ending) -> None:
    """Fast stop, immediate stop, kill -9 of the postmaster: streams go on without a gap within 5 s."""
    log = TopicLog(TOPIC)
    async with open_asyncio_loop(), open_rig_of(fragile, nodes=2) as rig, trio.open_nursery() as nursery:
        stop = trio.Event()
        await rig.authority.commit(log, 500, payload=bytes(1_000))
        clients = [await rig.follow(TOPIC, node=number % 2, is_text=number == 2) for number in range(4)]
        nursery.start_soon(_write, rig, log, stop)
        for client in clients:
            await client.wait_at(TOPIC, 550)
        await trio.to_thread.run_sync(fragile.end, how)
        await rig.nodes[0].topics.check_positions()
        late = await rig.connect(TOPIC)  # control is there: a hello is welcome
        await late.subscribe(TOPIC)
        await late.wait(lambda: bool(late.of(ErrorMessage)))
        (refused,) = late.of(ErrorMessage)
        assert (refused.code, refused.topic) == ("unavailable", TOPIC.name)
        assert refused.retry_after_ms > 0
        beats = len(clients[0].of(ServerHeartbeat))
        await clients[0].wait(lambda: len(clients[0].of(ServerHeartbeat)) > beats + 1)
        await trio.to_thread.run_sync(fragile.start)
        back_at = trio.current_time()
        at_return = log.head_seq
        await late.subscribe(TOPIC)
        for client in (*clients, late):
            await client.wait_at(TOPIC, at_return + 20, within_s=RESUMED_S)
        assert trio.current_time() - back_at < RESUMED_S
        stop.set()
        assert_no_verdict(*clients, late)
        assert all(node.counters.position_check_failures > 0 for node in rig.nodes[:1])
    assert rig.nodes[0].counters.task_restarts == {}


@pytest.mark.parametrize("way", ["swallows", "swallows_then_resets", "refuses"])
async def test_the_network_to_the_server(fragile: FragileDatabase, way: str) -> None:
    """A blackhole, one that ends with resets, a closed port: the same, with records that still arrive."""
    log, quiet = TopicLog(TOPIC), TopicLog(OTHER_TOPIC)
    database = fragile.database
    async with (
        open_asyncio_loop(),
        troubled_proxy(database.dsn("khala_reader")) as proxy,
        open_rig(database.superuser_dsn, proxy.dsn(database.dsn("khala_reader")), limits=LIMITS) as rig,
    ):
        await rig.authority.commit(log, 100)
        await rig.authority.commit(quiet, 3)
        client = await rig.follow(TOPIC, OTHER_TOPIC)
        await client.wait_at(TOPIC, 100)
        await client.wait_at(OTHER_TOPIC, 3)
        proxy.become("refuses" if way == "refuses" else "swallows")
        if way == "refuses":
            proxy.reset_all()
        # What a driver brings is delivered while the database is away; what it loses waits.
        await rig.authority.commit(log, 10)
        await client.wait_at(TOPIC, 110, within_s=1)
        await rig.authority.commit(quiet, 2, is_said=False)
        late = await rig.connect(TOPIC)
        await late.subscribe(TOPIC)
        asked_at = trio.current_time()
        await late.wait(lambda: bool(late.of(ErrorMessage)))
        (refused,) = late.of(ErrorMessage)
        assert (refused.code, refused.retry_after_ms > 0) == ("unavailable", True)
        assert trio.current_time() - asked_at < 7
        assert client.position(OTHER_TOPIC) == 3
        if way == "swallows_then_resets":
            proxy.reset_all()
        proxy.become("passes")
        await late.subscribe(TOPIC)
        await client.wait_at(OTHER_TOPIC, 5, within_s=RESUMED_S)
        await late.wait_at(TOPIC, 110, within_s=RESUMED_S)
        assert_no_verdict(client, late)
        assert rig.nodes[0].counters.task_restarts == {}


def _is_answered(client: BareClient, attempts: int) -> bool:
    return client.position(TOPIC) >= 0 or len(client.of(ErrorMessage)) == attempts


async def _replay(rig: Rig, log: TopicLog, start_seq: int, *, is_text: bool) -> None:
    """Replay to the head, through whatever happens; asking again where the question itself was cut."""
    start = CursorStart(start_seq, LINEAGE, log.chains[start_seq])
    client = await rig.connect(TOPIC, is_text=is_text)
    attempts = 0
    while client.position(TOPIC) < 0:
        await client.subscribe(TOPIC, start=start)
        attempts += 1
        await client.wait(partial(_is_answered, client, attempts))
    await client.wait_at(TOPIC, log.head_seq, within_s=30)
    assert {error.code for error in client.of(ErrorMessage)} <= {"unavailable"}
    assert client.of(StaleCursor) == []
    assert client.transcript.topics[TOPIC.name].chain == log.chains[log.head_seq]
    await client.leave()


async def test_fifty_interrupted_replays(fragile: FragileDatabase) -> None:
    """KH-34: resets in the middle of fifty replays: no stale cursor, every replay ends at the head."""
    log, rng = TopicLog(TOPIC), Random(34)
    database = fragile.database
    limits = NodeLimits(page_max_frames=100)
    async with (
        open_asyncio_loop(),
        troubled_proxy(database.dsn("khala_reader")) as proxy,
        open_rig(database.superuser_dsn, proxy.dsn(database.dsn("khala_reader")), limits=limits) as rig,
    ):
        await rig.authority.commit(log, 800, payload=bytes(300))
        # A page is 36 KiB: what is cut is one of the first pages of a connection, at a random place.
        proxy.reset_between_bytes, proxy.resets_left = (10_000, 100_000), 80
        async with trio.open_nursery() as nursery:
            # No two begin at the same place, so that each reads pages of its own.
            for number, start_seq in enumerate(rng.sample(range(200), 50)):
                nursery.start_soon(partial(_replay, rig, log, start_seq, is_text=number % 5 == 0))
        counters = rig.nodes[0].counters
        assert proxy.resets_left == 0
        assert counters.page_read_failures >= 50
        assert counters.stale_cursors == {}
        assert counters.task_restarts == {}


async def test_a_standby_is_not_believed(fragile: FragileDatabase) -> None:
    """A server in recovery answers from its own past: that is trouble, never another history."""
    log = TopicLog(TOPIC)
    async with open_asyncio_loop(), open_rig_of(fragile) as rig:
        await rig.authority.commit(log, 50)
        client = await rig.follow(TOPIC)
        await client.wait_at(TOPIC, 50)
        signal = fragile.cluster.server.cluster.home.cluster / "standby.signal"
        await trio.to_thread.run_sync(fragile.end, "restart")
        await trio.Path(signal).touch()
        await trio.to_thread.run_sync(fragile.start)
        failures = rig.nodes[0].counters.position_check_failures
        await client.wait(lambda: rig.nodes[0].counters.position_check_failures >= failures + 2)
        late = await rig.connect(TOPIC)
        await late.subscribe(TOPIC)
        await late.wait(lambda: bool(late.of(ErrorMessage)))
        assert late.of(ErrorMessage)[0].code == "unavailable"
        await trio.to_thread.run_sync(fragile.end, "restart")
        await trio.Path(signal).unlink()
        await trio.to_thread.run_sync(fragile.start)
        await rig.authority.commit(log, is_said=False)
        await client.wait_at(TOPIC, 51, within_s=RESUMED_S)
        assert_no_verdict(client, late)
