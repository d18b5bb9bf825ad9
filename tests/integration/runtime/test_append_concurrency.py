"""Many connections append at once: no hole, no repeat, no deadlock, and nobody sees k+1 before k.

Plain transactions around append_v1, without the appender: the guarantees are the database's own.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import asyncpg
import attrs
import pytest

from khala_contracts.chain import chain_next, chain_start
from tests.actors.runtime.rig import topic_of
from tests.integration.runtime.raw_append import RawEvent, append_raw, connected

if TYPE_CHECKING:
    from tests.postgres_cluster import Database

pytestmark = pytest.mark.slow

WRITERS = 16
APPENDS = 1_000
TOPICS = [topic_of(number) for number in range(1, 5)]
ROLLED_BACK = 0.10
TERMINATED = 40
# What asyncpg raises, depending on where the end of the backend finds it.
BROKEN = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)


@attrs.define
class Account:
    """What the writers know they did."""

    # event id -> (topic, seq), acknowledged.
    committed: dict[str, tuple[str, int]] = attrs.field(factory=dict)
    rolled_back: set[str] = attrs.field(factory=set)
    # The backend was ended before it answered: committed or not, nobody told us.
    unknown: set[str] = attrs.field(factory=set)
    backends: dict[int, int] = attrs.field(factory=dict)
    writing: int = 0


async def write(database: Database, number: int, account: Account) -> None:
    """Append APPENDS times; some are rolled back, some lose their backend."""
    rng = random.Random(number)  # its own seed: reproducible however the tasks interleave
    connection: asyncpg.Connection[asyncpg.Record] | None = None
    account.writing += 1
    try:
        for index in range(APPENDS):
            if connection is None or connection.is_closed():
                connection = await asyncpg.connect(database.dsn("khala_runtime"))
                account.backends[number] = connection.get_server_pid()
            topic = TOPICS[(number + index) % len(TOPICS)]
            event = RawEvent(f"{number}-{index}", payload=str(index).encode())
            wants_rollback = rng.random() < ROLLED_BACK
            transaction = connection.transaction()
            try:
                await transaction.start()
                row = await append_raw(connection, (topic, [event]))
                await (transaction.rollback() if wants_rollback else transaction.commit())
            except BROKEN:
                account.unknown.add(event.event_id)
                connection.terminate()
                continue
            if wants_rollback:
                account.rolled_back.add(event.event_id)
            else:
                account.committed[event.event_id] = topic, row["seqs_before"][0] + 1
    finally:
        account.writing -= 1
        if connection is not None:
            connection.terminate()


async def terminate_some(database: Database, account: Account) -> None:
    """End backends of writers, now and then, wherever they are in their transaction."""
    rng = random.Random(0)
    async with connected(database.superuser_dsn) as owner:
        for _ in range(TERMINATED):
            await asyncio.sleep(0.05)
            if not account.writing:
                return
            pid = rng.choice(list(account.backends.values()))
            await owner.execute("SELECT pg_terminate_backend($1)", pid)


async def poll(database: Database, account: Account) -> int:
    """Read what is new, over and over; return how many rows came. Each must be the next one."""
    seen = dict.fromkeys(TOPICS, 0)
    async with connected(database.dsn("khala_reader")) as reader:
        is_last = False
        while True:
            for topic in TOPICS:
                rows = await reader.fetch(
                    "SELECT seq FROM runtime.journal WHERE topic = $1 AND seq > $2 ORDER BY seq",
                    topic,
                    seen[topic],
                )
                for row in rows:
                    assert row["seq"] == seen[topic] + 1, f"{topic}: {row['seq']} after {seen[topic]}"
                    seen[topic] = row["seq"]
            if is_last:
                return sum(seen.values())
            is_last = not account.writing
            await asyncio.sleep(0)


def test_sixteen_writers_leave_no_hole(runtime_database: Database) -> None:
    """RT-05: 16 x 1,000 appends on four topics with rollbacks and ended backends leave exactly 1..N."""

    async def scenario() -> None:
        account = Account()
        async with asyncio.TaskGroup() as tasks:
            for number in range(WRITERS):
                tasks.create_task(write(runtime_database, number, account))
            await asyncio.sleep(0)
            polling = tasks.create_task(poll(runtime_database, account))
            tasks.create_task(terminate_some(runtime_database, account))
        async with connected(runtime_database.superuser_dsn) as owner:
            log = await owner.fetch(
                "SELECT topic, seq, event_id, kind, payload FROM runtime.events ORDER BY topic, seq"
            )
            journal = await owner.fetch("SELECT topic, seq, chain FROM runtime.journal ORDER BY topic, seq")
            heads = {row["topic"]: row for row in await owner.fetch("SELECT * FROM runtime.topic_heads")}
        assert len(account.committed) + len(account.rolled_back) + len(account.unknown) == WRITERS * APPENDS
        assert account.unknown, "no backend was ended in the middle of its work"
        written = {row["event_id"]: (row["topic"], row["seq"]) for row in log}
        assert len(written) == len(log) == polling.result()
        assert account.committed.items() <= written.items()
        assert not account.rolled_back & written.keys()
        assert written.keys() - account.committed.keys() <= account.unknown
        chains = {(row["topic"], row["seq"]): row["chain"] for row in journal}
        assert len(chains) == len(log)
        for topic in TOPICS:
            chain = chain_start(topic)
            of_topic = [row for row in log if row["topic"] == topic]
            assert [row["seq"] for row in of_topic] == list(range(1, len(of_topic) + 1))
            for row in of_topic:
                chain = chain_next(chain, row["seq"], 1, row["kind"], row["payload"])
                assert chains[topic, row["seq"]] == chain
            assert (heads[topic]["head_seq"], heads[topic]["head_chain"]) == (len(of_topic), chain)

    asyncio.run(scenario())


@pytest.mark.parametrize(("together", "appends"), [(2, 60), (20, 15)])
def test_random_sets_do_not_deadlock(runtime_database: Database, together: int, appends: int) -> None:
    """RT-27: 32 writers on random topics of 50, named in random order: no deadlock, no hole.

    Pairs are the requirement; sets of twenty hold their locks long enough to meet for certain.
    """
    topics = [topic_of(number) for number in range(100, 150)]

    async def write_sets(number: int) -> None:
        rng = random.Random(number)
        async with connected(runtime_database.dsn("khala_runtime")) as connection:
            for index in range(appends):
                chosen = rng.sample(topics, together)
                await append_raw(
                    connection, *[(topic, [RawEvent(f"{number}-{index}-{topic}")]) for topic in chosen]
                )

    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(32):
                tasks.create_task(write_sets(number))
        async with connected(runtime_database.superuser_dsn) as owner:
            deadlocks = await owner.fetchval(
                "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            )
            holes = await owner.fetch(
                "SELECT h.topic FROM runtime.topic_heads AS h LEFT JOIN runtime.events AS e USING (topic)"
                " GROUP BY h.topic, h.head_seq HAVING count(*) <> h.head_seq OR max(e.seq) <> h.head_seq"
            )
            count = await owner.fetchval("SELECT count(*) FROM runtime.events")
        assert (deadlocks, holes, count) == (0, [], together * 32 * appends)

    asyncio.run(scenario())
