"""The pool against a real server: cancellation, broken connections, time limits."""

import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from khala.adapters.embedded_postgres import start_server, stop_server
from khala_service.adapters.postgres import (
    DatabaseError,
    PostgresConnection,
    PostgresPool,
    SerializationTrouble,
    Unavailable,
    open_asyncio_loop,
    open_pool,
)
from khala_service.adapters.postgres_metrics import watch_pools
from khala_service.metrics import MetricsRegistry
from tests.postgres_cluster import Database, PostgresTestCluster, running_cluster


@pytest.fixture
async def pool(empty_database: Database) -> AsyncIterator[PostgresPool]:
    """Two connections as superuser, who may end others' backends and create tables."""
    async with (
        open_asyncio_loop(),
        open_pool(
            empty_database.superuser_dsn,
            application_name="khala-test",
            max_size=2,
            statement_timeout_ms=3_000,
            lock_timeout_ms=200,
            acquire_timeout_s=0.5,
        ) as pool,
    ):
        await pool.execute("CREATE TABLE counted (id int PRIMARY KEY, n int NOT NULL)")
        yield pool


async def _terminate_during(pool: PostgresPool, query: str) -> None:
    """End, from the pool's other connection, the backend that runs `query`."""
    with trio.fail_after(5):
        while True:
            rows = await pool.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE $1 AND state = 'active' AND pid <> pg_backend_pid()",
                f"%{query}%",
            )
            if rows:
                return
            await trio.sleep(0.01)


async def _pid(connection: PostgresConnection) -> int:
    row = await connection.fetchrow("SELECT pg_backend_pid() AS pid")
    assert row is not None
    return int(row["pid"])


async def _healthy(pool: PostgresPool) -> bool:
    """Use every connection of the pool at once."""
    async with pool.acquire() as first, pool.acquire() as second:
        return await _pid(first) != await _pid(second)


async def test_rows_tags_and_settings(pool: PostgresPool) -> None:
    """Rows, single rows, tags; every connection carries the limits it was opened with."""
    assert await pool.execute("INSERT INTO counted VALUES (1, 10), (2, 20)") == "INSERT 0 2"
    assert [row["n"] for row in await pool.fetch("SELECT n FROM counted ORDER BY id")] == [10, 20]
    assert await pool.fetchrow("SELECT n FROM counted WHERE id = $1", 3) is None
    expected = {
        "statement_timeout": "3s",
        "lock_timeout": "200ms",
        "idle_in_transaction_session_timeout": "10s",
        "application_name": "khala-test",
        "TimeZone": "UTC",
        "jit": "off",
    }
    rows = await pool.fetch(
        "SELECT name, current_setting(name) AS value FROM unnest($1::text[]) AS name", list(expected)
    )
    assert {row["name"]: row["value"] for row in rows} == expected


async def test_a_terminated_backend_is_an_unknown_outcome(pool: PostgresPool) -> None:
    """DB-08: the connection broke after the statement was sent, so nobody knows; the pool recovers."""
    caught: list[Unavailable] = []

    async def insert_slowly() -> None:
        try:
            await pool.execute("INSERT INTO counted SELECT 1, 1 FROM pg_sleep(2.5)")
        except Unavailable as error:
            caught.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(insert_slowly)
        await _terminate_during(pool, "pg_sleep(2.5)")
    assert [error.outcome_unknown for error in caught] == [True]
    assert await _healthy(pool)


@pytest.mark.parametrize("method", ["read", "readrow"])
async def test_a_read_has_no_outcome(pool: PostgresPool, method: str) -> None:
    """DB-08: a connection that breaks during a read is trouble, but nothing can have been done."""
    caught: list[Unavailable] = []

    async def read_slowly() -> None:
        try:
            await getattr(pool, method)("SELECT 1 FROM pg_sleep(2.5)")
        except Unavailable as error:
            caught.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly)
        await _terminate_during(pool, "pg_sleep(2.5)")
    assert [error.outcome_unknown for error in caught] == [False]
    assert await pool.read("SELECT 1 AS one") == [(1,)]
    assert await pool.readrow("SELECT 1 WHERE false") is None


