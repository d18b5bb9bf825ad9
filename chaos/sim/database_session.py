"""What one process does with the database: single statements, and transactions that may be lost.

A transaction locks rows, reads what is committed and stages what it would write; COMMIT applies all of it in
one step. Its end is in the hands of the *server*: when the process is severed, or gives up waiting for the
answer to COMMIT, the server finds out later (``DatabaseFaults.linger``), and a coin has decided whether a COMMIT
that was on its way arrived. Until then its locks are held.

Invariants:
    a transaction ends once; its locks are held until then, and not longer
    what is applied is all that was staged, or nothing
    ``outcome_unknown`` iff COMMIT was sent and its answer did not come
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from chaos.sim.row_locks import Holder
from khala_service.errors import DatabaseError, SerializationTrouble, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from random import Random

    from chaos.sim.database_tables import Tables
    from chaos.sim.gates import DatabaseFaults, PortGate
    from chaos.sim.row_locks import RowKey, RowLocks

__all__ = ["GENERATION", "CommitFate", "Database", "RolledBack", "Session", "Transaction", "refuse_nul"]

T = TypeVar("T")

GENERATION: Final[RowKey] = ("generation",)
# As khala_service/adapters/postgres_connection.py: how long a client waits for the answer to COMMIT.
COMMIT_TIMEOUT_S: Final = 5.0
SERIALIZATION_FAILURE: Final = "40001"


class RolledBack(Exception):
    """Ends a transaction that has nothing to write."""


class CommitFate(Enum):
    """What becomes of one COMMIT."""

    ANSWERED = "answered"
    LOST_BEFORE = "lost_before"
    LOST_AFTER = "lost_after"


class _State(Enum):
    OPEN = "open"
    # The client has sent COMMIT.
    COMMITTING = "committing"
    # The client is gone; the server will find out.
    ORPHANED = "orphaned"
    ENDED = "ended"


class Database:
    """The server: its tables, locks and open transactions.

    Attributes:
        epoch: Grows whenever all connections are lost.
        tables: What is committed.
        draw_fate: What becomes of the next COMMIT.
        is_away: Whether a place cannot reach the server now.
    """

    def __init__(
        self,
        tables: Tables,
        locks: RowLocks,
        *,
        rng: Random,
        faults: DatabaseFaults,
        wall: Callable[[], float],
    ) -> None:
        self.tables = tables
        self.locks = locks
        self.rng = rng
        self.faults = faults
        self.epoch = 0
        self.draw_fate: Callable[[], CommitFate] = self._draw_fate
        self.is_away: Callable[[str], bool] = self._is_away
        # Insertion ordered.
        self.open: dict[Transaction, None] = {}
        self._wall = wall

    def now_us(self) -> int:
        """Return the database's clock, Unix microseconds."""
        return int(self._wall() * 1_000_000)

    def happens(self, probability: float) -> bool:
        """Draw whether something happens. Draws nothing for 0, so that adding a fault moves no other draw."""
        return probability > 0 and self.rng.random() < probability

    def lose_connections(self) -> None:
        """End every connection, as a restart of the server does; a COMMIT on its way meets a coin."""
        self.epoch += 1
        for transaction in list(self.open):
            transaction.lose()

    def _is_away(self, place: str) -> bool:
        return self.faults.is_down or place in self.faults.cut_from

    def _draw_fate(self) -> CommitFate:
        if self.happens(self.faults.lost_before_commit):
            return CommitFate.LOST_BEFORE
        if self.happens(self.faults.lost_after_commit):
            return CommitFate.LOST_AFTER
        return CommitFate.ANSWERED


