"""What a node has to tell the audit log: bounded, rationed, and complete by counts. Pure.

Each decision about access is noted once. What exceeds its ration, finds no room, or is in a batch that control
refuses is counted by action and reason, and the counts are told too, so that nothing is lost silently.

Invariants (tests/unit/khala/test_access_audit.py):
    noted == events confirmed + counts confirmed + events waiting + counts waiting (a batch under way is waiting)
    waiting events <= waiting_max, their estimated bytes <= waiting_max_bytes
    a batch is the same until it is confirmed or refused, so that sending it again doubles nothing
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Final

import attrs

from khala.core.rate_limit import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from khala.core.limits import NodeLimits
    from khala_contracts.reason_codes import ReasonCode
    from khala_contracts.sync_claims import PrincipalKind, SyncClaims
    from khala_contracts.topics import TopicName

BATCH_EVENTS_MAX: Final = 256
BATCH_COUNTS_MAX: Final = 256
# Below what control reads of one request, with every event an eviction of the largest kind.
BATCH_MAX_BYTES: Final = 256 * 1024
# An eviction names so many of its topics; more would not fit into one row of the log.
POSITIONS_MAX: Final = 64
# An event without its topics, in memory and on the wire.
_EVENT_BYTES: Final = 700
_POSITION_BYTES: Final = 40


class AuditAction(Enum):
    """What a node decided or did."""

    UPGRADE = "upgrade"
    HELLO = "hello"
    RENEW = "renew"
    SUBSCRIBE = "subscribe"
    EVICT_CONNECTION = "evict_connection"
    EVICT_TOPIC = "evict_topic"
    LIMIT = "limit"


class AuditGap(Enum):
    """Why an event was only counted."""

    RATIONED = "rationed"
    NO_ROOM = "no_room"
    REFUSED = "refused"


_EVICTIONS: Final = frozenset({AuditAction.EVICT_CONNECTION, AuditAction.EVICT_TOPIC})


@attrs.frozen
class AuditSubject:
    """Whom a genuine token named. Not the claims themselves: their grants would be kept alive with them."""

    user_id: str
    session_id: str
    device_id: str
    principal_kind: PrincipalKind
    principal_id: str
    jti: str

    @classmethod
    def of(cls, claims: SyncClaims) -> AuditSubject:
        """Return whom these claims name."""
        return cls(
            user_id=claims.user_id,
            session_id=claims.session_id or "",
            device_id=claims.device_id,
            principal_kind=claims.principal_kind,
            principal_id=claims.principal_id,
            jti=claims.jti,
        )


@attrs.frozen
class AuditEvent:
    """One decision.

    Attributes:
        reason: None: allowed.
        cause: Lower-case words that say more, for the log only.
        noted_at_ms: Unix milliseconds.
        subject: None if there was no genuine token.
        topic: Of a subscribe, if it was a topic.
        positions: Of an eviction: topics and the last seq of each that was put on the socket.
        topic_count: Of an eviction: how many topics it ended.
        limit: Of an exceeded limit: its name, and the value that was in force.
    """

    action: AuditAction
    reason: ReasonCode | None
    cause: str
    noted_at_ms: int
    connection_id: str
    request_id: str
    subject: AuditSubject | None = None
    topic: str = ""
    positions: tuple[tuple[str, int], ...] = ()
    topic_count: int = 0
    limit: str = ""
    limit_value: str = ""

    @property
    def size_bytes(self) -> int:
        """What it takes, estimated and never too little by much."""
        topics = sum(len(topic) + _POSITION_BYTES for topic, _ in self.positions)
        return _EVENT_BYTES + len(self.topic) + topics


@attrs.frozen
class UnwrittenCount:
    """Events of one kind that were only counted; ``since_ms`` is when the first of them was noted."""

    action: AuditAction
    reason: str
    gap: AuditGap
    count: int
    since_ms: int


@attrs.frozen
class AuditBatch:
    """What travels at once."""

    batch_id: str
    events: tuple[AuditEvent, ...]
    unwritten: tuple[UnwrittenCount, ...]


_Kind = tuple[AuditAction, str, AuditGap]


class AuditCollector:
    """Events that wait for control, and counts of those that do not. Times are monotonic seconds."""

    def __init__(self, limits: NodeLimits, *, now: float) -> None:
        self._limits = limits
        self._denied = TokenBucket.full(limits.audit_denied_per_s, limits.audit_denied_burst, now=now)
        self._allowed = TokenBucket.full(limits.audit_allowed_per_s, limits.audit_allowed_burst, now=now)
        self._evicted = TokenBucket.full(limits.audit_evicted_per_s, limits.audit_evicted_burst, now=now)
        self._events: deque[AuditEvent] = deque()
        # Of the events that wait, those under way included.
        self._bytes = 0
        # Invariant: one entry for each kind, and kinds are few: actions x reason codes x gaps.
        self._counts: dict[_Kind, UnwrittenCount] = {}
        self._under_way: AuditBatch | None = None
        self._summarised_at = -float("inf")

    @property
    def waiting(self) -> int:
        """Events that are not confirmed yet."""
        return len(self._events) + (len(self._under_way.events) if self._under_way else 0)

    @property
    def waiting_bytes(self) -> int:
        """What they take, estimated."""
        return self._bytes

    @property
    def uncounted(self) -> int:
        """Events that were only counted and whose count is not confirmed yet."""
        waiting = sum(count.count for count in self._counts.values())
        under_way = self._under_way.unwritten if self._under_way else ()
        return waiting + sum(count.count for count in under_way)

    @property
    def oldest_noted_at_ms(self) -> int | None:
        """When the oldest waiting event was noted, Unix milliseconds; None if none waits."""
        if self._under_way is not None and self._under_way.events:
            return self._under_way.events[0].noted_at_ms
        return self._events[0].noted_at_ms if self._events else None

    def note(self, event: AuditEvent, now: float, *, is_repeated: bool = False) -> AuditGap | None:
        """Take an event; return why it will only be counted, None if it will be told.

        ``is_repeated``: one row of its burst was noted already.
        """
        if is_repeated:
            return self._count(event, AuditGap.RATIONED)
        limits = self._limits
        if not self._bucket_of(event, now).take(now):
            return self._count(event, AuditGap.RATIONED)
        has_room = (
            self.waiting < limits.audit_waiting_max
            and self._bytes + event.size_bytes <= limits.audit_waiting_max_bytes
        )
        if not has_room:
            return self._count(event, AuditGap.NO_ROOM)
        self._events.append(event)
        self._bytes += event.size_bytes
        return None

    def take_batch(
        self, now: float, new_id: Callable[[], str], *, is_last: bool = False
    ) -> AuditBatch | None:
        """Return what is to be sent now: the batch that is under way, or the next one; None if there is nothing.

        Counts travel once in ``summary_interval_s``, so that a flood makes few rows; with the last batch at once.
        """
        if self._under_way is not None:
            return self._under_way
        counts: tuple[UnwrittenCount, ...] = ()
        if is_last or now - self._summarised_at >= self._limits.audit_summary_interval_s:
            counts = tuple(self._counts.values())[:BATCH_COUNTS_MAX]
        events = self._next_events()
        if not events and not counts:
            return None
        for count in counts:
            del self._counts[count.action, count.reason, count.gap]
        if counts:
            self._summarised_at = now
        self._under_way = AuditBatch(new_id(), tuple(events), counts)
        return self._under_way

    def confirm(self) -> None:
        """Forget the batch under way: it is written."""
        self._end_batch()

    def refuse(self) -> bool:
        """Count the events of the batch under way, which control will never take; its counts go on waiting.

        Returns:
            Whether the next batch differs from this one, so that it may be sent at once.
        """
        batch = self._end_batch()
        for event in batch.events:
            self._count(event, AuditGap.REFUSED)
        for count in batch.unwritten:
            self._merge(count)
        return bool(batch.events)

    def _next_events(self) -> list[AuditEvent]:
        events: list[AuditEvent] = []
        size = 0
        while self._events and len(events) < BATCH_EVENTS_MAX:
            size += self._events[0].size_bytes
            if events and size > BATCH_MAX_BYTES:
                break
            events.append(self._events.popleft())
        return events

    def _end_batch(self) -> AuditBatch:
        batch = self._under_way
        assert batch is not None, "no batch is under way"
        self._under_way = None
        self._bytes -= sum(event.size_bytes for event in batch.events)
        return batch

    def _bucket_of(self, event: AuditEvent, now: float) -> TokenBucket:
        limits = self._limits
        if event.action in _EVICTIONS:
            bucket, per_s, burst = self._evicted, limits.audit_evicted_per_s, limits.audit_evicted_burst
        elif event.reason is None:
            bucket, per_s, burst = self._allowed, limits.audit_allowed_per_s, limits.audit_allowed_burst
        else:
            bucket, per_s, burst = self._denied, limits.audit_denied_per_s, limits.audit_denied_burst
        bucket.retune(per_s, burst, now)
        return bucket

    def _count(self, event: AuditEvent, gap: AuditGap) -> AuditGap:
        reason = "" if event.reason is None else event.reason.name
        self._merge(UnwrittenCount(event.action, reason, gap, 1, event.noted_at_ms))
        return gap

    def _merge(self, count: UnwrittenCount) -> None:
        kind = (count.action, count.reason, count.gap)
        known = self._counts.get(kind)
        if known is not None:
            since_ms = min(known.since_ms, count.since_ms)
            count = attrs.evolve(known, count=known.count + count.count, since_ms=since_ms)
        self._counts[kind] = count


def positions_of(last_seqs: Mapping[TopicName, int]) -> tuple[tuple[str, int], ...]:
    """Return the first topics of an eviction with their last seqs, as many as one event names."""
    return tuple(last_seqs.items())[:POSITIONS_MAX]
