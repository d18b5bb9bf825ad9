"""Connections and topics that come and go leave nothing behind: the short form of ``khala load cycles``, and KH-38.

The engine of a node over real sockets and a real journal; its tasks and descriptors are those of this process.
"""

from __future__ import annotations

import gc
import os
import random
import socket
import struct
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala.actors.connection import Connection
from khala.adapters.metrics import NodeCollector
from khala.core.limits import NodeLimits
from khala_contracts.codec import FramesMessage, ReplayComplete
from khala_service.adapters.postgres import open_asyncio_loop
from khala_service.metrics import MetricsRegistry
from tests.actors.khala.node_under_test import hello_with, open_node
from tests.integration.khala.rig import open_rig, open_socket
from tests.integration.khala.test_label_cardinality import series_of
from tests.topic_log import TopicLog, run_topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock

    from tests.integration.khala.rig import BareClient, Rig
    from tests.postgres_cluster import Database

pytestmark = pytest.mark.slow

WARM_UP = 30
CYCLES = 100
TOPICS_IN_TURN = 10_000
PER_CLIENT = 250
PER_SUBSCRIBE = 50
REPLAYED = run_topic(99)


async def orderly(rig: Rig, log: TopicLog) -> None:
    """Follow to the head, then close in good order."""
    client = await rig.follow(log.topic)
    await client.wait(lambda: client.of(ReplayComplete))
    await client.stream.send_all(bytes((0x88, 0x82, 0, 0, 0, 0)) + (1000).to_bytes(2, "big"))
    with trio.fail_after(10):
        while not client.is_over:
            await trio.sleep(0.002)


async def abrupt(rig: Rig, log: TopicLog) -> None:
    """Follow to the head, then reset."""
    client = await rig.follow(log.topic)
    await client.wait(lambda: client.of(ReplayComplete))
    await reset(client)


async def mid_hello(rig: Rig, log: TopicLog) -> None:
    """Leave within the hello, or right after it."""
    client = await open_socket(rig.nodes[0].port, rig._clients)
    await client.wait(lambda: client.transcript.http_head)
    if random.random() < 0.5:
        await client.stream.send_all(bytes((0x82, 0xFE, 1, 0, 0, 0, 0, 0)) + b"half of it")
    else:
        await client.say(hello_with("no token that anybody knows"))
    await reset(client)


async def mid_replay(rig: Rig, log: TopicLog) -> None:
    """Ask for more than buffers hold, leave with the first of it."""
    client = await rig.connect(REPLAYED)
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    await client.subscribe(REPLAYED)
    await client.wait(lambda: client.of(FramesMessage))
    await reset(client)


async def reset(client: BareClient) -> None:
    """Cut the connection by a reset."""
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await client.leave()


async def come_and_go(rig: Rig, logs: Sequence[TopicLog], count: int) -> None:
    """Run cycles, eight at a time: 20 % abrupt, 10 % within the hello, 10 % within a replay."""
    turn = [orderly, abrupt, orderly, mid_hello, orderly, orderly, abrupt, orderly, mid_replay, orderly]
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await turn[number % 10](rig, logs[number % len(logs)])

    async with trio.open_nursery() as working:
        for _ in range(8):
            working.start_soon(work)


@attrs.frozen(order=False)
class State:
    """What this process and its node hold; of descriptors and tasks one each belongs to a database connection."""

    tasks: int
    descriptors: int
    held: tuple[int, ...]

    def is_within(self, other: State) -> bool:
        """Whether nobody is connected, and nothing more is there than in another state."""
        return not any(self.held) and self.tasks <= other.tasks and self.descriptors <= other.descriptors


async def look(rig: Rig) -> State:
    """Return what there is now, without the connections to the database."""
    row = await rig.authority.pool.fetchrow(
        "SELECT count(*) AS open FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'khala-%'"
    )
    assert row is not None
    counters = rig.nodes[0].counters
    return State(
        trio.lowlevel.current_statistics().tasks_living - row["open"],
        len(os.listdir("/proc/self/fd")) - row["open"],
        (
            counters.connections_open,
            counters.handshakes_open,
            counters.subscriptions_open,
            counters.topics_live,
        ),
    )


