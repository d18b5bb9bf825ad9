"""Reports decisions about access to control's audit log: who was let into what, who was not, who was put out.

Connections and their commands call the synchronous methods, which never wait and never fail; one task sends what
core/access_audit.py has collected, a batch at a time, the same batch until control has it. What was not sent when
the process is killed is lost with it; leaving in order sends the rest first.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from khala.core.access_audit import (
    BATCH_EVENTS_MAX,
    AuditAction,
    AuditCollector,
    AuditEvent,
    AuditSubject,
    positions_of,
)
from khala.ports import AuditRefusedError, ControlUnavailableError
from khala_contracts import reason_codes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from khala.core.access_audit import AuditBatch
    from khala.core.counters import NodeCounters
    from khala.core.limits import NodeLimits
    from khala.core.subscription import Subscription
    from khala.ports import Clock, Ids, Rng
    from khala_contracts.reason_codes import ReasonCode
    from khala_contracts.sync_claims import SyncClaims
    from khala_contracts.topics import TopicName

__all__ = ["AccessAudit", "AuditLog"]

RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 30.0
# How long a node that leaves tries to say its last words; within the drain of whoever ends it.
LAST_WORDS_S: Final = 1.0
# Bursts of exceeded limits that are told apart at once. More: memory. Fewer: rows that say who.
BURSTS_MAX: Final = 1_024


class Audited(Protocol):
    """What a report says of a connection."""

    @property
    def connection_id(self) -> str:
        """Its id, as `welcome` tells it."""

    @property
    def request_id(self) -> str:
        """Of its upgrade request."""

    @property
    def claims(self) -> SyncClaims | None:
        """Of its newest token; None before it was welcomed."""

    @property
    def subscriptions(self) -> Mapping[TopicName, Subscription]:
        """What it follows."""


class AuditLog(Protocol):
    """Control's audit log."""

    async def append_audit(self, batch: AuditBatch) -> None:
        """Have a batch written; idempotent per batch id.

        Raises:
            ControlUnavailableError: No answer; the same call may be repeated.
            AuditRefusedError: It will never take this batch.
        """


