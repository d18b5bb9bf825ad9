"""The audit log towards nodes, who add to it, and towards operators, who read it."""

from control.core.node_audit import AuditPage, AuditQuery, NodeBatch, check_query, rows_of
from control.ports import AuditStore, Meters


class NodeAudit:
    """Takes batches of nodes and answers questions about the whole log."""

    def __init__(self, store: AuditStore, meters: Meters) -> None:
        self._store = store
        self._meters = meters

    async def append(self, batch: NodeBatch) -> int:
        """Write a batch and return how many rows that made; 0 if it had been written before.

        Raises:
            Refused: invalid_argument with the field; nothing of the batch was written.
            Unavailable: The outcome may be unknown; sending the same batch again is safe.
        """
        rows = rows_of(batch)
        written = await self._store.append_batch(batch.node_id, batch.batch_id, rows)
        if written:
            self._meters.count_node_audit([row.action for row in rows])
        return written

    async def read(self, query: AuditQuery) -> AuditPage:
        """Return a page of the log.

        A row becomes visible when its transaction ends: one with a smaller id may appear within the longest
        statement after one with a larger id. Who copies the log reads its last minute again.

        Raises:
            Refused: invalid_argument with the parameter.
        """
        check_query(query)
        records = await self._store.list_audit(query)
        rows = records[: query.limit]
        next_after = rows[-1].audit_id if rows else query.after
        return AuditPage(rows, next_after, has_more=len(records) > query.limit)