async def test_a_backend_that_ends_inside_a_transaction_wrote_nothing(pool: PostgresPool) -> None:
    """Before COMMIT a broken connection is a rollback: the outcome is known."""

    async def lose_the_connection_between_statements() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO counted VALUES (1, 1)")
            await pool.fetch("SELECT pg_terminate_backend($1)", await _pid(connection))
            await connection.execute("INSERT INTO counted VALUES (2, 2)")

    with pytest.raises(Unavailable) as caught:
        await lose_the_connection_between_statements()
    assert not caught.value.outcome_unknown
    assert await pool.fetch("SELECT * FROM counted") == []
    assert await _healthy(pool)


async def test_a_backend_that_ends_before_commit_is_an_unknown_outcome(pool: PostgresPool) -> None:
    """Once COMMIT may have been read, only the database knows."""

    async def lose_the_connection_before_commit() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await pool.fetch("SELECT pg_terminate_backend($1)", await _pid(connection))

    with pytest.raises(Unavailable) as caught:
        await lose_the_connection_before_commit()
    assert caught.value.outcome_unknown
    assert await _healthy(pool)


async def test_a_cancelled_query_ends_on_the_server(pool: PostgresPool) -> None:
    """Cancellation cancels the query, and the next user of the connection notices nothing."""
    for _ in range(5):
        with trio.move_on_after(0.05) as scope:
            await pool.execute("INSERT INTO counted SELECT 1, 1 FROM pg_sleep(2)")
        assert scope.cancelled_caught
    assert await _healthy(pool)
    active = "SELECT count(*) AS n FROM pg_stat_activity WHERE query LIKE '%pg_sleep(2)%'"
    row = await pool.fetchrow(active + " AND state = 'active' AND pid <> pg_backend_pid()")
    assert row is not None
    assert row["n"] == 0
    assert await pool.fetch("SELECT * FROM counted") == []


async def test_cancellation_at_any_moment(pool: PostgresPool) -> None:
    """Invariant 2 wherever the cancel falls: taking, sending, answering, committing, returning."""
    rng = random.Random(17)

    async def use() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO counted SELECT max(id) + 1, 1 FROM counted")
        await pool.fetch("SELECT count(*) FROM counted")

    await pool.execute("INSERT INTO counted VALUES (0, 0)")
    for _ in range(150):
        with trio.move_on_after(rng.uniform(0, 0.012)):
            await use()
    assert await _healthy(pool)
    idle = "SELECT state FROM pg_stat_activity WHERE application_name = 'khala-test'"
    states = {row["state"] for row in await pool.fetch(idle)}
    assert states <= {"idle", "active"}
    rows = await pool.fetch("SELECT count(*) AS n, max(id) AS last FROM counted")
    assert rows[0]["n"] == rows[0]["last"] + 1
    assert rows[0]["n"] > 1


async def test_a_server_that_does_not_answer(pool: PostgresPool) -> None:
    """A stopped backend stands for a lost network: the client's own limit ends the wait."""
    caught: list[Unavailable] = []

    async def insert_slowly() -> None:
        try:
            await pool.execute("INSERT INTO counted SELECT 1, 1 FROM pg_sleep(1.5)")
        except Unavailable as error:
            caught.append(error)

    find = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1.5)%' AND pid <> pg_backend_pid()"
    pid = 0
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(insert_slowly)
            while not pid:
                rows = await pool.fetch(find)
                pid = int(rows[0]["pid"]) if rows else 0
            os.kill(pid, signal.SIGSTOP)
    try:
        assert [(error.reason, error.outcome_unknown) for error in caught] == [("database_timeout", True)]
        assert await _healthy(pool)
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_cancelled_transaction_is_rolled_back(pool: PostgresPool) -> None:
    """Invariant 2: the connection returns outside a transaction, its locks are gone."""
    with trio.move_on_after(0.1) as scope:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO counted VALUES (1, 1)")
            await connection.execute("SELECT pg_sleep(2)")
    assert scope.cancelled_caught
    assert await pool.execute("INSERT INTO counted VALUES (1, 2)") == "INSERT 0 1"
    assert await _healthy(pool)


