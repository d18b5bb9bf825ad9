"""Values that tests of the runtime share: requests, principals, ids that can be told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from fanout_drivers.base import RECORD_ENTRIES_MAX_BYTES, DriverCounters, DriverGuarantees
from khala_contracts import kinds
from khala_contracts.fanout_records import RecordSigner, RecordVerifier
from khala_contracts.ids import format_id
from khala_contracts.sync_claims import PrincipalKind
from khala_contracts.topics import TopicName, format_run_events
from khala_service.errors import Unavailable
from runtime.core.commands import (
    AppendEvents,
    CreateRun,
    IdempotencyKey,
    Request,
    RunFacts,
    Submission,
    TopicEvents,
    TransitionRun,
)
from runtime.core.decisions import target_of
from runtime.core.events import EventColumns
from runtime.core.fingerprint import fingerprint_events, fingerprint_parts
from runtime.core.principals import Principal, Right

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

    from fanout_drivers.base import FanoutSubscriber
    from khala_contracts.fanout_records import FanoutRecord
    from runtime.core.run_state_machine import RunState

FAR_FUTURE_S = 4e9


def make_id(prefix: str, number: int) -> str:
    """Return the id with this number; ids ascend with their numbers."""
    return format_id(prefix, number.to_bytes(16, "big"))


USER = make_id("usr", 1)
OTHER_USER = make_id("usr", 2)
ORG = make_id("org", 1)
KEY = make_id("key", 1)
LINEAGE = make_id("lin", 1)


@attrs.define
class CountingIds:
    """Ids in order."""

    count: int = 0

    def new(self, prefix: str) -> str:
        self.count += 1
        return make_id(prefix, self.count)


@attrs.define
class FixedClock:
    """A wall clock that stands still."""

    at: float = 1_800_000_000.0

    def now(self) -> float:
        return self.at


def person(user_id: str = USER, org_roles: Mapping[str, str] | None = None) -> Principal:
    """Return a signed-in user."""
    return Principal(
        PrincipalKind.PERSON, user_id, user_id, org_roles or {}, frozenset(), (), "dev_00000000", FAR_FUTURE_S
    )


def service_key(
    *rights: Right, patterns: tuple[str, ...] = (), user_id: str = USER, org_id: str = ORG
) -> Principal:
    """Return a service key of an org."""
    return Principal(
        PrincipalKind.SERVICE, KEY, user_id, {org_id: "member"}, frozenset(rights), patterns, "", FAR_FUTURE_S
    )


def facts(number: int = 1, *, name: str = "", owner: str = USER, org_id: str | None = None) -> RunFacts:
    """Return a run that does not exist yet."""
    run_id = make_id("run", number)
    return RunFacts(run_id, format_run_events(run_id), owner, org_id, name, "agent", "source", {"k": "v"})


def thoughts(*texts: str, ids: CountingIds | None = None) -> EventColumns:
    """Return one thought for each text."""
    source = ids or _IDS
    return EventColumns(
        event_ids=tuple(source.new("evt") for _ in texts),
        kinds=("thought",) * len(texts),
        payloads=tuple(kinds.encode_payload("run_events", "thought", {"text": text}) for text in texts),
        schema_versions=(1,) * len(texts),
    )


_IDS = CountingIds(10_000)


def key(name: str = "", fingerprint: bytes = b"f", *, lifetime_s: int = 3_600) -> IdempotencyKey:
    """Return a key of the test's principal; "" makes one that nothing else has."""
    return IdempotencyKey("scope", name or _IDS.new("req"), fingerprint, lifetime_s)


def create(run: RunFacts, idempotency_key: IdempotencyKey | None = None, *, actor: str = USER) -> Request:
    """Return the request that makes a run."""
    started = EventColumns((_IDS.new("evt"),), ("run.started",), (b"",), (1,))
    return Request(actor, "request", idempotency_key or key(), CreateRun(run, started))


