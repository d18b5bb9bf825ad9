"""KH-02..05: three nodes over one PostgreSQL, drivers that do harm, clients that hop: every wire is the journal."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

import attrs
import trio

from chaos.checker import check_positions
from fanout_drivers.faults import FaultRates
from fanout_drivers.faulty import FaultyDriver
from fanout_drivers.memory import MemoryDriver
from khala_contracts.codec import (
    CursorStart,
    ErrorMessage,
    StaleCursor,
    Subscribe,
    Subscribed,
    TopicStart,
)
from khala_service.adapters.postgres import open_asyncio_loop
from tests.integration.khala.rig import open_rig
from tests.topic_log import LINEAGE, TopicLog, run_topic

if TYPE_CHECKING:
    from tests.integration.khala.rig import BareClient, Rig
    from tests.postgres_cluster import Database

HARM = FaultRates(loss=0.10, duplicate=0.20, reorder=0.20, forge=0.05)
# SPEC section 1, promise 4, and what a busy test machine adds.
SOON_S = 2.0
PATIENCE_S = 8.0


def _is_settled(client: BareClient, logs: list[TopicLog]) -> bool:
    return all(client.position(log.topic) == log.head_seq for log in logs)


@attrs.define(eq=False)
class _Hopper:
    """Follows every topic, changes nodes, resumes from what its transcripts hold."""

    rig: Rig
    logs: list[TopicLog]
    rng: Random
    client: BareClient | None = None
    seqs: dict[str, list[int]] = attrs.field(factory=dict)
    hops: int = 0

    async def hop(self) -> None:
        """Cut the connection, keep what was received, resume elsewhere."""
        await self.leave()
        topics = [log.topic for log in self.logs]
        node = self.rng.randrange(len(self.rig.nodes))
        self.client = await self.rig.connect(*topics, node=node, is_text=self.rng.random() < 0.3)
        await self.client.say(Subscribe(tuple(self._start(log) for log in self.logs)))
        self.hops += 1

    def _start(self, log: TopicLog) -> TopicStart:
        seq = len(self.seqs.get(log.topic.name, ()))
        return TopicStart(log.topic.name, CursorStart(seq, LINEAGE, log.chains[seq]))

    async def leave(self) -> None:
        """Apply what has come. The transcript has judged it: +1, and the authority's chain."""
        if self.client is not None:
            assert not self.client.is_over
            assert self.client.of(StaleCursor) == self.client.of(ErrorMessage) == []
            await self.client.leave()
            for topic, followed in self.client.transcript.topics.items():
                self.seqs.setdefault(topic, []).extend(followed.seqs)

    async def run(self, stop: trio.Event) -> None:
        """Hop now and then until told to stop."""
        await self.hop()
        while not stop.is_set():
            with trio.move_on_after(self.rng.uniform(0.5, 1.5)):
                await stop.wait()
            if not stop.is_set():
                await self.hop()


async def test_three_nodes_under_harm(runtime_database: Database) -> None:
    """Loss, duplicates, reordering and forgery at each node: contiguous, complete, and no forgery anywhere."""
    rng = Random(5)
    memory = MemoryDriver()
    drivers = [FaultyDriver(memory, HARM, seed) for seed in range(3)]
    logs = [TopicLog(run_topic(number)) for number in range(10)]
    dsn = runtime_database.dsn("khala_reader")
    async with (
        open_asyncio_loop(),
        open_rig(runtime_database.superuser_dsn, dsn, nodes=3, driver=memory, drivers=[*drivers]) as rig,
    ):
        for log in logs:
            await rig.authority.commit(log, rng.randrange(1, 30))
        stop = trio.Event()
        hoppers = [_Hopper(rig, logs, Random(rng.random())) for _ in range(6)]
        async with trio.open_nursery() as nursery:
            for hopper in hoppers:
                nursery.start_soon(hopper.run, stop)
            for _ in range(400):
                await rig.authority.commit(rng.choice(logs), rng.choice((1, 1, 4)))
                await trio.sleep(0.002)
            stop.set()
        for hopper in hoppers:
            assert hopper.client is not None
            await hopper.client.wait(partial(_is_settled, hopper.client, logs), within_s=PATIENCE_S)
            await hopper.leave()
            for log in logs:
                name = log.topic.name
                applied = hopper.seqs[name]
                assert check_positions(name, applied, source="hopper", head_seq=log.head_seq) == []
        assert sum(hopper.hops for hopper in hoppers) > 12
        injected = memory.counters.injected
        assert all(injected[fault] > 30 for fault in ("loss", "duplicate", "reorder", "forge")), injected
        assert sum(node.counters.heals for node in rig.nodes) > 0
        assert sum(node.counters.records_forged for node in rig.nodes) > 0
        assert all(node.counters.task_restarts == {} for node in rig.nodes)


async def test_the_last_record_before_silence(runtime_database: Database) -> None:
    """KH-04: nobody hears of the last commit: all nodes have it within 2 s."""
    log = TopicLog()
    dsn = runtime_database.dsn("khala_reader")
    async with open_asyncio_loop(), open_rig(runtime_database.superuser_dsn, dsn, nodes=3) as rig:
        await rig.authority.commit(log, 5)
        clients = [await rig.follow(log.topic, node=number) for number in range(3)]
        for client in clients:
            await client.wait_at(log.topic, 5)
        await rig.authority.commit(log, is_said=False)
        for client in clients:
            await client.wait_at(log.topic, 6, within_s=SOON_S)


async def test_subscribing_while_it_grows(runtime_database: Database) -> None:
    """KH-05: clients at random moments with random cursors: no gap, no repeat, through_seq exact."""
    rng, log = Random(200), TopicLog()
    dsn = runtime_database.dsn("khala_reader")
    async with open_asyncio_loop(), open_rig(runtime_database.superuser_dsn, dsn, nodes=3) as rig:
        await rig.authority.commit(log, 300)
        clients: list[BareClient] = []
        # The log is ahead of the journal while it commits: a cursor of there is one of another history.
        committed_seq = log.head_seq

        async def subscribe(number: int) -> None:
            await trio.sleep(rng.uniform(0, 2))
            client = await rig.connect(log.topic, node=number % 3, is_text=number % 10 == 0)
            seq = rng.randrange(committed_seq)
            await client.subscribe(log.topic, start=CursorStart(seq, LINEAGE, log.chains[seq]))
            clients.append(client)

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(subscribe, number)
            for _ in range(200):
                await rig.authority.commit(log, 5)
                committed_seq = log.head_seq
                await trio.sleep(0.005)
        for client in clients:
            assert client.of(StaleCursor) == []
            # The transcript judges the seam: frames end at through_seq, and go on with the next.
            await client.wait_at(log.topic, log.head_seq, within_s=PATIENCE_S)
            (subscribed,) = client.of(Subscribed)
            followed = client.transcript.topics[log.topic.name]
            assert followed.completed_at == subscribed.head_seq
            assert followed.chain == log.chains[log.head_seq]
        assert len(clients) == 60