class Transaction(Holder):
    """One transaction of one session; see the module."""

    def __init__(self, database: Database, gate: PortGate) -> None:
        super().__init__()
        self.database = database
        self._gate = gate
        self._staged: list[Callable[[], None]] = []
        self._state = _State.OPEN
        self._epoch = database.epoch
        self._commit_scope: trio.CancelScope | None = None

    async def lock(self, key: RowKey, *, is_shared: bool = False) -> None:
        """Lock a row until the transaction ends; see RowLocks.lock."""
        locks = self.database.locks
        await locks.lock(self, key, timeout_s=self.database.faults.lock_timeout_s, is_shared=is_shared)
        await self.check_alive()

    async def statement(self, kind: str) -> None:
        """Carry a statement to the server.

        Raises:
            Unavailable: The connection is lost; nothing was written.
            SerializationTrouble: Rolled back because of another transaction.
        """
        faults, database = self.database.faults, self.database
        await self._gate.cross(kind)
        await self.check_alive()
        delay_s = faults.statement.draw(database.rng)
        if delay_s:
            await trio.sleep(delay_s)
        await self.check_alive()
        if database.happens(faults.lost_statement):
            raise Unavailable("database_connection_lost")
        if database.happens(faults.serialization_trouble):
            raise SerializationTrouble(SERIALIZATION_FAILURE)

    def stage(self, write: Callable[[], None]) -> None:
        """Write this when, and if, the transaction is committed. Writes are applied in this order."""
        self._staged.append(write)

    async def check_alive(self) -> None:
        """Return if the connection is there.

        Raises:
            Unavailable: It is lost, and the transaction with it.
        """
        if self._gate.is_severed:
            await trio.sleep_forever()
        database = self.database
        is_lost = self._state is not _State.OPEN or self._epoch != database.epoch
        if is_lost or database.is_away(self._gate.place):
            raise Unavailable("database_connection_lost")

    async def commit(self) -> None:
        """Send COMMIT and wait for its answer.

        Raises:
            Unavailable: ``outcome_unknown``.
        Cancellation: waits for the answer, at most COMMIT_TIMEOUT_S; at once if the process is severed.
        """
        database = self.database
        await self.check_alive()
        self._state = _State.COMMITTING
        fate = database.draw_fate()
        with trio.move_on_after(COMMIT_TIMEOUT_S, shield=True) as scope:
            self._commit_scope = scope
            delay_s = database.faults.commit.draw(database.rng)
            if delay_s:
                await trio.sleep(delay_s)
            self._commit_scope = None
        if self._gate.is_severed:
            # The server has it; a severed process learns nothing.
            await trio.sleep_forever()
        if self._state is not _State.COMMITTING:
            raise Unavailable("database_connection_lost", outcome_unknown=True)
        if scope.cancelled_caught:
            self.lose()
            raise Unavailable("database_timeout", outcome_unknown=True)
        if database.is_away(self._gate.place):
            fate = database.rng.choice((CommitFate.LOST_BEFORE, CommitFate.LOST_AFTER))
        self._end(is_applied=fate is not CommitFate.LOST_BEFORE)
        if fate is not CommitFate.ANSWERED:
            raise Unavailable("database_connection_lost", outcome_unknown=True)

    def roll_back(self) -> None:
        """End it without a trace; nothing if it has ended, or is the server's now."""
        if self._state in (_State.OPEN, _State.COMMITTING):
            self._end(is_applied=False)

    def lose(self) -> None:
        """Leave it to the server: the client is gone, or the connection."""
        if self._state not in (_State.OPEN, _State.COMMITTING):
            return
        database = self.database
        is_applied = self._state is _State.COMMITTING and database.rng.random() < 0.5
        self._state = _State.ORPHANED
        if self._commit_scope is not None:
            self._commit_scope.shield = False
        linger_s = database.faults.linger.draw(database.rng)
        if not linger_s:
            self._end(is_applied=is_applied)
            return

        # Nobody's task: whoever began it is gone. It ends with the run.
        async def end_later() -> None:
            await trio.sleep(linger_s)
            self._end(is_applied=is_applied)

        trio.lowlevel.spawn_system_task(end_later, name="database: a lost client")

    def abort(self) -> None:
        """End it without a trace, whoever it belongs to: the server starts anew from a copy."""
        if self._state is not _State.ENDED:
            self._end(is_applied=False)

    def _end(self, *, is_applied: bool) -> None:
        if self._state is _State.ENDED:
            return
        self._state = _State.ENDED
        self.database.open.pop(self, None)
        if is_applied:
            for write in self._staged:
                write()
        self.database.locks.release_all(self)


class Session:
    """The connections of one process. Statements of its own, transactions of its callers."""

    def __init__(self, database: Database, gate: PortGate) -> None:
        self._database = database
        self._gate = gate

    @property
    def epoch(self) -> int:
        """Which connections of the server are alive; see Database."""
        return self._database.epoch

    async def read(self, kind: str) -> None:
        """Carry one statement that changes nothing to the server; its snapshot is what holds on return.

        Raises:
            Unavailable: no connection.
        """
        await self._gate.cross(kind)
        self._reach()

    async def answer(self, found: T) -> T:
        """Carry what a statement saw back to the process: a slow answer is an old one.

        Raises:
            Unavailable: no answer.
        """
        database = self._database
        delay_s = database.faults.statement.draw(database.rng)
        if delay_s:
            await trio.sleep(delay_s)
            if self._gate.is_severed:
                await trio.sleep_forever()
            self._reach()
        if database.happens(database.faults.lost_statement):
            raise Unavailable("database_connection_lost")
        return found

    @asynccontextmanager
    async def transaction(self, kind: str) -> AsyncIterator[Transaction]:
        """Open a transaction; commit when the block ends normally, roll back otherwise.

        Raises:
            Unavailable, SerializationTrouble: see Transaction.
        """
        await self._gate.cross(kind)
        self._reach()
        database = self._database
        transaction = Transaction(database, self._gate)
        database.open[transaction] = None
        forget = self._gate.on_sever(transaction.lose)
        try:
            yield transaction
            await transaction.commit()
        except RolledBack:
            transaction.roll_back()
        except BaseException:
            transaction.roll_back()
            raise
        finally:
            forget()

    def _reach(self) -> None:
        if self._database.is_away(self._gate.place):
            raise Unavailable("database_unreachable")


def refuse_nul(*texts: str | None) -> None:
    """Refuse what PostgreSQL's text cannot hold.

    Raises:
        DatabaseError: character_not_in_repertoire.
    """
    if any(text is not None and "\x00" in text for text in texts):
        raise DatabaseError("22021")
