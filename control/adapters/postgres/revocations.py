"""The log of revocations in PostgreSQL. Implements `ports.RevocationLog`.

`RevocationWriter` is the one place that writes it, so that no cause can forget to make nodes look.
"""

from collections.abc import Callable, Sequence

import attrs

from control.adapters.postgres import statements
from control.adapters.postgres.rows import to_ms, to_time
from control.core.revocations import RETAINED_S, Revocation, RevocationKind, RevocationPage, RevocationRow
from control.core.sessions import MS_PER_S
from khala_service.adapters.postgres import PostgresConnection, PostgresPool, Row


def _tell_nobody() -> None:
    """Leave it to the polls of the nodes."""


@attrs.frozen
class RevocationWriter:
    """Writes the log inside the transactions of the stores.

    Attributes:
        written: Told after each transaction that appended rows, however it ended; must not wait or raise.
    """

    written: Callable[[], None] = _tell_nobody

    async def append(
        self, connection: PostgresConnection, revocations: Sequence[Revocation], *, cause: str, now_ms: int
    ) -> None:
        """Append rows as the last statement of the transaction that made them true."""
        if not revocations:
            return
        # After the commit: a node that looks before it finds nothing, and then waits for its poll.
        connection.at_transaction_end(self.written)
        await connection.execute(
            statements.APPEND_REVOCATIONS,
            [revocation.kind.value for revocation in revocations],
            [revocation.session_id for revocation in revocations],
            [revocation.key_id for revocation in revocations],
            [revocation.org_id for revocation in revocations],
            [revocation.user_id for revocation in revocations],
            cause,
            to_time(now_ms),
        )


class PostgresRevocations:
    """Reads the log, and forgets what concerns nobody any more."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def read_after(self, seq: int, *, limit: int) -> RevocationPage:
        """Return rows after a position and where the log stands, in one statement; see the port."""
        rows = await self._pool.fetch(statements.READ_REVOCATIONS, seq, limit)
        found = tuple(_read_row(row) for row in rows if row["seq"] is not None)
        return RevocationPage(found, rows[0]["head_seq"], rows[0]["floor_seq"])

    async def sweep(self, *, now_ms: int, batch: int) -> int:
        """Remove rows that concern no token any more; see the port."""
        tag = await self._pool.execute(
            statements.SWEEP_REVOCATIONS, to_time(now_ms - RETAINED_S * MS_PER_S), batch
        )
        return int(tag.rpartition(" ")[2])


def _read_row(row: Row) -> RevocationRow:
    revocation = Revocation(
        RevocationKind(row["kind"]),
        session_id=row["session_id"],
        key_id=row["key_id"],
        org_id=row["org_id"],
        user_id=row["user_id"],
    )
    return RevocationRow(row["seq"], revocation, to_ms(row["revoked_at"]))
