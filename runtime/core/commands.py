"""What a caller wants, as values: the input of the decisions.

Pure. A request has been authenticated, authorised and validated before it becomes one of these; what
is left to decide depends on the locked state only (idempotency, transition, position, rate).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from khala_contracts.topics import TopicName
    from runtime.core.events import EventColumns
    from runtime.core.run_state_machine import RunState

__all__ = [
    "AppendEvents",
    "Command",
    "CreateRun",
    "IdempotencyKey",
    "Request",
    "RunFacts",
    "Submission",
    "TopicEvents",
    "TopicTarget",
    "TransitionRun",
]


@attrs.frozen
class IdempotencyKey:
    """Identity of a request across retries.

    Attributes:
        scope: Principal and route, or ``~internal``: keys of different scopes never meet.
        key: The caller's key, or one of ours for a request that came without.
        fingerprint: SHA-256 of the canonical request.
        lifetime_s: How long the answer is kept.
    """

    scope: str
    key: str
    fingerprint: bytes
    lifetime_s: int


@attrs.frozen
class RunFacts:
    """What is said about a run once; only the owner may change, by a transfer."""

    run_id: str
    topic: TopicName
    owner_user_id: str
    org_id: str | None
    # Unique per owner; "" if the client gave none.
    name: str
    agent: str
    source: str
    attributes: Mapping[str, str]


@attrs.frozen
class TopicTarget:
    """A topic to be written, with what its head row says once it exists."""

    topic: TopicName
    topic_class: str
    owner_user_id: str | None
    org_id: str | None
    # The run whose events these are; it must exist and not have ended.
    run_id: str | None


@attrs.frozen
class TopicEvents:
    """Events for one topic."""

    target: TopicTarget
    events: EventColumns


@attrs.frozen
class AppendEvents:
    """Append to one topic or, atomically, to several distinct ones.

    Attributes:
        parts: At least one; the first topic decides which writer takes the request.
        expected_seq: If not None, the head of the first topic must be exactly this.
    """

    parts: tuple[TopicEvents, ...]
    expected_seq: int | None = None


@attrs.frozen
class CreateRun:
    """Make a running run whose first event is run.started."""

    facts: RunFacts
    started: EventColumns


@attrs.frozen
class TransitionRun:
    """Move a run to another state; writes run.state_changed or run.finished."""

    facts: RunFacts
    created_at_us: int
    event_id: str
    to_state: RunState
    reason: str
    exit_status: int | None
    result: str


Command = AppendEvents | CreateRun | TransitionRun


@attrs.frozen
class Request:
    """One atomic command of one caller.

    Attributes:
        actor: Principal that is written beside the events.
        request_id: Correlation id that follows the command to its events.
        key: Every request has one; see IdempotencyKey.
    """

    actor: str
    request_id: str
    key: IdempotencyKey
    command: Command
    event_count: int = attrs.field(init=False)
    size_bytes: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        count, size_bytes = _measure(self.command)
        object.__setattr__(self, "event_count", count)
        object.__setattr__(self, "size_bytes", size_bytes)

    @property
    def first_topic(self) -> TopicName:
        """The topic that decides which writer takes the request."""
        return self.topics[0]

    @property
    def topics(self) -> tuple[TopicName, ...]:
        """Every topic that the request may add to; at least one."""
        match self.command:
            case AppendEvents(parts=parts):
                return tuple(part.target.topic for part in parts)
            case CreateRun(facts=facts) | TransitionRun(facts=facts):
                return (facts.topic,)


def _measure(command: Command) -> tuple[int, int]:
    """Return how many events and payload bytes a command brings."""
    match command:
        case AppendEvents(parts=parts):
            events = [part.events for part in parts]
            return sum(map(len, events)), sum(columns.size_bytes for columns in events)
        case CreateRun(started=started):
            return 1, started.size_bytes
        case TransitionRun(reason=reason, result=result):
            return 1, len(reason) + len(result)


@attrs.frozen
class Submission:
    """Requests of one caller that are decided in order, up to the first that is refused.

    Usually one; the events of a stream that came with keys of their own are several. They share a
    first topic and are never spread over two transactions' worth of other callers' requests.
    """

    requests: tuple[Request, ...]
    event_count: int = attrs.field(init=False)
    size_bytes: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        if not self.requests:
            message = "a submission has at least one request"
            raise ValueError(message)
        # A new run is inserted while the locks are taken: its request must not be skipped afterwards.
        if len(self.requests) > 1 and not all(isinstance(r.command, AppendEvents) for r in self.requests):
            message = "a submission of several requests has appends only"
            raise ValueError(message)
        object.__setattr__(self, "event_count", sum(request.event_count for request in self.requests))
        object.__setattr__(self, "size_bytes", sum(request.size_bytes for request in self.requests))
