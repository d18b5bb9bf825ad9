"""What a node tells the audit log is bounded, and adds up."""

from __future__ import annotations

import itertools
from collections import Counter

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khala.core.access_audit import (
    BATCH_COUNTS_MAX,
    BATCH_EVENTS_MAX,
    BATCH_MAX_BYTES,
    POSITIONS_MAX,
    AuditAction,
    AuditBatch,
    AuditCollector,
    AuditEvent,
    AuditGap,
    AuditSubject,
    positions_of,
)
from khala.core.limits import NodeLimits
from khala_contracts import reason_codes
from khala_contracts.reason_codes import REGISTRY
from khala_contracts.topics import TopicName
from khala_service.live_limits import take_over
from tests.topic_log import claims_for, run_topic

LIMITS = NodeLimits()
TOPIC = run_topic(1)


def event(action: AuditAction = AuditAction.SUBSCRIBE, *, number: int = 0, **fields: object) -> AuditEvent:
    """Return an event; a subscribe that was denied, unless told otherwise."""
    given_fields: dict[str, object] = {"reason": reason_codes.FORBIDDEN, "cause": "not_granted", **fields}
    return AuditEvent(
        action=action,
        noted_at_ms=1_000 + number,
        connection_id=f"con_{number}",
        request_id=f"req_{number}",
        **given_fields,  # type: ignore[arg-type]
    )


ALLOWED = event(reason=None, cause="")
EVICTED = event(AuditAction.EVICT_CONNECTION, reason=reason_codes.REAUTH_REQUIRED)


class Authority:
    """Takes batches and adds up what they say."""

    def __init__(self) -> None:
        self.batches: list[AuditBatch] = []
        self._ids = itertools.count(1)

    def new_id(self) -> str:
        """Return the next id of a batch."""
        return f"bat_{next(self._ids)}"

    def take(self, collector: AuditCollector, now: float, *, is_last: bool = False) -> AuditBatch | None:
        """Take and confirm one batch."""
        batch = collector.take_batch(now, self.new_id, is_last=is_last)
        if batch is not None:
            self.batches.append(batch)
            collector.confirm()
        return batch

    def drain(self, collector: AuditCollector, now: float) -> None:
        """Take everything, as at the end."""
        while self.take(collector, now, is_last=True) is not None:
            pass

    @property
    def rows(self) -> int:
        """Events that were told."""
        return sum(len(batch.events) for batch in self.batches)

    @property
    def counted(self) -> Counter[AuditGap]:
        """Events that were only counted."""
        counted: Counter[AuditGap] = Counter()
        for batch in self.batches:
            for count in batch.unwritten:
                counted[count.gap] += count.count
        return counted


def test_ten_thousand_denials_in_ten_seconds() -> None:
    """SEC-11: at most burst + rate x 10 s rows, few rows of counts, and together exactly 10,000."""
    collector, authority = AuditCollector(LIMITS, now=0.0), Authority()
    for number in range(10_000):
        now = number / 1_000
        collector.note(event(number=number), now)
        if number % 500 == 499:
            authority.take(collector, now)
    authority.drain(collector, 10.0)
    assert authority.rows <= LIMITS.audit_denied_burst + 10 * LIMITS.audit_denied_per_s
    assert sum(len(batch.unwritten) for batch in authority.batches) <= 3
    assert set(authority.counted) == {AuditGap.RATIONED}
    assert authority.rows + authority.counted.total() == 10_000


def test_each_ration_is_its_own() -> None:
    """A flood of denials costs neither an allow nor an eviction its row."""
    collector = AuditCollector(LIMITS, now=0.0)
    gaps = [collector.note(event(number=number), 0.0) for number in range(LIMITS.audit_denied_burst + 1)]
    assert gaps == [None] * LIMITS.audit_denied_burst + [AuditGap.RATIONED]
    assert collector.note(ALLOWED, 0.0) is None
    assert collector.note(EVICTED, 0.0) is None
    assert collector.note(event(), 1 / LIMITS.audit_denied_per_s) is None


