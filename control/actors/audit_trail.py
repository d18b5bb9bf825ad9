"""Writes refusals to the audit log, at a bounded rate, and counts what it did not write.

Changes write their row in their own transaction; this is for requests that changed nothing. Anybody can
cause refusals without a credential, so their rows are rationed: what exceeds the ration is counted and
written later as one row with the count. Nothing is lost silently.

Invariant: refusals seen == rows written + suppressed_count + counts of summary rows written.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs

from control.core.audit import NOBODY, Action, Actor, AuditEntry, refusal_entry
from control.core.refusals import Refused
from control.core.token_bucket import TokenBucket
from control.ports import AuditStore, Clock, Meters

# Higher: a flood of bad credentials fills the disk. Lower: a real attack leaves fewer traces.
REFUSALS_PER_S: Final = 20.0
REFUSALS_BURST: Final = 1000.0


@attrs.define
class Watch:
    """Who a watched request turned out to be from; set once its credential was judged."""

    actor: Actor = NOBODY


class AuditTrail:
    """The door to the log for everything that is not a change."""

    def __init__(
        self,
        store: AuditStore,
        clock: Clock,
        meters: Meters,
        *,
        rate_per_s: float = REFUSALS_PER_S,
        burst: float = REFUSALS_BURST,
    ) -> None:
        self._store = store
        self._clock = clock
        self._meters = meters
        self._bucket = TokenBucket(rate_per_s, burst)
        self.suppressed_count = 0

    async def note(self, entry: AuditEntry) -> None:
        """Append one row of something that was done."""
        await self._store.append(entry)
        self._meters.count_done(entry.action)

    async def note_refusal(
        self, action: Action, refused: Refused, *, request_id: str, actor: Actor = NOBODY
    ) -> None:
        """Append the row of a refusal, or count it when refusals exceed their ration."""
        self._meters.count_refusal(action, refused.code.name)
        if not self._bucket.take(self._clock.now()):
            self.suppressed_count += 1
            self._meters.count_suppressed()
            return
        await self._store.append(refusal_entry(action, refused, request_id=request_id, actor=actor))

    @asynccontextmanager
    async def watching(self, action: Action, *, request_id: str) -> AsyncIterator[Watch]:
        """Note the refusal that leaves this block, if one does, and let it go on.

        A block that ends normally writes nothing: the change inside it has its row.
        """
        watch = Watch()
        refusal: Refused | None = None
        try:
            yield watch
        except Refused as refused:
            refusal = refused
        if refusal is not None:
            await self.note_refusal(action, refusal, request_id=request_id, actor=watch.actor)
            raise refusal

    async def write_summary(self, *, request_id: str) -> None:
        """Append one row for all refusals suppressed since the last one, if there were any."""
        count = self.suppressed_count
        if count == 0:
            return
        entry = AuditEntry(action=Action.REFUSALS_SUPPRESSED, request_id=request_id, detail={"count": count})
        # Subtracted only once written: a failed write keeps the count for the next attempt.
        await self._store.append(entry)
        self.suppressed_count -= count