class AccessAudit:
    """Collects and sends; ``run`` must be running."""

    def __init__(
        self,
        log: AuditLog,
        *,
        limits: NodeLimits,
        counters: NodeCounters,
        clock: Clock,
        ids: Ids,
        rng: Rng,
    ) -> None:
        """Report to ``log``."""
        self._log = log
        self._counters = counters
        self._clock = clock
        self._ids = ids
        self._rng = rng
        self._limits = limits
        # When the burst of a limit and a user ends, so far. Invariant: len <= BURSTS_MAX.
        self._bursts: dict[tuple[str, str], float] = {}
        self._collector = AuditCollector(limits, now=trio.current_time())
        self._noted = trio.Event()
        self._running = trio.CancelScope()
        # Set while no `run` is sending.
        self._is_idle = trio.Event()
        self._is_idle.set()

    # -- what is noted ---------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Events that control does not have yet."""
        return self._collector.waiting

    @property
    def oldest_age_s(self) -> float:
        """How long the oldest of them has waited; 0 if none waits."""
        noted_at_ms = self._collector.oldest_noted_at_ms
        return 0.0 if noted_at_ms is None else max(0.0, self._clock.now() - noted_at_ms / 1000)

    def origin_denied(self, connection: Audited) -> None:
        """Note an upgrade that was refused for its origin."""
        self._note(connection, AuditAction.UPGRADE, reason_codes.ORIGIN_FORBIDDEN, "origin_denied")

    def token_refused(
        self,
        connection: Audited,
        reason: ReasonCode,
        cause: str,
        *,
        is_renewal: bool,
        claims: SyncClaims | None,
    ) -> None:
        """Note a token that opened nothing; ``claims`` if it was genuine."""
        action = AuditAction.RENEW if is_renewal else AuditAction.HELLO
        self._note(connection, action, reason, cause, claims=claims)

    def subscribed(self, connection: Audited, topic: TopicName) -> None:
        """Note that a topic may be followed."""
        self._note(connection, AuditAction.SUBSCRIBE, None, "", claims=connection.claims, topic=topic)

    def denied(self, connection: Audited, topic: TopicName | None, reason: ReasonCode, cause: str) -> None:
        """Note that a topic may not be followed; None if it was no topic."""
        self._note(
            connection, AuditAction.SUBSCRIBE, reason, cause, claims=connection.claims, topic=topic or ""
        )

    def evicted(self, connection: Audited) -> None:
        """Note that a connection is about to end because what it stood on has ended."""
        self._note(
            connection,
            AuditAction.EVICT_CONNECTION,
            reason_codes.REAUTH_REQUIRED,
            "revoked",
            claims=connection.claims,
            last_seqs={topic: one.position for topic, one in connection.subscriptions.items()},
        )

    def topic_evicted(self, connection: Audited, subscription: Subscription, cause: str) -> None:
        """Note that a running subscription is about to end because its right has ended."""
        self._note(
            connection,
            AuditAction.EVICT_TOPIC,
            reason_codes.FORBIDDEN,
            cause,
            claims=subscription.claims,
            last_seqs={subscription.parsed.name: subscription.position},
        )

    def limit_exceeded(self, connection: Audited | None, limit: str, reason: ReasonCode, value: str) -> None:
        """Note that a client exceeded a limit; None: it was refused before it had a connection.

        One row for each burst: the next of the same limit and user within ``audit_summary_interval_s`` is counted.
        """
        claims = None if connection is None else connection.claims
        burst = (limit, "" if claims is None else claims.user_id)
        now = trio.current_time()
        is_repeated = now < self._bursts.get(burst, -inf)
        if not is_repeated:
            is_repeated = not self._begin_burst(burst, now)
        event = self._event(connection, AuditAction.LIMIT, reason, "", claims=claims)
        self._take(attrs.evolve(event, limit=limit, limit_value=value), is_repeated=is_repeated)

    def _begin_burst(self, burst: tuple[str, str], now: float) -> bool:
        """Remember a burst if there is room for it; what has no room is counted only."""
        if len(self._bursts) >= BURSTS_MAX:
            self._bursts = {key: ends_at for key, ends_at in self._bursts.items() if now < ends_at}
            if len(self._bursts) >= BURSTS_MAX:
                return False
        self._bursts[burst] = now + self._limits.audit_summary_interval_s
        return True

    def _note(
        self,
        connection: Audited,
        action: AuditAction,
        reason: ReasonCode | None,
        cause: str,
        *,
        claims: SyncClaims | None = None,
        topic: str = "",
        last_seqs: dict[TopicName, int] | None = None,
    ) -> None:
        event = self._event(
            connection, action, reason, cause, claims=claims, topic=topic, last_seqs=last_seqs
        )
        self._take(event)

    def _event(
        self,
        connection: Audited | None,
        action: AuditAction,
        reason: ReasonCode | None,
        cause: str,
        *,
        claims: SyncClaims | None = None,
        topic: str = "",
        last_seqs: dict[TopicName, int] | None = None,
    ) -> AuditEvent:
        connection_id = self._ids.new("con") if connection is None else connection.connection_id
        return AuditEvent(
            action=action,
            reason=reason,
            cause=cause,
            noted_at_ms=round(self._clock.now() * 1000),
            connection_id=connection_id,
            request_id=connection_id if connection is None else connection.request_id,
            subject=None if claims is None else AuditSubject.of(claims),
            topic=topic,
            positions=positions_of(last_seqs or {}),
            topic_count=len(last_seqs or {}),
        )

    def _take(self, event: AuditEvent, *, is_repeated: bool = False) -> None:
        gap = self._collector.note(event, trio.current_time(), is_repeated=is_repeated)
        if gap is not None:
            self._counters.audit_events[gap.value] += 1
        self._noted.set()

    # -- sending ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send until cancelled, or until the last words are said."""
        self._is_idle = trio.Event()
        try:
            with trio.CancelScope() as self._running:
                while True:
                    await self._noted.wait()
                    # Events of one moment travel together, and counts of a flood in few rows.
                    await trio.sleep(self._limits.audit_flush_interval_s)
                    await self._send_waiting(is_last=False)
                    if self._collector.waiting == self._collector.uncounted == 0:
                        self._noted = trio.Event()
        finally:
            self._is_idle.set()

    async def say_last_words(self) -> None:
        """End ``run`` and send what waits, counts included, for LAST_WORDS_S at most.

        Cancellation: safe; what was not confirmed is lost.
        """
        # One sender at a time: two could confirm one batch.
        self._running.cancel()
        with trio.move_on_after(LAST_WORDS_S):
            await self._is_idle.wait()
            await self._send_waiting(is_last=True)

    async def _send_waiting(self, *, is_last: bool) -> None:
        retry_s = RETRY_FIRST_S
        while batch := self._collector.take_batch(trio.current_time(), self._new_id, is_last=is_last):
            wait_s = await self._send(batch)
            if wait_s is not None:
                # No retry limit: the collector is bounded, and what it cannot hold it counts.
                await trio.sleep(wait_s + retry_s * self._rng.random())
                retry_s = min(2 * retry_s, RETRY_MAX_S)
                continue
            retry_s = RETRY_FIRST_S
            # What came meanwhile gathers for the next time, or a flood would travel one by one.
            if not is_last and len(batch.events) < BATCH_EVENTS_MAX:
                return

    async def _send(self, batch: AuditBatch) -> float | None:
        """Send a batch; return how long to wait at least before the next one, None: not at all."""
        try:
            await self._log.append_audit(batch)
        except ControlUnavailableError as error:
            return error.retry_after_s
        except AuditRefusedError:
            self._counters.audit_events["refused"] += len(batch.events)
            return None if self._collector.refuse() else RETRY_MAX_S
        self._collector.confirm()
        self._counters.audit_events["sent"] += len(batch.events)
        return None

    def _new_id(self) -> str:
        return self._ids.new("bat")