@pytest.mark.parametrize("is_by_count", [True, False])
def test_room_at_its_limit(is_by_count: bool) -> None:
    """What exactly fills it is kept, one more is counted and told when there is room again."""
    size = event().size_bytes
    if is_by_count:
        limits = attrs.evolve(LIMITS, audit_waiting_max=3)
    else:
        limits = attrs.evolve(LIMITS, audit_waiting_max_bytes=3 * size)
    collector, authority = AuditCollector(limits, now=0.0), Authority()
    assert [collector.note(event(), 0.0) for _ in range(4)] == [None] * 3 + [AuditGap.NO_ROOM]
    assert (collector.waiting, collector.waiting_bytes, collector.uncounted) == (3, 3 * size, 1)
    # A batch under way has not left memory.
    batch = collector.take_batch(0.0, authority.new_id)
    assert batch is not None
    assert collector.note(event(), 0.0) is AuditGap.NO_ROOM
    collector.confirm()
    assert (collector.waiting, collector.waiting_bytes) == (0, 0)
    assert collector.note(event(), 0.0) is None


def test_a_batch_stays_the_same_until_it_is_confirmed() -> None:
    """What comes meanwhile waits for the next one."""
    collector, authority = AuditCollector(LIMITS, now=0.0), Authority()
    collector.note(event(number=1), 0.0)
    first = collector.take_batch(0.0, authority.new_id)
    collector.note(event(number=2), 0.0)
    assert collector.take_batch(1.0, authority.new_id, is_last=True) is first
    assert collector.oldest_noted_at_ms == 1_001
    collector.confirm()
    assert collector.oldest_noted_at_ms == 1_002
    second = collector.take_batch(1.0, authority.new_id)
    assert first is not None
    assert second is not None
    assert (first.batch_id, second.batch_id) == ("bat_1", "bat_2")
    assert [e.connection_id for e in second.events] == ["con_2"]


def test_batches_are_bounded() -> None:
    """256 events, or 256 KiB if they are large, and at least one however large it is."""
    collector, authority = AuditCollector(LIMITS, now=0.0), Authority()
    for number in range(BATCH_EVENTS_MAX + 1):
        collector.note(event(number=number), 0.0)
    sizes = [len(batch.events) for batch in iter(lambda: authority.take(collector, 0.0), None)]
    assert sizes == [BATCH_EVENTS_MAX, 1]
    topics = {TopicName(f"app:org_{1:026d}:{'x' * 60}{number}"): number for number in range(300)}
    large = attrs.evolve(EVICTED, positions=positions_of(topics), topic_count=300)
    assert len(large.positions) == POSITIONS_MAX
    for _ in range(200):
        collector.note(large, 0.0)
    for batch in iter(lambda: authority.take(collector, 0.0), None):
        assert 1 <= len(batch.events) <= BATCH_MAX_BYTES // large.size_bytes


def test_counts_travel_once_in_a_while_and_at_the_end() -> None:
    """The first at once, the next ones together after the interval, or with the last words."""
    limits = attrs.evolve(LIMITS, audit_denied_burst=1, audit_denied_per_s=0.001)
    collector, authority = AuditCollector(limits, now=0.0), Authority()
    for _ in range(2):
        collector.note(event(), 0.0)
    batch = authority.take(collector, 0.0)
    assert batch is not None
    assert [count.count for count in batch.unwritten] == [1]
    for number in range(5):
        collector.note(event(number=number), 1.0)
    assert authority.take(collector, 9.9) is None
    assert collector.uncounted == 5
    batch = authority.take(collector, 10.0)
    assert batch is not None
    (count,) = batch.unwritten
    assert (count.action, count.reason, count.count, count.since_ms) == (
        AuditAction.SUBSCRIBE,
        "forbidden",
        5,
        1_000,
    )
    collector.note(event(), 10.1)
    assert authority.take(collector, 10.2) is None
    assert authority.take(collector, 10.2, is_last=True) is not None


def test_kinds_of_counts_are_bounded() -> None:
    """One count for each action, code and gap; a batch carries so many, the rest the next one."""
    limits = attrs.evolve(
        LIMITS,
        audit_denied_burst=1,
        audit_denied_per_s=0.001,
        audit_evicted_burst=1,
        audit_evicted_per_s=0.001,
    )
    collector, authority = AuditCollector(limits, now=0.0), Authority()
    kinds = [(action, reason) for action in AuditAction for reason in REGISTRY.values()]
    for action, reason in kinds * 2:
        collector.note(event(action, reason=reason), 0.0)
    authority.drain(collector, 0.0)
    counts = [count for batch in authority.batches for count in batch.unwritten]
    assert len(counts) <= len(kinds)
    assert all(len(batch.unwritten) <= BATCH_COUNTS_MAX for batch in authority.batches)
    assert authority.rows + authority.counted.total() == 2 * len(kinds)


