"""RT-26: a journal row that is not its frame: who needs it is ended there, everybody else has the same delays."""

from __future__ import annotations

from functools import partial
from statistics import quantiles
from typing import TYPE_CHECKING

import trio

from khala_contracts.codec import CursorStart, ErrorMessage, FramesMessage
from khala_service.adapters.postgres import open_asyncio_loop
from tests.integration.khala.rig import open_rig
from tests.topic_log import LINEAGE, TopicLog, run_topic

if TYPE_CHECKING:
    from tests.integration.khala.rig import BareClient, Rig
    from tests.postgres_cluster import Database

TOPIC, OTHER_TOPIC = run_topic(1), run_topic(2)


async def _delays_s(rig: Rig, client: BareClient, log: TopicLog, count: int) -> list[float]:
    """Commit so many events, one after the other; return how long each took to arrive."""
    delays = []
    for _ in range(count):
        await rig.authority.commit(log)
        committed_at = trio.current_time()
        await client.wait_at(log.topic, log.head_seq)
        delays.append(trio.current_time() - committed_at)
    return delays


async def _replay_again_and_again(rig: Rig, stop: trio.Event) -> None:
    while not stop.is_set():
        client = await rig.follow(TOPIC)
        await client.wait(partial(client.of, ErrorMessage))
        await client.leave()


async def test_a_poison_row(runtime_database: Database) -> None:
    """Replays run into it all the time: other topics' p99 stays, the rest of the topic is served."""
    log, other = TopicLog(TOPIC), TopicLog(OTHER_TOPIC)
    dsn = runtime_database.dsn("khala_reader")
    async with open_asyncio_loop(), open_rig(runtime_database.superuser_dsn, dsn) as rig:
        await rig.authority.commit(log, 100)
        live = await rig.connect(TOPIC)
        await live.subscribe(TOPIC, start=CursorStart(100, LINEAGE))
        quiet = await rig.follow(OTHER_TOPIC)
        await rig.authority.commit(other)
        await quiet.wait_at(OTHER_TOPIC, 1)
        before = await _delays_s(rig, quiet, other, 60)
        await rig.authority.pool.execute(
            "UPDATE runtime.journal SET entry = 'not a frame'::bytea WHERE topic = $1 AND seq = 61",
            TOPIC.name,
        )
        reader = await rig.follow(TOPIC)
        await reader.wait(lambda: bool(reader.of(ErrorMessage)))
        (ended,) = reader.of(ErrorMessage)
        assert (ended.code, ended.topic, ended.retry_after_ms) == ("internal", TOPIC.name, 5_000)
        assert [frame.seq for message in reader.of(FramesMessage) for frame in message.frames] == [
            *range(1, 61)
        ]
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(_replay_again_and_again, rig, stop)
            during = await _delays_s(rig, quiet, other, 60)
            stop.set()
        # A hundred times what a delivery takes here, and far below a position check.
        assert quantiles(during, n=100)[98] < quantiles(before, n=100)[98] + 0.25
        await rig.authority.commit(log)
        await live.wait_at(TOPIC, 101)
        behind = await rig.connect(TOPIC)
        await behind.subscribe(TOPIC, start=CursorStart(61, LINEAGE))
        await behind.wait_at(TOPIC, 101)
        counters = rig.nodes[0].counters
        assert counters.rows_unreadable >= 1
        assert set(counters.task_restarts) == {"page_read"}
