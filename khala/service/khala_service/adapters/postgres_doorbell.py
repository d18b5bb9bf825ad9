"""Doorbells in PostgreSQL: an empty NOTIFY that says "somebody committed", and who hears it.

There is one for records and one for revocations. One connection rings any, one hears all.

Each end has one connection of its own, outside every pool: a ringer must not wait for a query, and a
listener keeps its connection for life. Neither reconnects: the fan-out driver that opened them does.

The notification carries nothing (its payload limit is 8 kB, and nobody would believe it), so any role
that may connect may ring; a stranger who does so causes position checks, at the rate that a node
allows. NOTIFY takes a lock of the whole database while it commits: hence its own connection and
transaction, never the one that appends, and hence the caller's limit on rings.

LISTEN is allowed with ``default_transaction_read_only``, so the reader's role needs no right.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

import asyncpg
import trio

from khala_service.adapters.asyncio_bridge import run_in_asyncio
from khala_service.adapters.postgres_connection import CLEANUP_TIMEOUT_S
from khala_service.adapters.postgres_errors import translated
from khala_service.errors import Unavailable
from khala_service.secret import Secret

__all__ = [
    "Bell",
    "DoorbellListener",
    "DoorbellRinger",
    "open_doorbell_listener",
    "open_doorbell_ringer",
]

if TYPE_CHECKING:
    _RawConnection: TypeAlias = asyncpg.Connection[asyncpg.Record]


class Bell(Enum):
    """What a ring is about; the value is the channel."""

    RECORDS = "khala_doorbell"
    REVOCATIONS = "khala_revocations"


# Both ends do one tiny statement at a time. Longer: a dead server is noticed later. Shorter: a busy one
# loses its connections.
CONNECT_TIMEOUT_S: Final = 5.0
STATEMENT_TIMEOUT_S: Final = 5.0


class DoorbellRinger:
    """The publishing end. Made by `open_doorbell_ringer`; used by one task."""

    def __init__(self, raw: "_RawConnection") -> None:
        self._raw = raw

    async def ring(self, bell: Bell) -> None:
        """Notify everybody who listens now. One round trip.

        Raises:
            Unavailable: the connection broke, or no answer in STATEMENT_TIMEOUT_S; the ring may have
                been heard. Open another ringer.
            DatabaseError: PostgreSQL refused it, for example because its queue of notifications is full.
        Cancellation: safe; the ring may have been heard.
        """
        with translated(may_have_committed=True):
            await run_in_asyncio(self._raw.execute, f"NOTIFY {bell.value}")


class DoorbellListener:
    """The hearing end. Made by `open_doorbell_listener`; one task waits, one may check.

    Rings of one bell that nobody waits for coalesce into one.
    """

    def __init__(self, raw: "_RawConnection") -> None:
        self._raw = raw
        self._rung: set[Bell] = set()
        self._is_lost = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def wait_ring(self) -> frozenset[Bell]:
        """Return which bells have rung since this returned last, waiting for the first.

        Raises:
            Unavailable: the connection broke; rings may have been missed.
        Cancellation: safe; nothing is consumed.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._rung:
            if self._is_lost:
                raise Unavailable("database_connection_lost")
            await self._waiting.park()
        rung, self._rung = frozenset(self._rung), set()
        return rung

    async def check(self) -> None:
        """Ask the server for a sign of life: a host that died sends no end of the connection.

        Raises:
            Unavailable: the connection broke, or no answer in STATEMENT_TIMEOUT_S.
        Cancellation: safe.
        """
        with translated(may_have_committed=False):
            await run_in_asyncio(self._raw.execute, "SELECT 1")

    async def _listen(self) -> None:
        """Begin; an asyncio coroutine."""
        self._raw.add_termination_listener(self._on_lost)
        for bell in Bell:
            await self._raw.add_listener(bell.value, self._on_ring)

    # Both run inside the event loop's own task and must not wait.

    def _on_ring(self, _connection: object, _pid: object, channel: str, _payload: object) -> None:
        self._rung.add(Bell(channel))
        self._waiting.unpark_all()

    def _on_lost(self, *_: object) -> None:
        self._is_lost = True
        self._waiting.unpark_all()


@asynccontextmanager
async def open_doorbell_ringer(
    dsn: Secret, *, application_name: str = "khala-doorbell"
) -> AsyncIterator[DoorbellRinger]:
    """Connect; disconnect when the block is left. Must run inside `open_asyncio_loop`.

    Raises:
        Unavailable: no connection in CONNECT_TIMEOUT_S.
        DatabaseError: PostgreSQL refused the login.
    """
    async with _open_connection(dsn, application_name) as raw:
        yield DoorbellRinger(raw)


@asynccontextmanager
async def open_doorbell_listener(
    dsn: Secret, *, application_name: str = "khala-doorbell"
) -> AsyncIterator[DoorbellListener]:
    """Connect and listen; every ring from now on is heard. Must run inside `open_asyncio_loop`.

    Raises:
        Unavailable: no connection in CONNECT_TIMEOUT_S.
        DatabaseError: PostgreSQL refused the login.
    """
    async with _open_connection(dsn, application_name) as raw:
        listener = DoorbellListener(raw)
        with translated(may_have_committed=False):
            await run_in_asyncio(listener._listen)
        yield listener


@asynccontextmanager
async def _open_connection(dsn: Secret, application_name: str) -> "AsyncIterator[_RawConnection]":
    with translated(may_have_committed=False):
        raw = await run_in_asyncio(_connect, dsn, application_name)
    try:
        yield raw
    finally:
        with trio.move_on_after(CLEANUP_TIMEOUT_S, shield=True):
            # Nothing is in doubt on these connections: no need to take leave of the server.
            await run_in_asyncio(_drop, raw)


async def _connect(dsn: Secret, application_name: str) -> "_RawConnection":
    return await asyncpg.connect(
        dsn.reveal(),
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=STATEMENT_TIMEOUT_S,
        server_settings={"application_name": application_name, "timezone": "UTC"},
    )


async def _drop(raw: "_RawConnection") -> None:
    raw.terminate()
