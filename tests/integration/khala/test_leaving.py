"""KH-10, KH-11, INV-36: leaving and returning over real sockets and a real PostgreSQL, on two nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio

from khala.core.limits import NodeLimits
from khala_contracts.codec import CursorStart, ErrorMessage, GoAway, ReplayComplete, Subscribed, Welcome
from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from tests.integration.khala.rig import BareClient, Rig, open_rig
from tests.topic_log import LINEAGE, TopicLog, run_topic

if TYPE_CHECKING:
    from khala_contracts.topics import ParsedTopic
    from tests.postgres_cluster import Database

pytestmark = pytest.mark.slow

CLIENTS: Final = 120
TOPICS: Final = 12
# So many of the topics are written all the time; nothing happens on the others.
BUSY: Final = 6
RETURN_PER_S: Final = 60.0
# On a machine that is busy with other things; what a test asserts of times is far from it.
DEADLINE_S: Final = 60.0


def cursor_of(client: BareClient, topic: ParsedTopic) -> CursorStart:
    """Return where a client stands, as clients keep it."""
    followed = client.transcript.topics[topic.name]
    return CursorStart(followed.position, LINEAGE, followed.chain)


async def move_when_told(rig: Rig, client: BareClient, topic: ParsedTopic, told_ms: list[int]) -> list[int]:
    """Stay until the node says go, return to the second one at the time given; return every seq that was applied."""
    await client.wait(lambda: client.of(GoAway), within_s=DEADLINE_S)
    told_at, (go_away,) = trio.current_time(), client.of(GoAway)
    told_ms.append(go_away.reconnect_after_ms)
    await trio.sleep_until(told_at + go_away.reconnect_after_ms / 1000)
    # What the node has sent until its close is read first, as by any client.
    with trio.fail_after(DEADLINE_S):
        while not client.is_over:
            await trio.sleep(0.005)
    assert client.transcript.closed_with == 4000
    assert [error.code for error in client.of(ErrorMessage)] == ["draining"]
    again = await rig.connect(topic, node=1)
    await again.subscribe(topic, start=cursor_of(client, topic))
    await again.wait(lambda: again.of(ReplayComplete), within_s=DEADLINE_S)
    seen = list(client.transcript.topics[topic.name].seqs)
    return [*seen, *again.transcript.topics[topic.name].seqs]


async def test_a_node_that_leaves_under_load(runtime_database: Database) -> None:
    """120 clients return to the other node spread as they were told, miss nothing, and cost it O(topics) reads."""
    limits = NodeLimits(
        drain_return_per_s=RETURN_PER_S,
        drain_timeout_s=40.0,
        admission_burst=10_000,
        # These clients do not heartbeat.
        dead_after_s=600.0,
        # So that a check that takes its time here is still young.
        position_check_interval_s=3.0,
    )
    logs = [TopicLog(run_topic(number)) for number in range(1, TOPICS + 1)]
    async with (
        open_asyncio_loop(),
        open_rig(
            runtime_database.superuser_dsn, runtime_database.dsn("khala_reader"), nodes=2, limits=limits
        ) as rig,
        trio.open_nursery() as writing,
    ):
        leaving, staying = rig.nodes
        for log in logs:
            await rig.authority.commit(log, 5)
        clients = []
        for number in range(CLIENTS):
            topic = logs[number % TOPICS].topic
            clients.append((await rig.follow(topic), topic))
        for client, topic in clients:
            await client.wait_at(topic, 5, within_s=DEADLINE_S)

        async def write(log: TopicLog) -> None:
            while True:
                await rig.authority.commit(log)
                await trio.sleep(0.1)

        for log in logs[:BUSY]:
            writing.start_soon(write, log)
        told_ms: list[int] = []
        applied: dict[int, list[int]] = {}
        began_at = trio.current_time()
        async with trio.open_nursery() as moving:

            async def move(number: int, client: BareClient, topic: ParsedTopic) -> None:
                applied[number] = await move_when_told(rig, client, topic, told_ms)

            for number, (client, topic) in enumerate(clients):
                moving.start_soon(move, number, client, topic)
            leaving.drain.set()
        with trio.fail_after(DEADLINE_S):
            await leaving.has_left.wait()
        writing.cancel_scope.cancel()
        # One in each slot of the rate; when each really comes is up to this machine.
        assert trio.current_time() - began_at >= (CLIENTS - 1) / RETURN_PER_S
        slots = [int(told / 1000 * RETURN_PER_S + 0.03) for told in sorted(told_ms)]
        assert all(abs(slot - number) <= 1 for number, slot in enumerate(slots))
        for seqs in applied.values():
            assert seqs == list(range(1, len(seqs) + 1))
            assert len(seqs) >= 5
        assert leaving.counters.go_aways == CLIENTS
        assert leaving.counters.closes["draining"] == CLIENTS
        # Half of the clients came back to topics on which nothing had happened: few of them were read for.
        busy_clients = CLIENTS * BUSY // TOPICS
        assert staying.counters.observations_read <= busy_clients + 2 * (TOPICS - BUSY)
        assert staying.counters.task_restarts == leaving.counters.task_restarts == {}
        # Nobody is let in any more.
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", leaving.port)


async def test_a_storm_on_quiet_topics(runtime_database: Database) -> None:
    """200 clients cut at once come back to 10 quiet topics: fewer statements than clients by far, and no page."""
    limits = NodeLimits(admission_burst=10_000, position_check_interval_s=3.0)
    logs = [TopicLog(run_topic(number)) for number in range(1, 11)]
    async with (
        open_asyncio_loop(),
        open_rig(runtime_database.superuser_dsn, runtime_database.dsn("khala_reader"), limits=limits) as rig,
        trio.open_nursery() as storm,
    ):
        for log in logs:
            await rig.authority.commit(log, 30)
        (node,) = rig.nodes

        async def return_to(log: TopicLog) -> None:
            client = await rig.connect(log.topic)
            start = CursorStart(log.head_seq, LINEAGE, log.chains[-1])
            await client.subscribe(log.topic, start=start)
            await client.wait(lambda: client.of(ReplayComplete), within_s=DEADLINE_S)
            assert client.of(Subscribed)[0].head_seq == 30

        for number in range(200):
            storm.start_soon(return_to, logs[number % 10])
            await trio.sleep(0.002)
        with trio.fail_after(DEADLINE_S):
            while node.counters.subscribes["served"] < 200:
                await trio.sleep(0.01)
        assert node.counters.observations_read <= 2 * len(logs)
        assert node.counters.resumes_unread >= 100
        assert node.counters.pages_read == 0


async def test_a_client_that_slept(runtime_database: Database) -> None:
    """A lid that was closed: freed at dead_after_s although its socket is open; awake, it gets what it missed only."""
    limits = NodeLimits(
        dead_after_s=1.0, heartbeat_interval_s=0.3, sweep_interval_s=0.05, close_timeout_s=5.0
    )
    log = TopicLog(run_topic(1))
    async with (
        open_asyncio_loop(),
        open_rig(runtime_database.superuser_dsn, runtime_database.dsn("khala_reader"), limits=limits) as rig,
    ):
        await rig.authority.commit(log, 20)
        (node,) = rig.nodes
        # It says nothing more and answers nothing; what comes waits in its kernel, as behind a closed lid.
        asleep = await rig.follow(log.topic)
        await asleep.wait_at(log.topic, 20)
        began_at = trio.current_time()
        with trio.fail_after(DEADLINE_S):
            while node.counters.connections_open:
                await trio.sleep(0.01)
        # Not after another close_timeout_s: nobody is there to answer.
        assert 0.5 <= trio.current_time() - began_at <= 3.0
        assert node.counters.closes == {"heartbeat_timeout": 1}
        assert node.counters.subscriptions_open == 0
        await rig.authority.commit(log, 30)
        await asleep.wait(lambda: asleep.is_over)
        assert asleep.transcript.closed_with == 4002
        awake = await rig.connect(log.topic)
        await awake.subscribe(log.topic, start=cursor_of(asleep, log.topic))
        await awake.wait_at(log.topic, 50)
        assert awake.transcript.topics[log.topic.name].seqs == list(range(21, 51))
        assert len(awake.of(Welcome)) == 1
