"""A borrowed connection and its transactions: what a task does with PostgreSQL between two waits.

Made by `PostgresPool.acquire`, which takes it back. Keeps the pool's invariant 2: whatever happens in
a transaction block, the connection leaves it outside a transaction, or closed.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, Literal, TypeAlias, TypeVar

import asyncpg
import trio

from khala_service.adapters.asyncio_bridge import run_in_asyncio
from khala_service.adapters.postgres_errors import DRIVER_ERRORS, translated
from khala_service.errors import DatabaseError, Unavailable

T = TypeVar("T")
Row: TypeAlias = asyncpg.Record
RawConnection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[Row]"
Isolation: TypeAlias = Literal["read_committed", "repeatable_read", "serializable"]

_ISOLATION: Final[dict[Isolation, str]] = {
    "read_committed": "READ COMMITTED",
    "repeatable_read": "REPEATABLE READ",
    "serializable": "SERIALIZABLE",
}
_ACCESS: Final = {False: "READ WRITE", True: "READ ONLY"}

# How long the server may take to confirm a cancelled query, a rollback or a return to the pool;
# after that the connection is closed, which ends the query as surely. Longer: a caller whose time is
# up waits for a dead server on top. Shorter: connections of a busy server are thrown away.
CLEANUP_TIMEOUT_S: Final = 2.0
# COMMIT waits for the disk. Longer: a drain waits for a stalled database. Shorter: more outcomes are
# unknown that a little patience would have told.
COMMIT_TIMEOUT_S: Final = 5.0


class PostgresConnection:
    """A borrowed connection. Valid inside the block that gave it; use it from one task."""

    def __init__(self, raw: RawConnection) -> None:
        self._raw = raw
        self._in_transaction = False
        self._at_end: list[Callable[[], None]] = []

    async def fetch(self, sql: str, *args: object) -> list[Row]:
        """Return all rows; the statement bounds how many there are.

        Raises: as `PostgresPool.fetch`. Inside a transaction `outcome_unknown` is never set: a
            broken connection rolls the transaction back.
        """
        return await self._run(lambda raw: raw.fetch(sql, *args))

    async def fetchrow(self, sql: str, *args: object) -> Row | None:
        """Return the first row, None if there is none. Raises: as `fetch`."""
        return await self._run(lambda raw: raw.fetchrow(sql, *args))

    async def execute(self, sql: str, *args: object) -> str:
        """Run one statement (several if there are no `args`), return its tag. Raises: as `fetch`."""
        return await self._run(lambda raw: raw.execute(sql, *args))

    async def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement for each row of arguments, atomically. Raises: as `fetch`."""
        await self._run(lambda raw: raw.executemany(sql, rows))

    def at_transaction_end(self, tell: Callable[[], None]) -> None:
        """Call this once the running transaction has ended, also by a rollback or with an unknown outcome.

        For news of a commit, where false news cost little and missing ones much. It must not wait or raise.
        """
        assert self._in_transaction, "there is a transaction to wait for"
        self._at_end.append(tell)

    @asynccontextmanager
    async def transaction(
        self, *, isolation: Isolation = "read_committed", read_only: bool = False
    ) -> AsyncIterator[None]:
        """Commit when the block ends normally, roll back otherwise.

        Raises:
            Unavailable: ``outcome_unknown`` iff the connection broke during COMMIT.
            SerializationTrouble: rolled back; run the whole block again.
        Cancellation: rolls back. A cancel that falls into COMMIT waits for its answer, at most
            COMMIT_TIMEOUT_S, so that the block either committed or raised.
        """
        assert not self._in_transaction, "transactions do not nest"
        # Plain statements: asyncpg's transaction objects believe that a cancelled BEGIN did not happen.
        begin = f"BEGIN ISOLATION LEVEL {_ISOLATION[isolation]} {_ACCESS[read_only]}"
        self._in_transaction = True
        try:
            await self.execute(begin)
            yield
        except BaseException:
            with trio.move_on_after(CLEANUP_TIMEOUT_S, shield=True) as scope:
                await self._roll_back()
            if scope.cancelled_caught:
                drop_connection(self._raw)
            raise
        else:
            await self._commit()
        finally:
            self._in_transaction = False
            tellers, self._at_end = self._at_end, []
            for tell in tellers:
                tell()

    async def _commit(self) -> None:
        with trio.move_on_after(COMMIT_TIMEOUT_S, shield=True) as scope:
            try:
                with translated(may_have_committed=True):
                    tag = await run_in_asyncio(self._raw.execute, "COMMIT")
            except asyncpg.InterfaceError as error:
                # Not one of the texts that the table knows: whatever it means, nobody knows the outcome.
                drop_connection(self._raw)
                raise Unavailable("database_protocol_error", outcome_unknown=True) from error
        if scope.cancelled_caught:
            drop_connection(self._raw)
            raise Unavailable("database_timeout", outcome_unknown=True)
        if tag != "COMMIT":
            # PostgreSQL answers ROLLBACK if a statement had failed and the block ignored the error.
            raise DatabaseError("25P02", message="the transaction had failed before COMMIT")

    async def _roll_back(self) -> None:
        try:
            # Also if BEGIN was cancelled and nobody knows whether it happened: ROLLBACK outside a
            # transaction does nothing. asyncpg lets it wait until the cancelled query has ended.
            await run_in_asyncio(self._raw.execute, "ROLLBACK")
        except DRIVER_ERRORS:
            drop_connection(self._raw)

    async def _run(self, operate: Callable[[RawConnection], Awaitable[T]]) -> T:
        with translated(may_have_committed=not self._in_transaction):
            return await run_in_asyncio(operate, self._raw)


def drop_connection(raw: RawConnection) -> None:
    """Close a connection without asking the server; the pool replaces it when needed."""
    # Raised if it has closed itself already: the proxy is then empty.
    with suppress(asyncpg.InterfaceError):
        raw.terminate()
