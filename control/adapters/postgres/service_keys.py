"""Service keys in PostgreSQL. Implements `ports.KeyStore`."""

from collections.abc import Sequence

import attrs

from control.adapters.postgres import statements
from control.adapters.postgres.audit import append_entry
from control.adapters.postgres.revocations import RevocationWriter
from control.adapters.postgres.rows import (
    read_key_info,
    read_key_state,
    to_time,
    to_time_or_none,
)
from control.core.audit import AuditEntry
from control.core.revocations import key_ended
from control.core.service_keys import (
    ENDED_SECRETS_MAX,
    KeyInfo,
    KeyRotation,
    NewKey,
    RotationRefusal,
    is_alive,
)
from control.ports import KeyState
from khala_service.adapters.postgres import PostgresPool


class PostgresKeys:
    """Service keys of orgs."""

    def __init__(self, pool: PostgresPool, revocations: RevocationWriter | None = None) -> None:
        self._pool = pool
        self._revocations = revocations or RevocationWriter()

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
            await connection.execute(statements.REVOKE_KEY, key_id, to_time(now_ms), revoked_by)
            await append_entry(connection, audit)
            await self._revocations.append(
                connection, [key_ended(key_id)], cause=audit.action.value, now_ms=now_ms
            )
            return attrs.evolve(read_key_info(row), revoked_at_ms=now_ms)

    async def rotate_key(
        self, rotation: KeyRotation, *, org_ids: Sequence[str], retired_max: int, audit: AuditEntry
    ) -> KeyInfo | RotationRefusal:
        """Give a key a new secret under the lock of its row; see the port."""
        key_id, now = rotation.key_id, to_time(rotation.now_ms)
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(statements.LOCK_KEY, key_id, list(org_ids))
            if row is None:
                return RotationRefusal.UNKNOWN
            key = read_key_info(row)
            if not is_alive(
                expires_at_ms=key.expires_at_ms, revoked_at_ms=key.revoked_at_ms, now_ms=rotation.now_ms
            ):
                return RotationRefusal.ENDED
            await connection.execute(statements.FORGET_KEY_SECRETS, key_id, now, ENDED_SECRETS_MAX)
            if rotation.old_ends_at_ms > rotation.now_ms:
                counted = await connection.fetchrow(statements.COUNT_KEY_SECRETS, key_id, now)
                assert counted is not None, "a count returns one row"
                if counted["live"] >= retired_max:
                    return RotationRefusal.TOO_MANY
            await connection.execute(statements.RETIRE_KEY_SECRET, key_id, to_time(rotation.old_ends_at_ms))
            await connection.execute(
                statements.ROTATE_KEY,
                key_id,
                rotation.secret_hash,
                now,
                to_time_or_none(rotation.expires_at_ms),
            )
            await append_entry(connection, audit)
        return attrs.evolve(
            key,
            rotated_at_ms=rotation.now_ms,
            old_secret_ends_at_ms=rotation.old_ends_at_ms,
            expires_at_ms=rotation.expires_at_ms or key.expires_at_ms,
        )

    async def note_use(self, key_id: str, *, now_ms: int) -> None:
        """Record a use at most once a minute; see the port."""
        await self._pool.execute(statements.NOTE_KEY_USE, key_id, to_time(now_ms))