async def rest(rig: Rig, before: State | None = None) -> State:
    """Wait until nobody is there, and nothing that was not there before; return what is left after 15 s."""
    with trio.move_on_after(15):
        while True:
            seen = await look(rig)
            if seen.is_within(before or seen):
                return seen
            await trio.sleep(0.05)
    return await look(rig)


async def test_whoever_comes_and_goes_leaves_nothing(runtime_database: Database) -> None:
    """After cycles of every kind tasks, descriptors, gauges and series are what they were before them."""
    limits = NodeLimits(topic_linger_s=0.2, close_timeout_s=0.5, admission_per_s=1e6, admission_burst=10**6)
    dsns = runtime_database.superuser_dsn, runtime_database.dsn("khala_reader")
    async with open_asyncio_loop(), open_rig(*dsns, limits=limits) as rig:
        node = rig.nodes[0]
        registry = MetricsRegistry("node", process_metrics=False)
        registry.register(NodeCollector(node.counters, {}))
        logs = [TopicLog(run_topic(number)) for number in range(1, 6)]
        for log in logs:
            await rig.authority.commit(log, 3)
        await rig.authority.commit(TopicLog(REPLAYED), 400, payload=bytes(2_000))
        await come_and_go(rig, logs, WARM_UP)
        before, series = await rest(rig), series_of(registry)
        await come_and_go(rig, logs, CYCLES)
        after = await rest(rig, before)
        assert after.is_within(before), (after, before)
        assert series_of(registry) == series
        assert node.counters.task_restarts == {}
        assert node.counters.connections_accepted == CYCLES + WARM_UP


async def test_whoever_has_left_needs_no_collector(runtime_database: Database) -> None:
    """Ended connections are freed by counting references: a service's collector looks at old objects seldom."""
    limits = NodeLimits(topic_linger_s=0.2, close_timeout_s=0.5)
    dsns = runtime_database.superuser_dsn, runtime_database.dsn("khala_reader")
    async with open_asyncio_loop(), open_rig(*dsns, limits=limits) as rig:
        log = TopicLog(run_topic(1))
        await rig.authority.commit(log, 3)
        await rig.authority.commit(TopicLog(REPLAYED), 400, payload=bytes(2_000))
        before = await rest(rig)
        gc.collect()
        gc.disable()
        try:
            await come_and_go(rig, [log], 10)
            await rest(rig, before)
            # The listener remembers the last that it has accepted.
            assert sum(type(thing) is Connection for thing in gc.get_objects()) <= 1
        finally:
            gc.enable()


async def test_ten_thousand_topics_in_turn(autojump_clock: MockClock) -> None:
    """KH-38: followed one after the other, each stops when its linger is over; no task and no byte of them stays."""
    logs = [TopicLog(run_topic(number)) for number in range(TOPICS_IN_TURN)]
    async with open_node(*logs, limits=NodeLimits(position_check_interval_s=3600)) as node:
        tasks = trio.lowlevel.current_statistics().tasks_living
        most = 0
        for first in range(0, TOPICS_IN_TURN, PER_CLIENT):
            some = [log.topic for log in logs[first : first + PER_CLIENT]]
            client = await node.connect(*some)
            for start in range(0, PER_CLIENT, PER_SUBSCRIBE):
                client.subscribe(*some[start : start + PER_SUBSCRIBE])
                client.unsubscribe(*some[start : start + PER_SUBSCRIBE])
            await node.settle()
            client.read()
            client.peer.leave()
            await trio.sleep(1)
            client.read()
            most = max(most, len(node.registry))
        assert node.counters.by_class["run_events"].joins == TOPICS_IN_TURN
        await trio.sleep(60)
        assert len(node.registry) == 0
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert node.registry.windows_bytes == 0
        # Those of the last half minute linger, nobody before them.
        assert most < TOPICS_IN_TURN
