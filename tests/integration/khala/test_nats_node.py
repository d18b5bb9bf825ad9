"""A node behind a real NATS server: forgeries with the right subject, lost messages, names that want to be wildcards."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import pytest
import trio

from fanout_drivers.delivery_queue import DeliveryQueue
from fanout_drivers.nats import NatsDriver, NatsLimits
from fanout_drivers.subjects import encode_subject, revocations_subject
from khala.adapters.embedded_nats import open_embedded_nats
from khala_contracts.chain import chain_next
from khala_contracts.codec import (
    EntryTemplate,
    ErrorMessage,
    FramesMessage,
    FromStart,
    Subscribe,
    SubscribeFrom,
    TopicStart,
)
from khala_contracts.fanout_records import RecordSigner
from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from tests.actors.khala.node_under_test import KEY, KEY_ID
from tests.contract.driver_suite import wait_healthy
from tests.integration.drivers.rig import PREFIX, free_port, login_of, running_driver
from tests.integration.khala.rig import open_rig
from tests.topic_log import KIND, TopicLog, run_topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from khala_contracts.fanout_records import FanoutRecord
    from tests.integration.khala.rig import BareClient, Rig
    from tests.postgres_cluster import Database

pytestmark = pytest.mark.slow

DEADLINE_S: Final = 60.0
# SPEC section 1, promise 4, and what a busy test machine adds.
HEALED_S: Final = 8.0
HOSTILE: Final = (
    "*", ">", "khala.v1.>", "run:*:events", "run:>:events", f"{run_topic(1).name}.>", f"{run_topic(1).name}\r\nSUB > 9",
    f"run:run_{1:026d}.*:events", f"app:org_{1:026d}:*", f"app:org_{1:026d}:a.b", f"app:org_{1:026d}:>", "$SYS.>",
)  # fmt: skip


@attrs.define(eq=False)
class Behind:
    """A node's rig, and the drivers of the two processes."""

    rig: Rig
    runtime: NatsDriver
    node: NatsDriver


@asynccontextmanager
async def open_behind(
    folder: Path, database: Database, limits: NatsLimits | None = None
) -> AsyncIterator[Behind]:
    """Run a NATS server, a node that subscribes with a node's login, and an authority with a runtime's."""
    async with AsyncExitStack() as held:
        await held.enter_async_context(open_asyncio_loop())
        server = await held.enter_async_context(open_embedded_nats(folder, free_port()))
        runtime, node = (
            NatsDriver((server.url,), login_of(server.command, role), PREFIX, limits or NatsLimits())
            for role in ("runtime", "node")
        )
        for driver in (runtime, node):
            await held.enter_async_context(running_driver(driver))
            await wait_healthy(driver)
        rig = await held.enter_async_context(
            open_rig(
                database.superuser_dsn,
                database.dsn("khala_reader"),
                driver=runtime,  # type: ignore[arg-type]
                drivers=[node],
            )
        )
        with trio.fail_after(DEADLINE_S):
            yield Behind(rig, runtime, node)


def invent_next(log: TopicLog) -> FanoutRecord:
    """Return what the next record of a topic could be, right in everything but that nobody committed it."""
    seq, payload = log.head_seq + 1, b"forged"
    return attrs.evolve(
        log.record(log.head_seq, log.head_seq),
        first_seq=seq,
        last_seq=seq,
        chain_before=log.chains[-1],
        chain_after=chain_next(log.chains[-1], seq, 1, KIND, payload),
        entries=(EntryTemplate(log.topic.name).entry(seq, KIND, payload, 1),),
    )


