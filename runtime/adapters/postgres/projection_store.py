"""ProjectionStore on PostgreSQL: one transaction per step, and the reads of drift and rebuild.

Lock order inside a step (ARCHITECTURE, "Writing"): the generation row, checkpoints, topic heads. The
read model is written under its checkpoint's lock; the functions that write are in migrations/*.sql.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from khala_service.errors import DatabaseError
from khala_service.failpoints import hit
from runtime.adapters.postgres import projection_rows, rows, statements
from runtime.adapters.postgres.journal_store import SQLSTATE_SUPERSEDED
from runtime.core.projections import FOLDED_KINDS, PROJECTOR
from runtime.ports import Superseded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from khala_contracts.topics import TopicName
    from khala_service.adapters.postgres import PostgresConnection, PostgresPool, Row
    from runtime.core.projection_step import LockedSource, ProjectionStep, SourcePage, SourceRead
    from runtime.ports import SourcePosition, StoredSummary

__all__ = ["PAGE_BYTES_MAX", "PAGE_EVENTS_MAX", "PostgresProjectionStore"]

# Of one source in one read. Larger: checkpoints and the lists' heads stay locked for longer; what is
# left comes in the next step.
PAGE_EVENTS_MAX: Final = 500
PAGE_BYTES_MAX: Final = 256 * 1024


class _NothingToWrite(Exception):
    """Ends a transaction without a commit."""


class PostgresProjectionStore:
    """The projectors' view of the runtime's database."""

    def __init__(
        self,
        pool: PostgresPool,
        *,
        page_events_max: int = PAGE_EVENTS_MAX,
        page_bytes_max: int = PAGE_BYTES_MAX,
    ) -> None:
        self._pool = pool
        self._page = page_events_max, page_bytes_max

    async def run_step(self, step: ProjectionStep, *, generation: int) -> None:
        """Carry out one step in one transaction; see ProjectionStore."""
        try:
            async with self._stepping() as connection:
                await self.carry_out(connection, step, generation=generation)
        except DatabaseError as error:
            if error.sqlstate == SQLSTATE_SUPERSEDED:
                raise Superseded from error
            raise

    async def read_sources(self, reads: Sequence[SourceRead]) -> list[SourcePage]:
        """Return pages of source events; see ProjectionStore."""
        found = await self._pool.fetch(statements.READ_SOURCE_EVENTS, *self._read_args(reads))
        return _pages(found, reads)

    async def find_behind(self, *, after_topic: str, limit: int) -> list[SourcePosition]:
        """Return sources with something to do; see ProjectionStore."""
        found = await self._pool.fetch(statements.FIND_BEHIND, PROJECTOR, after_topic, limit)
        return [projection_rows.source_position(row) for row in found]

    async def list_summaries(self, *, after_topic: str, limit: int) -> list[StoredSummary]:
        """Return sources with their rows of the read model; see ProjectionStore."""
        found = await self._pool.fetch(statements.LIST_SUMMARIES, PROJECTOR, after_topic, limit)
        return [projection_rows.stored_summary(row) for row in found]

    @asynccontextmanager
    async def _stepping(self) -> AsyncIterator[PostgresConnection]:
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection
        except _NothingToWrite:
            return

    async def carry_out(
        self, connection: PostgresConnection, step: ProjectionStep, *, generation: int
    ) -> None:
        """Carry out one step inside a transaction of the caller.

        Raises:
            ProjectionFailed: An event cannot be applied: roll back.
        """
        found = await connection.fetch(statements.LOCK_CHECKPOINTS, generation, PROJECTOR, list(step.topics))
        if not found:
            raise _NothingToWrite
        reads = step.reads(await self._locked_sources(connection, found))
        pages = await connection.fetch(statements.READ_SOURCE_EVENTS, *self._read_args(reads))
        now_us = max(rows.to_us(row["locked_at"]) for row in found)
        summaries = step.fold(_pages(pages, reads), now_us=now_us)
        if summaries:
            await connection.execute(statements.APPLY_RUN_SUMMARIES, *projection_rows.summary_args(summaries))
        call, appended = step.append(), None
        if call is not None:
            row = await connection.fetchrow(statements.APPEND, *rows.append_args(generation, call))
            assert row is not None
            appended = rows.append_result(row)
        moves = step.finish(call, appended)
        if not moves and not summaries:
            raise _NothingToWrite
        hit("runtime.before_checkpoint")
        if moves:
            await connection.execute(
                statements.WRITE_CHECKPOINTS, *projection_rows.checkpoint_args(moves, appended)
            )

    async def _locked_sources(
        self, connection: PostgresConnection, found: Sequence[Row]
    ) -> list[LockedSource]:
        run_ids = {row["topic"]: row["topic"].split(":")[1] for row in found}
        stored = await connection.fetch(statements.READ_SUMMARIES, list(run_ids.values()))
        by_run = {row["run_id"]: projection_rows.summary_row(row) for row in stored}
        summaries = {topic: by_run[run_id] for topic, run_id in run_ids.items() if run_id in by_run}
        return [projection_rows.locked_source(row, summaries) for row in found]

    def _read_args(self, reads: Sequence[SourceRead]) -> list[object]:
        return [
            [read.topic for read in reads],
            [read.after_seq for read in reads],
            [read.last_seq for read in reads],
            *self._page,
            list(FOLDED_KINDS),
        ]


def _pages(found: Sequence[Row], reads: Sequence[SourceRead]) -> list[SourcePage]:
    topics: list[TopicName] = [read.topic for read in reads]
    return [projection_rows.source_page(row, topics[row["ordinal"] - 1]) for row in found]