def test_a_refused_batch_becomes_counts() -> None:
    """Its events are counted as refused, what it counted goes on waiting, and the next batch can be sent."""
    limits = attrs.evolve(LIMITS, audit_denied_burst=2, audit_denied_per_s=0.001)
    collector, authority = AuditCollector(limits, now=0.0), Authority()
    for _ in range(5):
        collector.note(event(), 0.0)
    assert collector.take_batch(0.0, authority.new_id) is not None
    assert collector.refuse()
    assert (collector.waiting, collector.waiting_bytes, collector.uncounted) == (0, 0, 5)
    assert collector.take_batch(0.0, authority.new_id, is_last=True) is not None
    # Only counts were in it: the next one would be the same.
    assert not collector.refuse()
    authority.drain(collector, 0.0)
    assert authority.counted == {AuditGap.RATIONED: 3, AuditGap.REFUSED: 2}


def test_a_subject_keeps_no_grants_alive() -> None:
    """Six short texts of the claims; a token of 256 topics does not wait with each of its events."""
    claims = claims_for(TOPIC)
    subject = AuditSubject.of(claims)
    assert (subject.user_id, subject.jti, subject.principal_kind) == (
        claims.user_id,
        claims.jti,
        claims.principal_kind,
    )
    assert not hasattr(subject, "grants")


STEPS = st.lists(
    st.one_of(
        st.sampled_from(
            [event(), ALLOWED, EVICTED, event(AuditAction.HELLO, reason=reason_codes.TOKEN_INVALID)]
        ),
        st.sampled_from(["take", "confirm", "refuse", "wait"]),
    ),
    max_size=120,
)


@given(steps=STEPS)
def test_whatever_happens_it_adds_up(steps: list[AuditEvent | str]) -> None:
    """The invariants of the module: told, counted and waiting make what was noted; room is never exceeded."""
    limits = attrs.evolve(
        LIMITS, audit_denied_burst=5, audit_allowed_burst=5, audit_evicted_burst=5, audit_waiting_max=8
    )
    collector, authority = AuditCollector(limits, now=0.0), Authority()
    now, noted, told, is_under_way = 0.0, 0, 0, False
    for step in steps:
        match step:
            case AuditEvent():
                collector.note(step, now)
                noted += 1
            case "take":
                is_under_way = collector.take_batch(now, authority.new_id) is not None
            case "confirm" if is_under_way:
                batch = collector.take_batch(now, authority.new_id)
                assert batch is not None
                told += len(batch.events) + sum(count.count for count in batch.unwritten)
                collector.confirm()
                is_under_way = False
            case "refuse" if is_under_way:
                collector.refuse()
                is_under_way = False
            case _:
                now += 3.0
        assert collector.waiting <= limits.audit_waiting_max
        assert collector.waiting_bytes <= limits.audit_waiting_max_bytes
        assert told + collector.waiting + collector.uncounted == noted
    authority.drain(collector, now)
    assert told + authority.rows + authority.counted.total() == noted


@pytest.mark.parametrize(
    ("action", "reason", "kind"),
    [
        (AuditAction.SUBSCRIBE, None, "allowed"),
        (AuditAction.HELLO, reason_codes.TOKEN_INVALID, "denied"),
        (AuditAction.EVICT_TOPIC, reason_codes.FORBIDDEN, "evicted"),
    ],
)
def test_a_ration_at_its_limit_and_after_a_reload(
    action: AuditAction, reason: reason_codes.ReasonCode | None, kind: str
) -> None:
    """audit_allowed_burst at once, one more is counted; audit_allowed_per_s later; the others likewise, when reloaded."""
    limits = NodeLimits(**{f"audit_{kind}_burst": 2, f"audit_{kind}_per_s": 1.0})  # type: ignore[arg-type]
    collector = AuditCollector(limits, now=0.0)
    event = AuditEvent(action, reason, "", 1, "con_1", "con_1")
    assert [collector.note(event, 0.0) for _ in range(3)] == [None, None, AuditGap.RATIONED]
    assert [collector.note(event, 1.0) for _ in range(2)] == [None, AuditGap.RATIONED]
    take_over(limits, NodeLimits(**{f"audit_{kind}_burst": 2, f"audit_{kind}_per_s": 10.0}))  # type: ignore[arg-type]
    assert collector.note(event, 1.0) is AuditGap.RATIONED
    assert [collector.note(event, 1.25) for _ in range(3)] == [None, None, AuditGap.RATIONED]
