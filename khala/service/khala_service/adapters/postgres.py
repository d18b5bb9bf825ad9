"""PostgreSQL under trio: a bounded pool whose every wait has an end.

Role: the services' adapters take rows from here and nothing else of asyncpg. Owner of the
connections; callers borrow them. Inputs: SQL with `$1` parameters. Outputs: rows, or the errors of
`khala_service.errors` (the table is `postgres_errors.py`).
Invariants:
1. Never more than `max_size` connections; waiting for one ends after `acquire_timeout_s`.
2. A connection goes back to the pool only outside a transaction and with no query running; otherwise
   it is closed. A cancelled caller therefore never disturbs the next one.
3. No retry happens here: the operation above owns it.
Opening the pool never fails because the database is away: the first statement says so.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib import resources
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import asyncpg
import attrs
import trio
from asyncpg.connect_utils import SessionAttribute

from khala_service.adapters.asyncio_bridge import open_asyncio_loop, run_in_asyncio
from khala_service.adapters.postgres_connection import (
    CLEANUP_TIMEOUT_S,
    PostgresConnection,
    RawConnection,
    Row,
    drop_connection,
)
from khala_service.adapters.postgres_errors import DRIVER_ERRORS, translated
from khala_service.errors import DatabaseError, SerializationTrouble, Unavailable
from khala_service.logs import get_logger
from khala_service.secret import Secret

__all__ = [
    "DatabaseError",
    "PoolUse",
    "PostgresConnection",
    "PostgresPool",
    "Row",
    "SerializationTrouble",
    "Unavailable",
    "load_queries",
    "open_asyncio_loop",
    "open_pool",
]

T = TypeVar("T")

# Longer: a caller waits for a dead host. Shorter: a busy but healthy server refuses logins.
CONNECT_TIMEOUT_S: Final = 5.0
# Client-side limit above statement_timeout: reached only if the server or the network is gone.
ANSWER_GRACE_S: Final = 2.0
# SPEC section 2. Token times are judged with 30 s leeway, so there is time to repair it.
CLOCK_SKEW_MAX_S: Final = 5.0
# Idle connections are closed after this, so that a burst does not hold the server's slots for ever.
IDLE_LIFETIME_S: Final = 600.0
# A transaction of ours which is idle for longer has lost its owner; it holds locks that others need.
IDLE_IN_TRANSACTION_TIMEOUT_MS: Final = 10_000

if TYPE_CHECKING:
    # asyncpg's classes are generic for type checkers only.
    _ConnectionBase: TypeAlias = asyncpg.Connection[Row]
else:
    _ConnectionBase = asyncpg.Connection

_log = get_logger(__name__)


class _QuietConnection(_ConnectionBase):
    """Spares the round trip of RESET ALL per use: this package sets nothing per session."""

    def get_reset_query(self) -> str:
        return ""


@attrs.define(eq=False)
class PoolUse:
    """How a pool is used, for /metrics: totals since it was opened, and gauges.

    Attributes:
        acquires: Connections asked for.
        failures: Of these, without one: none free in time, or the database is away.
        wait_s: Time spent waiting for all of them, logins included.
        waiting: Who waits now.
        clock_skew_s: This machine's clock minus the database's, when it was measured last.
    """

    acquires: int = 0
    failures: int = 0
    wait_s: float = 0.0
    waiting: int = 0
    clock_skew_s: float = 0.0


class PostgresPool:
    """The connections of one role to one database. Made by `open_pool`."""

    def __init__(
        self, raw: "asyncpg.Pool[Row]", *, acquire_timeout_s: float, wall_time: Callable[[], float]
    ) -> None:
        self._raw = raw
        self._wall_time = wall_time
        self._acquire_timeout_s = acquire_timeout_s
        self.use = PoolUse()

    async def fetch(self, sql: str, *args: object) -> list[Row]:
        """Run one statement in its own transaction and return all rows.

        Raises:
            Unavailable: ``database_busy`` (no free connection in time), ``database_unreachable``,
                ``database_statement_timeout`` and the like; ``outcome_unknown`` iff the connection
                broke after the statement was sent.
            SerializationTrouble: rolled back because of another transaction; run it again.
            DatabaseError: PostgreSQL refused the statement; the caller's fault.
        Cancellation: the query is cancelled on the server; whether it took effect is unknown.
        """
        return await self._once(lambda raw: raw.fetch(sql, *args))

    async def fetchrow(self, sql: str, *args: object) -> Row | None:
        """Return the first row, None if there is none. Otherwise as `fetch`."""
        return await self._once(lambda raw: raw.fetchrow(sql, *args))

    async def execute(self, sql: str, *args: object) -> str:
        """Return the command tag, for example ``UPDATE 3``. Otherwise as `fetch`."""
        return await self._once(lambda raw: raw.execute(sql, *args))

    async def read(self, sql: str, *args: object) -> list[Row]:
        """Run one statement that changes nothing; as `fetch`, but the outcome is never unknown."""
        return await self._once(lambda raw: raw.fetch(sql, *args), may_have_committed=False)

    async def readrow(self, sql: str, *args: object) -> Row | None:
        """Return the first row, None if there is none. Otherwise as `read`."""
        return await self._once(lambda raw: raw.fetchrow(sql, *args), may_have_committed=False)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[PostgresConnection]:
        """Borrow a connection for several statements.

        Raises:
            Unavailable: no connection in ``acquire_timeout_s``, or the database is unreachable.
        Cancellation: safe; see invariant 2.
        """
        raw = await run_in_asyncio(self._take)
        try:
            yield PostgresConnection(raw)
        finally:
            with trio.move_on_after(CLEANUP_TIMEOUT_S, shield=True) as scope:
                await run_in_asyncio(self._give_back, raw)
            if scope.cancelled_caught:
                drop_connection(raw)

    def size(self) -> int:
        """Return the number of open connections."""
        return self._raw.get_size()

    def idle_size(self) -> int:
        """Return the number of open connections that nobody uses."""
        return self._raw.get_idle_size()

    def max_size(self) -> int:
        """Return the upper bound of connections."""
        return self._raw.get_max_size()

    async def measure_clock_skew(self) -> None:
        """Compare the wall clock of this machine with the database's; see `PoolUse.clock_skew_s`.

        Raises:
            Unavailable: as `fetch`.
        """
        before, started = self._wall_time(), time.monotonic()
        row = await self.fetchrow("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
        assert row is not None
        # The database looked at its clock somewhere between question and answer: assume halfway.
        skew_s = self.use.clock_skew_s = before + (time.monotonic() - started) / 2 - row["now"]
        if abs(skew_s) > CLOCK_SKEW_MAX_S:
            _log.warning("clock_skew", skew_s=round(skew_s, 3))

    async def _once(
        self, operate: Callable[[RawConnection], Awaitable[T]], *, may_have_committed: bool = True
    ) -> T:
        """Take, operate and give back in one crossing between trio and asyncio."""

        async def steps() -> T:
            async with AsyncExitStack() as exit_stack:
                raw = await self._take()
                # asyncpg shields the release from cancellation; our time limit bounds it.
                exit_stack.push_async_callback(self._give_back, raw)
                with translated(may_have_committed=may_have_committed):
                    return await operate(raw)

        return await run_in_asyncio(steps)

    async def _take(self) -> RawConnection:
        """Return a connection of the pool; an asyncio coroutine."""
        use, started = self.use, time.monotonic()
        use.waiting += 1
        try:
            with translated(may_have_committed=False):
                return await self._raw.acquire(timeout=self._acquire_timeout_s)
        except Unavailable as error:
            use.failures += 1
            if error.reason == "database_timeout" and self._is_exhausted():
                raise Unavailable("database_busy") from error
            raise
        finally:
            use.waiting -= 1
            use.acquires += 1
            use.wait_s += time.monotonic() - started

    def _is_exhausted(self) -> bool:
        return self.size() == self.max_size() and self.idle_size() == 0

    async def _give_back(self, raw: RawConnection) -> None:
        """Return a connection to the pool; an asyncio coroutine. A broken one is closed there."""
        try:
            await self._raw.release(raw, timeout=CLEANUP_TIMEOUT_S)
        except DRIVER_ERRORS as error:
            # asyncpg has closed the connection already; the statement's own error, if any, is
            # what the caller must see.
            _log.info("connection_dropped", error=type(error).__name__)

    async def _close(self) -> None:
        with trio.move_on_after(CLEANUP_TIMEOUT_S, shield=True):
            with suppress(*DRIVER_ERRORS):
                await run_in_asyncio(self._raw.close)
        self._raw.terminate()


@asynccontextmanager
async def open_pool(
    dsn: Secret | str,
    *,
    application_name: str,
    min_size: int = 1,
    max_size: int = 10,
    statement_timeout_ms: int = 5_000,
    lock_timeout_ms: int = 2_000,
    acquire_timeout_s: float = 5.0,
    wall_time: Callable[[], float] = time.time,
) -> AsyncIterator[PostgresPool]:
    """Yield a pool; close it when the block is left. Must run inside `open_asyncio_loop`.

    Args:
        dsn: ``postgresql://role:password@host:port/database``.
        application_name: Shown in pg_stat_activity; names the service, not the person.
        min_size: Connections opened at once if the database answers; 0 opens none.
        max_size: Upper bound of connections (invariant 1).
        statement_timeout_ms: Longest statement, milliseconds; the server cancels it.
        lock_timeout_ms: Longest wait for one lock, milliseconds.
        acquire_timeout_s: Longest wait for a connection, seconds, connecting included.
        wall_time: This machine's clock, Unix seconds; compared with the database's.
    """

    async def make() -> "asyncpg.Pool[Row]":
        return await asyncpg.create_pool(
            dsn.reveal() if isinstance(dsn, Secret) else dsn,
            # asyncpg would fail to open a pool with a minimum while the database is away.
            min_size=0,
            max_size=max_size,
            max_inactive_connection_lifetime=IDLE_LIFETIME_S,
            connection_class=_QuietConnection,
            # A standby answers reads too, from its own past: a node would take that for another history.
            # A server becomes one only by a restart, so looking at each login is enough.
            target_session_attrs=SessionAttribute.primary,
            timeout=min(CONNECT_TIMEOUT_S, acquire_timeout_s),
            command_timeout=statement_timeout_ms / 1000 + ANSWER_GRACE_S,
            server_settings={
                "application_name": application_name,
                "statement_timeout": str(statement_timeout_ms),
                "lock_timeout": str(lock_timeout_ms),
                "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
                "timezone": "UTC",
                "jit": "off",
            },
        )

    pool = PostgresPool(await run_in_asyncio(make), acquire_timeout_s=acquire_timeout_s, wall_time=wall_time)
    try:
        await _warm(pool, min_size)
        yield pool
    finally:
        with trio.move_on_after(2 * CLEANUP_TIMEOUT_S, shield=True):
            await pool._close()


async def _warm(pool: PostgresPool, count: int) -> None:
    """Open `count` connections, so that the first requests do not wait for logins."""
    async with AsyncExitStack() as held:
        try:
            for _ in range(count):
                await held.enter_async_context(pool.acquire())
        except Unavailable as error:
            _log.warning("database_not_ready", reason=error.reason)


def load_queries(package: str, name: str) -> str:
    """Return the text of `name`.sql beside the modules of `package`.

    Raises:
        FileNotFoundError: the wheel lacks the file; our packaging error.
    """
    return resources.files(package).joinpath(f"{name}.sql").read_text(encoding="utf-8")
