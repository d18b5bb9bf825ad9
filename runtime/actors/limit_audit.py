"""Counts refusals for limits, and tells control's audit log of them: one row for each burst.

A burst is what one principal gets refused for one limit within BURST_S. Its first refusal is a row, with the value
that was in force; the rest are counted, and the counts are told as well. ``note`` never waits and never fails; one
task sends, the same batch until control has it, or refuses it for good. What was not sent when the process ends is lost with it: it is in
the metrics.

Keeps INV-7: at most ROWS_MAX rows and BURSTS_MAX bursts wait; what has no room is counted.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from khala_service.errors import Unavailable
from khala_service.logs import get_logger
from runtime.core.limits import VIOLATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from khala_contracts.reason_codes import ReasonCode
    from runtime.core.principals import Principal
    from runtime.ports import Clock, Ids

__all__ = ["ExceededLimit", "LimitAudit", "LimitAuditLog", "LimitBatch", "LimitBatchRefused"]

_log = get_logger(__name__)

# Longer: who goes on is seen later. Shorter: a flood fills control's disk.
BURST_S: Final = 10.0
ROWS_MAX: Final = 256
BURSTS_MAX: Final = 1_024
# Rows of one moment travel together; after a failure control is left alone for longer.
FLUSH_S: Final = 0.5
RETRY_S: Final = 5.0
_MS_PER_S: Final = 1_000


@attrs.frozen
class ExceededLimit:
    """One row: who exceeded which limit, and what its value was."""

    limit: str
    value: str
    reason: ReasonCode
    noted_at_ms: int
    request_id: str
    principal: Principal | None


@attrs.frozen
class LimitBatch:
    """What travels at once: rows, and how many refusals of each reason were only counted since a time."""

    batch_id: str
    rows: tuple[ExceededLimit, ...]
    counted: Mapping[str, int]
    since_ms: int


class LimitBatchRefused(Exception):
    """Control will never take this batch."""


class LimitAuditLog(Protocol):
    """Control's audit log, as a runtime writes to it."""

    async def append(self, batch: LimitBatch) -> None:
        """Have a batch written; idempotent per batch id.

        Raises:
            Unavailable: No answer, or not this time; the same call may be repeated.
            LimitBatchRefused: Repeating it changes nothing.
        """


class LimitAudit:
    """What was refused for a limit; ``serve`` sends it."""

    def __init__(self, log: LimitAuditLog, *, clock: Clock, ids: Ids) -> None:
        """Tell ``log``."""
        # By limit; what each is told: core/limits.py.
        self.violations: Counter[str] = Counter()
        self._log = log
        self._clock = clock
        self._ids = ids
        self._rows: list[ExceededLimit] = []
        self._counted: Counter[str] = Counter()
        self._counted_since_ms = 0
        # When the burst of a limit and a principal ends.
        self._bursts: dict[tuple[str, str], float] = {}
        self._noted = trio.Event()

    def note(
        self,
        reason: ReasonCode,
        details: Mapping[str, str],
        *,
        principal: Principal | None,
        request_id: str,
    ) -> None:
        """Note a refusal; one whose details name no limit of ours is none of ours."""
        limit = details.get("limit", "")
        if limit not in VIOLATIONS:
            return
        self.violations[limit] += 1
        now_ms = round(self._clock.now() * _MS_PER_S)
        if self._begins_burst((limit, "" if principal is None else principal.principal_id)):
            value = details.get("max", "")
            self._rows.append(ExceededLimit(limit, value, reason, now_ms, request_id, principal))
        else:
            self._counted_since_ms = self._counted_since_ms or now_ms
            self._counted[reason.name] += 1
        self._noted.set()

    def _begins_burst(self, burst: tuple[str, str]) -> bool:
        now = trio.current_time()
        if now < self._bursts.get(burst, now) or len(self._rows) >= ROWS_MAX:
            return False
        if len(self._bursts) >= BURSTS_MAX:
            self._bursts = {known: ends_at for known, ends_at in self._bursts.items() if now < ends_at}
            if len(self._bursts) >= BURSTS_MAX:
                return False
        self._bursts[burst] = now + BURST_S
        return True

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until cancelled. Cancellation: what control has not confirmed is lost."""
        task_status.started()
        while True:
            await self._noted.wait()
            await trio.sleep(FLUSH_S)
            self._noted = trio.Event()
            await self._send(self._take_batch())

    def _take_batch(self) -> LimitBatch:
        batch = LimitBatch(
            self._ids.new("bat"), tuple(self._rows), dict(self._counted), self._counted_since_ms
        )
        self._rows.clear()
        self._counted.clear()
        self._counted_since_ms = 0
        return batch

    async def _send(self, batch: LimitBatch) -> None:
        while True:
            try:
                await self._log.append(batch)
            except Unavailable as error:
                # No retry limit: what waits meanwhile is bounded.
                await trio.sleep(max(RETRY_S, error.retry_after_s))
            except LimitBatchRefused as refused:
                # A mistake of ours. What comes after it is not held up by it.
                _log.error("limit_audit_refused", reason=str(refused), rows=len(batch.rows))
                return
            else:
                return
