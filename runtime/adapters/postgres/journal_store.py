"""JournalStore on PostgreSQL: reads from the pool, commits on connections of the writers' own.

Owner of no state but the pool. The functions that write are in migrations/*.sql; this module carries
arguments in and rows out. asyncpg's errors were translated below (`khala_service.adapters.postgres`);
what is added here is KH001, the database's word for "another runtime has taken over".
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Final

from khala_contracts.topics import Lineage, TopicName
from khala_service.adapters.postgres_migrations import check_revision
from khala_service.errors import DatabaseError, Unavailable
from khala_service.failpoints import hit
from khala_service.logs import get_logger
from runtime.adapters.postgres import rows, statements
from runtime.core.journal_calls import StoredKey
from runtime.ports import Authority, Superseded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from khala_service.adapters.postgres import PostgresConnection, PostgresPool
    from runtime.core.batch_commit import BatchCommit
    from runtime.ports import EventPage, MessagePage, RunRecord, TopicRecord

__all__ = ["MIGRATIONS", "PostgresJournalStore", "PostgresWriter"]

MIGRATIONS: Final = resources.files("runtime") / "adapters" / "postgres" / "migrations"

SQLSTATE_SUPERSEDED: Final = "KH001"
# A batch takes milliseconds. Longer: locks of a stuck transaction stop its topics. PostgreSQL 17 and
# later know this setting; before it, the time-outs of single statements have to do.
_SET_TRANSACTION_TIMEOUT: Final = (
    "SELECT set_config(name, '10000', false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'"
)

_log = get_logger(__name__)


class _NothingToWrite(Exception):
    """Ends a transaction without a commit."""


class PostgresWriter:
    """One connection that commits under one generation."""

    def __init__(self, connection: PostgresConnection, generation: int) -> None:
        self._connection = connection
        self._generation = generation

    async def commit_batch(self, batch: BatchCommit) -> None:
        """Carry out one batch; see JournalWriter."""
        connection = self._connection
        try:
            async with connection.transaction():
                call = batch.lock_call
                hit("runtime.before_lock")
                row = await connection.fetchrow(
                    statements.LOCK_BATCH, *rows.lock_args(self._generation, call)
                )
                assert row is not None
                append = batch.decide(rows.locked_state(row, call))
                if append is None:
                    raise _NothingToWrite
                row = await connection.fetchrow(
                    statements.APPEND, *rows.append_args(self._generation, append)
                )
                assert row is not None
                hit("runtime.after_insert")
                finish = batch.finish(rows.append_result(row))
                await connection.execute(statements.FINISH_BATCH, *rows.finish_args(finish))
                hit("runtime.before_commit")
        except _NothingToWrite:
            return
        except DatabaseError as error:
            if error.sqlstate == SQLSTATE_SUPERSEDED:
                raise Superseded from error
            raise


class PostgresJournalStore:
    """The runtime's database."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def take_authority(self, *, holder: str, lineage_candidate: str) -> Authority:
        """Become the writer; see JournalStore."""
        async with self._pool.acquire() as connection:
            async with connection.transaction():
                row = await connection.fetchrow(statements.TAKE_GENERATION, holder)
                assert row is not None
                generation = int(row[0])
            async with connection.transaction():
                row = await connection.fetchrow(statements.ENSURE_LINEAGE, lineage_candidate)
                assert row is not None
        if row["id"] == lineage_candidate:
            _log.warning("lineage_created", lineage=row["id"], reason=row["reason"], parent=row["parent"])
        return Authority(generation, Lineage(row["id"]))

    @asynccontextmanager
    async def open_writer(self, generation: int) -> AsyncIterator[PostgresWriter]:
        """Open a writer that commits under this generation only; see JournalStore."""
        async with self._pool.acquire() as connection:
            try:
                await connection.execute(_SET_TRANSACTION_TIMEOUT)
            except Unavailable as error:
                # No batch has been begun: whatever this statement did, nothing was committed.
                raise Unavailable(error.reason, error.retry_after_s) from error
            yield PostgresWriter(connection, generation)

    async def read_generation(self) -> int:
        """Return the current generation."""
        row = await self._pool.readrow(statements.READ_GENERATION)
        assert row is not None
        return int(row["generation"])

    async def read_key(self, scope: str, key: str) -> StoredKey | None:
        """Return what was answered under a key, None if it is new or has expired."""
        row = await self._pool.readrow(statements.READ_KEY, scope, key)
        return None if row is None else StoredKey(row["fingerprint"], row["response"])

    async def read_run(self, run_id: str) -> RunRecord | None:
        """Return a run, None if there is none."""
        row = await self._pool.readrow(statements.READ_RUN, run_id)
        return None if row is None else rows.run_record(row)

    async def list_runs(
        self, *, user_id: str, org_ids: Sequence[str], before_run_id: str | None, limit: int
    ) -> list[RunRecord]:
        """Return a page of runs, newest first; see JournalStore."""
        found = await self._pool.read(statements.LIST_RUNS, user_id, list(org_ids), before_run_id, limit)
        return [rows.run_record(row) for row in found]

    async def read_topic(self, topic: TopicName) -> TopicRecord | None:
        """Return a topic's head row, None if nothing was ever written to it."""
        return (await self.read_topics([topic])).get(topic)

    async def read_topics(self, topics: Iterable[TopicName]) -> Mapping[TopicName, TopicRecord]:
        """Return the head rows of those topics that have one."""
        found = await self._pool.read(statements.READ_TOPICS, list(topics))
        return {TopicName(row["topic"]): rows.topic_record(row) for row in found}

    async def read_events(
        self, topic: TopicName, *, after_seq: int, limit: int, max_bytes: int
    ) -> EventPage | None:
        """Return a page of the log, None if nothing was ever written to the topic."""
        row = await self._pool.readrow(statements.READ_EVENTS, topic, after_seq, limit, max_bytes)
        return None if row is None else rows.event_page(row, after_seq=after_seq)

    async def read_messages(
        self, topic: TopicName, *, after_seq: int, limit: int, max_bytes: int
    ) -> MessagePage | None:
        """Return a page of the journal, None if nothing was ever written to the topic."""
        row = await self._pool.readrow(statements.READ_MESSAGES, topic, after_seq, limit, max_bytes)
        return None if row is None else rows.message_page(row, after_seq=after_seq)

    async def delete_expired_keys(self, limit: int) -> int:
        """Delete at most ``limit`` expired idempotency keys and return how many there were."""
        row = await self._pool.fetchrow(statements.DELETE_EXPIRED_KEYS, limit)
        assert row is not None
        return int(row[0])

    async def check(self) -> str | None:
        """Return None if the database answers and has the revision of this build, else a word why."""
        return await check_revision(self._pool, plane="runtime", directory=MIGRATIONS)
