"""control.audit_log: rows with the change in its transaction, alone for a refusal, batches of nodes; and reads."""

import json
from collections.abc import Sequence
from typing import Final

import attrs

from control.adapters.postgres import statements
from control.adapters.postgres.rows import to_ms, to_time_or_none
from control.core.audit import AuditEntry
from control.core.node_audit import AuditQuery, AuditRecord, NodeRow
from khala_service.adapters.postgres import PostgresConnection, PostgresPool, Row

_TEXTS: Final = (
    "action", "outcome", "reason", "request_id", "principal_kind", "principal_id", "user_id", "session_id",
    "device_id", "key_id", "org_id", "jti", "connection_id", "node_id",
)  # fmt: skip
# Filters that are not there must cost nothing: a plan for all of them at once would read the whole log.
_PLAN_EACH_CALL: Final = "SET LOCAL plan_cache_mode TO force_custom_plan"


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

    async def append_batch(self, node_id: str, batch_id: str, rows: Sequence[NodeRow]) -> int:
        """Append the rows of a node's batch; see the port."""
        recordset = [
            {**attrs.asdict(row), "action": row.action.value, "place": place}
            for place, row in enumerate(rows)
        ]
        tag = await self._pool.execute(
            statements.INSERT_AUDIT_BATCH, node_id, batch_id, json.dumps(recordset, sort_keys=True)
        )
        return int(tag.rpartition(" ")[2])

    async def list_audit(self, query: AuditQuery) -> Sequence[AuditRecord]:
        """Return the rows that a query means; see the port."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_PLAN_EACH_CALL)
            rows = await connection.fetch(
                statements.LIST_AUDIT,
                query.after,
                query.connection_id,
                query.request_id,
                query.session_id,
                query.user_id,
                query.action,
                to_time_or_none(query.from_ms),
                to_time_or_none(query.before_ms),
                query.limit + 1,
            )
        return tuple(_read_record(row) for row in rows)


def _read_record(row: Row) -> AuditRecord:
    texts = {name: row[name] or "" for name in _TEXTS}
    return AuditRecord(
        audit_id=row["audit_id"],
        occurred_at_ms=to_ms(row["occurred_at"]),
        detail=json.loads(row["detail"]),
        **texts,
    )
