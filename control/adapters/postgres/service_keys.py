"""Service keys in PostgreSQL. Implements `ports.KeyStore`."""

from collections.abc import Sequence

from control.adapters.postgres import statements
from control.adapters.postgres.audit import append_entry
from control.adapters.postgres.revocations import append_revocations
from control.adapters.postgres.rows import (
    read_key_info,
    read_key_state,
    to_time,
    to_time_or_none,
)
from control.core.audit import AuditEntry
from control.core.revocations import key_ended
from control.core.service_keys import KeyInfo, NewKey
from control.ports import KeyState
from khala_service.adapters.postgres import PostgresPool


class PostgresKeys:
    """Service keys of orgs."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def create_key(self, key: NewKey, *, per_org_max: int, audit: AuditEntry) -> bool:
        """Store a key unless the org has enough; see the port."""
        order = key.order
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(statements.LOCK_NAME, f"keys\n{order.org_id}")
            stored = await connection.fetchrow(
                statements.INSERT_KEY,
                key.key_id,
                order.org_id,
                order.name,
                key.secret_hash,
                [right.value for right in order.rights],
                [pattern.text for pattern in order.patterns],
                key.created_by,
                to_time(key.created_at_ms),
                to_time_or_none(key.expires_at_ms),
                per_org_max,
            )
            if stored is None:
                return False
            await append_entry(connection, audit)
            return True

    async def find_key(self, key_id: str) -> KeyState | None:
        """Return a key with its org; see the port."""
        row = await self._pool.fetchrow(statements.FIND_KEY, key_id)
        return None if row is None else read_key_state(row)

    async def list_keys(self, org_ids: Sequence[str]) -> tuple[KeyInfo, ...]:
        """Return every key of the orgs; see the port."""
        rows = await self._pool.fetch(statements.LIST_KEYS, list(org_ids))
        return tuple(read_key_info(row) for row in rows)

    async def revoke_key(
        self, key_id: str, *, org_ids: Sequence[str], revoked_by: str, now_ms: int, audit: AuditEntry
    ) -> KeyInfo | None:
        """End a key of one of the orgs; see the port."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(statements.LOCK_KEY, key_id, list(org_ids))
            if row is None or row["revoked_at"] is not None:
                return None if row is None else read_key_info(row)
            revoked = await connection.fetchrow(statements.REVOKE_KEY, key_id, to_time(now_ms), revoked_by)
            assert revoked is not None, "the row is locked by this transaction"
            await append_entry(connection, audit)
            await append_revocations(connection, [key_ended(key_id)], cause=audit.action.value, now_ms=now_ms)
            return read_key_info(revoked)

    async def note_use(self, key_id: str, *, now_ms: int) -> None:
        """Record a use at most once a minute; see the port."""
        await self._pool.execute(statements.NOTE_KEY_USE, key_id, to_time(now_ms))