def append(
    run: RunFacts,
    events: EventColumns,
    idempotency_key: str = "",
    *,
    expected_seq: int | None = None,
    actor: str = USER,
) -> Request:
    """Return the request that appends to a run."""
    command = AppendEvents((TopicEvents(target_of(run), events),), expected_seq)
    identity = key(idempotency_key, fingerprint_events(events, expected_seq))
    return Request(actor, "request", identity, command)


def append_to_many(runs: list[RunFacts], text: str) -> Request:
    """Return the request that appends one event to each of several runs, atomically."""
    parts = tuple(TopicEvents(target_of(run), thoughts(text)) for run in runs)
    return Request(USER, "request", key(), AppendEvents(parts))


def transition(run: RunFacts, to_state: RunState, idempotency_key: str = "") -> Request:
    """Return the request that moves a run."""
    command = TransitionRun(run, 0, _IDS.new("evt"), to_state, "because", None, "")
    identity = key(idempotency_key, fingerprint_parts("transition", [to_state.value]))
    return Request(USER, "request", identity, command)


def alone(*requests: Request) -> list[Submission]:
    """Return each request as a submission of its own."""
    return [Submission((request,)) for request in requests]


def topic_of(number: int) -> TopicName:
    """Return the topic of a run by its number."""
    return format_run_events(make_id("run", number))


@attrs.define
class CountedMetrics:
    """What the appender and the relay reported."""

    batches: list[tuple[int, int, int]] = attrs.field(factory=list)
    refusals: list[str] = attrs.field(factory=list)
    retries: list[str] = attrs.field(factory=list)
    dropped: int = 0
    # Whether a copy, for each record that the driver took.
    publications: list[bool] = attrs.field(factory=list)
    publish_failures: list[str] = attrs.field(factory=list)
    poisons: int = 0
    restarts: list[str] = attrs.field(factory=list)

    def committed(self, *, requests: int, events: int, duplicates: int, duration_s: float) -> None:
        assert duration_s >= 0
        self.batches.append((requests, events, duplicates))

    def refused(self, reason: str) -> None:
        self.refusals.append(reason)

    def retried(self, reason: str) -> None:
        self.retries.append(reason)

    def copies_dropped(self, count: int) -> None:
        self.dropped += count

    def published(self, *, is_copy: bool, duration_s: float) -> None:
        assert duration_s >= 0
        self.publications.append(is_copy)

    def publish_failed(self, reason: str) -> None:
        self.publish_failures.append(reason)

    def poisoned(self) -> None:
        self.poisons += 1

    def task_restarted(self, kind: str) -> None:
        self.restarts.append(kind)


LOSSLESS = DriverGuarantees(may_lose=False, may_duplicate=False, may_reorder=False, crosses_processes=False)


@attrs.define
class RecordingDriver:
    """A fan-out driver that keeps what is published; may be slow, stuck or broken."""

    name: str = "recording"
    guarantees: DriverGuarantees = LOSSLESS
    counters: DriverCounters = attrs.field(factory=DriverCounters)
    published: list[tuple[TopicName, bytes]] = attrs.field(factory=list)
    # While set, publishing waits for it.
    gate: trio.Event | None = None
    failures: int = 0
    entries_max_bytes: int = RECORD_ENTRIES_MAX_BYTES
    is_healthy: bool = True
    # What asking for its health raises.
    health_error: Exception | None = None
    # Publishing to this topic meets a bug of the driver.
    poisonous: str = ""

    async def publish(self, topic: TopicName, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if topic == self.poisonous:
            message = "a bug of the driver"
            raise LookupError(message)
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise Unavailable("driver_away")
        self.published.append((topic, data))

    def open_subscriber(self) -> AbstractAsyncContextManager[FanoutSubscriber]:
        raise NotImplementedError

    async def check_health(self) -> bool:
        await trio.lowlevel.checkpoint()
        if self.health_error is not None:
            raise self.health_error
        return self.is_healthy

    def records(self) -> list[FanoutRecord]:
        """Return what was published, opened."""
        return [VERIFIER.open_untrusted(data) for _, data in self.published]


FANOUT_KEY = bytes(range(32))
SIGNER = RecordSigner("test", FANOUT_KEY)
VERIFIER = RecordVerifier({"test": FANOUT_KEY})