async def test_forged_records_reach_nobody(tmp_path: Path, runtime_database: Database) -> None:
    """FD-07: right subject, next seq, right chain, by the runtime's own login: counted, sent to nobody.

    The true record with that seq arrives as ever; both before and after it every forgery is refused.
    """
    log, other = TopicLog(), TopicLog(run_topic(2))
    async with open_behind(tmp_path, runtime_database) as behind:
        rig, counters = behind.rig, behind.rig.nodes[0].counters
        await rig.authority.commit(log, 5)
        await rig.authority.commit(other, 6)
        client = await rig.follow(log.topic, other.topic)
        await client.wait_at(log.topic, 5)
        await client.wait_at(other.topic, 6)
        for _ in range(3):
            record, topic = invent_next(log), log.topic.name
            forgeries = [
                b"",
                bytes(range(256)),
                RecordSigner(KEY_ID, bytes(32)).seal(record),
                RecordSigner("another", KEY).seal(record),
                rig.authority.signer.seal(record).replace(b"forged", b"FORGED"),
                # A true one, of another topic.
                rig.authority.signer.seal(other.record(6, 6)),
            ]
            counted = counters.records_forged
            for forgery in forgeries:
                await behind.runtime.publish(topic, forgery)
            while counters.records_forged < counted + len(forgeries):
                await trio.sleep(0.01)
            await rig.authority.commit(log)
            await client.wait_at(log.topic, log.head_seq)
        frames = [frame for message in client.of(FramesMessage) for frame in message.frames]
        assert len(frames) == log.head_seq + other.head_seq
        assert not any(b"forged" in frame.payload.lower() for frame in frames)
        # It was the broker that brought the true ones, too.
        assert counters.records_forged == 18
        assert behind.node.counters.received >= 18


async def test_900_lost_messages_are_healed(
    tmp_path: Path, runtime_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FD-03: a node that holds 100 is sent 1,000 while it takes nothing: its client gets all, in order."""
    log = TopicLog()
    async with open_behind(tmp_path, runtime_database, NatsLimits(queue_max_records=100)) as behind:
        rig, node = behind.rig, behind.node
        await rig.authority.commit(log)
        client = await rig.follow(log.topic)
        await client.wait_at(log.topic, 1)
        taking = trio.Event()
        receive = DeliveryQueue.receive

        async def receive_later(queue: DeliveryQueue) -> object:
            await taking.wait()
            return await receive(queue)

        with monkeypatch.context() as stuck:
            stuck.setattr(DeliveryQueue, "receive", receive_later)
            # The task that receives already waits in the true one: this record frees it.
            await rig.authority.commit(log)
            await client.wait_at(log.topic, 2)
            records = [log.append() for _ in range(1_000)]
            await rig.authority.write(log, 2)
            for record in records:
                await behind.runtime.publish(record.topic, rig.authority.signer.seal(record))
            while node.counters.dropped < 900:
                await trio.sleep(0.01)
            taking.set()
        await client.wait_at(log.topic, log.head_seq, within_s=HEALED_S)
        assert node.counters.dropped >= 900
        assert log.head_seq == 1_002


def _is_refused(client: BareClient) -> bool:
    """Whether every hostile name has had its answer."""
    return len(client.of(ErrorMessage)) == len(HOSTILE)


async def test_no_name_becomes_a_wildcard(tmp_path: Path, runtime_database: Database) -> None:
    """SPEC 2: whatever a client calls a topic, the broker is asked for nothing but whole subjects of the registry."""
    log = TopicLog()
    async with open_behind(tmp_path, runtime_database) as behind:
        await behind.rig.authority.commit(log)
        for is_text in (False, True):
            client = await behind.rig.connect(log.topic, is_text=is_text)
            start = FromStart(SubscribeFrom.BEGINNING)
            await client.say(Subscribe(tuple(TopicStart(name, start) for name in HOSTILE)))
            await client.wait(partial(_is_refused, client))
            await client.subscribe(log.topic)
            await client.wait_at(log.topic, 1)
            session = behind.node._session
            assert session is not None
            assert set(session._subscriptions) == {
                encode_subject(PREFIX, log.topic.name),
                revocations_subject(PREFIX),
            }
            await client.leave()
