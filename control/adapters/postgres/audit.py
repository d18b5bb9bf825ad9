"""Appends to control.audit_log: with the change in its transaction, or alone for a refusal."""

import json

from control.adapters.postgres import statements
from control.core.audit import AuditEntry
from khala_service.adapters.postgres import PostgresConnection, PostgresPool


async def append_entry(target: PostgresConnection | PostgresPool, entry: AuditEntry) -> None:
    """Append one row; inside a transaction it stands and falls with it."""
    actor = entry.actor
    await target.execute(
        statements.INSERT_AUDIT,
        entry.action.value,
        "refused" if entry.reason else "done",
        entry.reason,
        entry.request_id,
        actor.principal_kind.value if actor.principal_kind else None,
        actor.principal_id,
        actor.user_id,
        actor.session_id,
        actor.device_id,
        actor.key_id,
        actor.org_id,
        entry.jti,
        json.dumps(dict(entry.detail), sort_keys=True),
    )


class PostgresAudit:
    """Implements `ports.AuditStore`."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def append(self, entry: AuditEntry) -> None:
        """Append one row on its own."""
        await append_entry(self._pool, entry)
