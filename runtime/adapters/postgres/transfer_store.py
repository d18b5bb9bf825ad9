"""TransferStore on PostgreSQL: one transaction that gives a run another owner.

Lock order (ARCHITECTURE, "Writing"): the generation row, the key, the run's row, the run's checkpoint, all
heads that will be written. Then the event is appended and the projector's own step tells the lists: its
locks are already held, and it finds the new owner on the head (INV-29).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from khala_service.errors import DatabaseError
from khala_service.failpoints import hit
from runtime.adapters.postgres import rows, statements
from runtime.adapters.postgres.journal_store import SQLSTATE_SUPERSEDED
from runtime.core.projections import PROJECTOR
from runtime.core.run_transfer import TransferredRun
from runtime.ports import Superseded

if TYPE_CHECKING:
    from khala_service.adapters.postgres import PostgresConnection, PostgresPool, Row
    from runtime.adapters.postgres.projection_store import PostgresProjectionStore
    from runtime.core.run_transfer import RunTransfer

__all__ = ["PostgresTransferStore"]


class _NothingToWrite(Exception):
    """Ends a transaction without a commit."""


class PostgresTransferStore:
    """The transfers' view of the runtime's database."""

    def __init__(self, pool: PostgresPool, projections: PostgresProjectionStore) -> None:
        self._pool = pool
        self._projections = projections

    async def run_transfer(self, transfer: RunTransfer, *, generation: int) -> None:
        """Carry out one transfer in one transaction; see TransferStore."""
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await self._run(connection, transfer, generation)
        except _NothingToWrite:
            return
        except DatabaseError as error:
            if error.sqlstate == SQLSTATE_SUPERSEDED:
                raise Superseded from error
            raise

    async def _run(self, connection: PostgresConnection, transfer: RunTransfer, generation: int) -> None:
        hit("runtime.before_lock")
        row = await connection.fetchrow(
            statements.LOCK_BATCH, *rows.lock_args(generation, transfer.lock_call)
        )
        assert row is not None
        found = await connection.fetchrow(statements.READ_RUN, transfer.run_id)
        if not transfer.decide(rows.locked_state(row, transfer.lock_call), _run(found)):
            raise _NothingToWrite
        holder = await connection.fetchrow(
            statements.TRANSFER_RUN, generation, transfer.run_id, transfer.owner_user_id
        )
        assert holder is not None
        if holder[0] is not None:
            transfer.refuse_name(holder[0])
            raise _NothingToWrite
        targets = transfer.targets()
        own = targets[0].topic
        await connection.fetch(statements.LOCK_CHECKPOINTS, generation, PROJECTOR, [own])
        await connection.execute(
            statements.TRANSFER_HEADS,
            generation,
            own,
            transfer.owner_user_id,
            [target.topic for target in targets],
            [target.topic_class for target in targets],
            [target.owner_user_id for target in targets],
            [target.org_id for target in targets],
        )
        call = transfer.event()
        row = await connection.fetchrow(statements.APPEND, *rows.append_args(generation, call))
        assert row is not None
        finish = transfer.finish(call, rows.append_result(row))
        hit("runtime.after_insert")
        await self._projections.carry_out(connection, transfer.step(), generation=generation)
        await connection.execute(statements.FINISH_BATCH, *rows.finish_args(finish))
        hit("runtime.before_commit")


def _run(row: Row | None) -> TransferredRun | None:
    if row is None:
        return None
    record = rows.run_record(row)
    return TransferredRun(
        record.facts,
        record.state,
        record.created_at_us,
        record.finished_at_us,
        record.lineage,
        record.head_seq,
        record.head_chain,
    )