async def test_cancellation_during_commit_waits_for_its_answer(pool: PostgresPool) -> None:
    """The block either committed or raised; a deferred trigger makes COMMIT slow."""
    await pool.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON counted DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    committed = False
    with trio.move_on_after(0.2) as scope:
        async with pool.acquire() as connection:
            async with connection.transaction():
                await connection.execute("INSERT INTO counted VALUES (1, 1)")
            committed = True
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert committed
    assert len(await pool.fetch("SELECT * FROM counted")) == 1


async def test_waiting_for_a_connection_is_bounded(pool: PostgresPool) -> None:
    """Invariant 1: with every connection taken, the next caller hears `database_busy` in time."""
    async with pool.acquire(), pool.acquire():
        started = trio.current_time()
        with pytest.raises(Unavailable, match="database_busy") as caught:
            await pool.fetch("SELECT 1")
        assert trio.current_time() - started < 2
    assert not caught.value.outcome_unknown
    assert await _healthy(pool)


async def test_time_limits_of_the_server_are_unavailable(pool: PostgresPool) -> None:
    """Statement and lock timeouts rolled the statement back: retry later, outcome known."""
    with pytest.raises(Unavailable, match="database_statement_timeout") as caught:
        await pool.execute("SELECT pg_sleep(10)")
    assert not caught.value.outcome_unknown
    await pool.execute("INSERT INTO counted VALUES (1, 1)")
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("UPDATE counted SET n = 2")
        with pytest.raises(Unavailable, match="database_lock_timeout"):
            await pool.execute("UPDATE counted SET n = 3")
    assert await _healthy(pool)


async def test_refused_statements_say_why_without_saying_data(pool: PostgresPool) -> None:
    """A refusal carries SQLSTATE and constraint; its text quotes neither values nor SQL."""
    await pool.execute("INSERT INTO counted VALUES (1, 1)")
    with pytest.raises(DatabaseError) as caught:
        await pool.execute("INSERT INTO counted VALUES ($1, 987654)", 1)
    assert caught.value.sqlstate == "23505"
    assert caught.value.constraint == "counted_pkey"
    assert str(caught.value) == "sqlstate=23505 constraint=counted_pkey"
    with pytest.raises(DatabaseError) as caught:
        await pool.execute("SELECT $1::int", "not a number")
    assert "not a number" not in str(caught.value)
    assert await _healthy(pool)


async def test_a_swallowed_error_does_not_look_like_a_commit(pool: PostgresPool) -> None:
    """PostgreSQL rolls such a transaction back without an error; the caller must hear of it."""

    async def ignore_an_error() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO counted VALUES (1, 1)")
            with pytest.raises(DatabaseError):
                await connection.execute("SELECT 1/0")

    with pytest.raises(DatabaseError) as caught:
        await ignore_an_error()
    assert caught.value.sqlstate == "25P02"
    assert await pool.fetch("SELECT * FROM counted") == []


async def test_isolation_and_access(pool: PostgresPool) -> None:
    """The block gets what it asked for, and the next one gets the default again."""
    shown = "SELECT current_setting('transaction_isolation') || current_setting('transaction_read_only') AS s"
    async with pool.acquire() as connection:
        async with connection.transaction(isolation="repeatable_read", read_only=True):
            assert [row["s"] for row in await connection.fetch(shown)] == ["repeatable readon"]
        async with connection.transaction():
            assert [row["s"] for row in await connection.fetch(shown)] == ["read committedoff"]


