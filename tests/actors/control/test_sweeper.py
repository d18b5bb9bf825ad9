"""The sweeper goes on whatever the database does; what nobody foresaw restarts it (INV-21)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs
import trio

from control.actors.sweeper import SWEEP_PERIOD_S, Sweeper
from khala_service.errors import SerializationTrouble, Unavailable
from khala_service.supervision import supervise

if TYPE_CHECKING:
    from trio.testing import MockClock

    from control.actors.audit_trail import AuditTrail
    from control.ports import Clock, Ids, Meters, PendingSignIns, RedemptionStore, RevocationLog, SessionStore


@attrs.define
class Around:
    """Everything that the sweeper touches; the script says what each pass meets."""

    script: list[Exception | None]
    passes: list[float] = attrs.field(factory=list)

    async def sweep(self, *, now_ms: int, batch: int) -> int:
        await trio.lowlevel.checkpoint()
        self.passes.append(trio.current_time())
        trouble = self.script.pop(0) if self.script else None
        if trouble is not None:
            raise trouble
        return 0

    async def write_summary(self, *, request_id: str) -> None:
        await trio.lowlevel.checkpoint()

    def now(self) -> float:
        return 0.0

    def new(self, prefix: str) -> str:
        return prefix

    def count_swept(self, rows: int) -> None:
        assert rows == 0


@attrs.define
class NoSessions:
    """A store with nothing to remove."""

    async def sweep(self, *, now_ms: int, batch: int) -> int:
        await trio.lowlevel.checkpoint()
        return 0

    async def forget_successors(self, *, spent_before_ms: int, batch: int) -> int:
        await trio.lowlevel.checkpoint()
        return 0


async def test_trouble_waits_for_the_next_pass(autojump_clock: MockClock) -> None:
    """A database that is away, or busy with others, costs one pass; a bug costs one restart, counted."""
    around = Around(
        [Unavailable("database_unreachable"), SerializationTrouble("40P01"), KeyError("bug"), None]
    )
    sweeper = Sweeper(
        redemptions=cast("RedemptionStore", around),
        sessions=cast("SessionStore", NoSessions()),
        revocations=cast("RevocationLog", NoSessions()),
        pending=cast("PendingSignIns", NoSessions()),
        refresh_grace_s=10,
        trail=cast("AuditTrail", around),
        clock=cast("Clock", around),
        ids=cast("Ids", around),
        meters=cast("Meters", around),
    )
    restarts: list[str] = []
    with trio.move_on_after(5.5 * SWEEP_PERIOD_S):
        await supervise("sweeper", sweeper.serve_sweeping, restarted=restarts.append)
    assert restarts == ["sweeper"]
    assert len(around.passes) == 5
