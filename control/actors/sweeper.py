"""The one background task: removes what nobody can use any more, and writes audit summaries.

Every pass is bounded: batches of SWEEP_BATCH rows, each a transaction of its own, until a batch is not
full, so that a backlog is worked off without one long transaction. Trouble is logged and the next pass
tries again; nothing depends on a pass having run, except disk space.
"""

from typing import Final

import trio

from control.actors.audit_trail import AuditTrail
from control.core.sessions import MS_PER_S
from control.ports import Clock, Ids, Meters, PendingSignIns, RedemptionStore, RevocationLog, SessionStore
from khala_service.errors import SerializationTrouble, Unavailable
from khala_service.logs import get_logger

SWEEP_PERIOD_S: Final = 30.0
SWEEP_BATCH: Final = 1000
# At 1,000 rows each; what is left waits for the next pass.
BATCHES_PER_PASS_MAX: Final = 100

_logger = get_logger("control.sweeper")


class Sweeper:
    """Removes expired redemption records, long-ended sessions and revocations of no further use."""

    def __init__(
        self,
        *,
        redemptions: RedemptionStore,
        sessions: SessionStore,
        revocations: RevocationLog,
        pending: PendingSignIns,
        trail: AuditTrail,
        clock: Clock,
        ids: Ids,
        meters: Meters,
        refresh_grace_s: int,
        period_s: float = SWEEP_PERIOD_S,
        batch: int = SWEEP_BATCH,
    ) -> None:
        self._redemptions = redemptions
        self._sessions = sessions
        self._revocations = revocations
        self._pending = pending
        self.refresh_grace_s = refresh_grace_s
        self._trail = trail
        self._clock = clock
        self._ids = ids
        self._meters = meters
        self._period_s = period_s
        self._batch = batch

    async def serve_sweeping(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sweep once a period, for ever."""
        task_status.started()
        while True:
            await trio.sleep(self._period_s)
            try:
                await self.sweep_once()
            except (Unavailable, SerializationTrouble) as error:
                _logger.warning("sweep_failed", reason=str(error))

    async def sweep_once(self) -> int:
        """Make one pass; return the number of rows removed.

        Raises:
            Unavailable: The database did not answer; the next pass does the rest.
        """
        removed = 0
        sweeps = (
            self._redemptions.sweep,
            self._sessions.sweep,
            self._revocations.sweep,
            self._pending.sweep,
            self._forget_successors,
        )
        for sweep in sweeps:
            for _ in range(BATCHES_PER_PASS_MAX):
                count = await sweep(now_ms=int(self._clock.now() * MS_PER_S), batch=self._batch)
                removed += count
                self._meters.count_swept(count)
                if count < self._batch:
                    break
        await self._trail.write_summary(request_id=self._ids.new("req"))
        return removed

    async def _forget_successors(self, *, now_ms: int, batch: int) -> int:
        grace_ms = self.refresh_grace_s * MS_PER_S
        return await self._sessions.forget_successors(spent_before_ms=now_ms - grace_ms, batch=batch)