async def test_conflicting_serializable_transactions(pool: PostgresPool) -> None:
    """One of two that overwrite each other is told to start again."""
    await pool.execute("INSERT INTO counted VALUES (1, 1)")

    async def overwrite_each_other() -> None:
        async with pool.acquire() as connection, connection.transaction(isolation="serializable"):
            await connection.fetch("SELECT n FROM counted")
            await pool.execute("UPDATE counted SET n = 2")
            await connection.execute("UPDATE counted SET n = 3")

    with pytest.raises(SerializationTrouble):
        await overwrite_each_other()
    assert await _healthy(pool)


async def test_pool_metrics(pool: PostgresPool) -> None:
    """OBS-04: use and waiting are scraped live: who holds, who waits, for how long, who gave up."""
    metrics = MetricsRegistry("test", process_metrics=False)
    watch_pools(metrics, {"main": pool})

    def sample(name: str) -> float:
        value = metrics.sample(f"khala_database_{name}", {"pool": "main"})
        assert value is not None, name
        return value

    before = sample("acquires_total")
    async with pool.acquire(), pool.acquire():
        assert (sample("connections"), sample("connections_max"), sample("connections_in_use")) == (2, 2, 2)
        waited_before = sample("wait_seconds_total")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_busy, pool)
            while sample("waiting") != 1:
                await trio.sleep(0.01)
        assert sample("waiting") == 0
        assert sample("acquire_failures_total") == 1
        assert sample("acquires_total") == before + 3
        # The time limit of this pool is 0.5 s.
        assert 0.4 < sample("wait_seconds_total") - waited_before < 5
    assert sample("connections_in_use") == 0


async def _expect_busy(pool: PostgresPool) -> None:
    with pytest.raises(Unavailable, match="database_busy"):
        await pool.fetch("SELECT 1")


@pytest.mark.parametrize(("wrong_by_s", "is_alarm"), [(0.0, False), (4.0, False), (6.0, True), (-6.0, True)])
async def test_clock_skew(empty_database: Database, wrong_by_s: float, *, is_alarm: bool) -> None:
    """SPEC 2: how far this machine's clock is ahead of the database's, also behind; above 5 s it is said."""
    metrics = MetricsRegistry("test", process_metrics=False)
    async with (
        open_asyncio_loop(),
        open_pool(
            empty_database.superuser_dsn,
            application_name="t",
            wall_time=lambda: time.time() + wrong_by_s,
        ) as pool,
        open_pool(empty_database.superuser_dsn, application_name="t") as other,
    ):
        watch_pools(metrics, {"skewed": pool, "other": other})
        assert metrics.sample("khala_clock_skew_seconds") == 0
        with capture_logs() as lines:
            await pool.measure_clock_skew()
            await other.measure_clock_skew()
        assert [line["event"] for line in lines] == ["clock_skew"] * is_alarm
        assert metrics.sample("khala_clock_skew_seconds") == pytest.approx(wrong_by_s, abs=1.0)


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[PostgresTestCluster]:
    """A server that the test may stop."""
    with running_cluster(tmp_path) as cluster:
        yield cluster


async def test_the_database_may_be_away_at_start_and_come_back(
    own_cluster: PostgresTestCluster,
) -> None:
    """CT-01: the pool opens without a database, says so, and works as soon as it is there."""
    server = own_cluster.server
    dsn = server.superuser_dsn()

    def start() -> None:
        own_cluster.server = start_server(server.cluster, port=server.port)

    await trio.to_thread.run_sync(stop_server, server)
    async with (
        open_asyncio_loop(),
        open_pool(dsn, application_name="t", acquire_timeout_s=2) as pool,
    ):
        with pytest.raises(Unavailable, match="database_unreachable") as caught:
            await pool.fetch("SELECT 1")
        assert not caught.value.outcome_unknown
        await trio.to_thread.run_sync(start)
        assert len(await pool.fetch("SELECT 1")) == 1
        # And away again, with an open connection in the pool.
        await trio.to_thread.run_sync(stop_server, own_cluster.server)
        with pytest.raises(Unavailable):
            await pool.fetch("SELECT 1")
        await trio.to_thread.run_sync(start)
        assert len(await pool.fetch("SELECT 1")) == 1
