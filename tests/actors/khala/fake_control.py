"""Control as a node sees it, and the small ports: in memory, and able to refuse."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs
import trio

from khala.core.revocation_view import Revocation, RevocationKind, RevocationPage
from khala.ports import AuditRefusedError, ControlUnavailableError, TokenRefusedError
from khala_contracts import reason_codes
from tests.topic_log import WALL_S

if TYPE_CHECKING:
    from khala.core.access_audit import AuditBatch, AuditEvent
    from khala_contracts.reason_codes import ReasonCode
    from khala_contracts.sync_claims import SyncClaims


@attrs.define
class FakeClock:
    """Wall time that follows the monotonic clock of the run."""

    offset_s: float = attrs.field(factory=lambda: WALL_S - trio.current_time())

    def now(self) -> float:
        """Return Unix seconds."""
        return self.offset_s + trio.current_time()


@attrs.define
class CountingIds:
    """Identifiers 1, 2, 3 ... of each prefix."""

    counts: Counter[str] = attrs.field(factory=Counter)

    def new(self, prefix: str) -> str:
        """Return the next one."""
        self.counts[prefix] += 1
        return f"{prefix}_{self.counts[prefix]}"


@attrs.define
class FixedRng:
    """No jitter."""

    value: float = 1.0

    def random(self) -> float:
        """Return the same number each time."""
        return self.value


@attrs.define
class FakeTokens:
    """Knows tokens by name; an unknown one is invalid."""

    claims: dict[str, SyncClaims] = attrs.field(factory=dict)
    is_down: bool = False

    async def verify(self, token: str) -> SyncClaims:
        """Return the claims; see TokenVerifier."""
        await trio.lowlevel.checkpoint()
        if self.is_down:
            raise ControlUnavailableError(2.0)
        if token not in self.claims:
            raise TokenRefusedError(reason_codes.TOKEN_INVALID, "unknown_to_the_test")
        return self.claims[token]


@attrs.define
class FakeControl:
    """Spends each jti once, for one connection."""

    spent: dict[str, str] = attrs.field(factory=dict)
    revoked: set[str] = attrs.field(factory=set)
    is_down: bool = False
    delay_s: float = 0.0
    log: list[Revocation] = attrs.field(factory=list)
    # What was reported: by batch id, as an authority that writes a batch once.
    audited: dict[str, AuditBatch] = attrs.field(factory=dict)
    # Answers to batches that are lost although they were written, and batches that are refused.
    audit_answers_lost: int = 0
    audit_refusals: int = 0
    audit_calls: int = 0

    async def read_revocations(self, after_seq: int) -> RevocationPage:
        """Return a page of the log; see RevocationSource."""
        await trio.lowlevel.checkpoint()
        if self.is_down:
            raise ControlUnavailableError(1.0)
        return RevocationPage(self.log[after_seq : after_seq + 100], len(self.log), 1)

    async def append_audit(self, batch: AuditBatch) -> None:
        """Write a batch; see AuditLog."""
        self.audit_calls += 1
        await trio.sleep(self.delay_s)
        if self.is_down:
            raise ControlUnavailableError(1.0)
        if self.audit_refusals > 0:
            self.audit_refusals -= 1
            raise AuditRefusedError
        known = self.audited.setdefault(batch.batch_id, batch)
        assert known == batch, "one batch id, two batches"
        if self.audit_answers_lost > 0:
            self.audit_answers_lost -= 1
            raise ControlUnavailableError(1.0)

    @property
    def events(self) -> list[AuditEvent]:
        """Every event that was reported, in order."""
        return [event for batch in self.audited.values() for event in batch.events]

    @property
    def counted(self) -> int:
        """How many events were only counted."""
        return sum(count.count for batch in self.audited.values() for count in batch.unwritten)

    def revoke(self, kind: RevocationKind, *, at_s: float, **ids: str) -> None:
        """Append a row to the log."""
        self.log.append(Revocation(len(self.log) + 1, kind, round(at_s * 1000), **ids))

    async def redeem(self, claims: SyncClaims, connection_id: str) -> ReasonCode | None:
        """Spend a token; see ControlClient."""
        await trio.sleep(self.delay_s)
        if self.is_down:
            raise ControlUnavailableError(3.0)
        if claims.session_id in self.revoked:
            return reason_codes.REAUTH_REQUIRED
        owner = self.spent.setdefault(claims.jti, connection_id)
        return None if owner == connection_id else reason_codes.TOKEN_REPLAYED
