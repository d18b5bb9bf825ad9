"""What nodes and the runtime report for the audit log, and what operators may ask of it. Pure.

A node is trusted with what it saw, not with the log: every text is bounded, every code is one of the registry,
topics are topics. Nothing of a refused batch is written. Times are Unix milliseconds.
"""

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

import attrs

from control.core.audit import Action, DetailValue
from control.core.refusals import invalid_argument
from khala_contracts.reason_codes import REGISTRY
from khala_contracts.sync_claims import PrincipalKind
from khala_contracts.topics import TopicInvalid, parse_topic

EVENTS_MAX: Final = 256
UNWRITTEN_MAX: Final = 256
POSITIONS_MAX: Final = 64
ID_MAX_BYTES: Final = 128
COUNT_MAX: Final = 1 << 53
PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 500
# What a runtime calls itself where a node says its id.
RUNTIME_ID: Final = "runtime"
_CAUSE: Final = re.compile(r"[a-z0-9_.]{0,64}", re.ASCII)
_LIMIT: Final = re.compile(r"[a-z0-9_.]{1,64}", re.ASCII)
_TIME_MAX_MS: Final = 1 << 45


class NodeAction(Enum):
    """What a node decided or did."""

    UPGRADE = "upgrade"
    HELLO = "hello"
    RENEW = "renew"
    SUBSCRIBE = "subscribe"
    EVICT_CONNECTION = "evict_connection"
    EVICT_TOPIC = "evict_topic"
    LIMIT = "limit"


class AuditGap(Enum):
    """Why events were counted instead of written."""

    RATIONED = "rationed"
    NO_ROOM = "no_room"
    REFUSED = "refused"


ACTIONS: Final[Mapping[NodeAction, Action]] = {
    NodeAction.UPGRADE: Action.CONNECTION_UPGRADE,
    NodeAction.HELLO: Action.CONNECTION_HELLO,
    NodeAction.RENEW: Action.CONNECTION_RENEW,
    NodeAction.SUBSCRIBE: Action.SUBSCRIPTION_OPEN,
    NodeAction.EVICT_CONNECTION: Action.CONNECTION_EVICT,
    NodeAction.EVICT_TOPIC: Action.SUBSCRIPTION_EVICT,
    NodeAction.LIMIT: Action.LIMIT_EXCEED,
}
_EVICTIONS: Final = frozenset({NodeAction.EVICT_CONNECTION, NodeAction.EVICT_TOPIC})


@attrs.frozen
class NodeEvent:
    """One decision of a node. Invariant: only a subscribe has no reason, and then it was allowed."""

    action: NodeAction
    reason: str
    cause: str
    noted_at_ms: int
    connection_id: str
    request_id: str
    user_id: str
    session_id: str
    device_id: str
    principal_kind: PrincipalKind | None
    principal_id: str
    jti: str
    topic: str
    # Topic and the last seq that was put on the socket.
    positions: tuple[tuple[str, int], ...]
    topic_count: int
    # Of an exceeded limit: its name in the configuration, and the value that was in force.
    limit: str = ""
    limit_value: str = ""


@attrs.frozen
class Unwritten:
    """Events of one kind that were counted and not written."""

    action: NodeAction
    reason: str
    gap: AuditGap
    count: int
    since_ms: int


@attrs.frozen
class NodeBatch:
    """What a node sends at once. ``(node_id, batch_id)`` is written once."""

    node_id: str
    batch_id: str
    events: tuple[NodeEvent, ...]
    unwritten: tuple[Unwritten, ...]


@attrs.frozen
class NodeRow:
    """A row of the log that a node caused."""

    action: Action
    outcome: str
    reason: str
    request_id: str
    principal_kind: str | None = None
    principal_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    device_id: str | None = None
    key_id: str | None = None
    jti: str | None = None
    connection_id: str | None = None
    detail: Mapping[str, DetailValue | Mapping[str, int]] = attrs.field(factory=dict)


def rows_of(batch: NodeBatch) -> tuple[NodeRow, ...]:
    """Return the rows of a batch, in its order.

    Raises:
        Refused: invalid_argument with the field; nothing of the batch may be written.
    """
    _check_id(batch.node_id, "node_id")
    _check_id(batch.batch_id, "batch_id")
    for field, parts, maximum in (
        ("events", batch.events, EVENTS_MAX),
        ("unwritten", batch.unwritten, UNWRITTEN_MAX),
    ):
        if len(parts) > maximum:
            raise invalid_argument(field, f"at most {maximum}")
    if not batch.events and not batch.unwritten:
        raise invalid_argument("events", "at least one, or something unwritten")
    return (
        *(_event_row(event, f"events[{place}]") for place, event in enumerate(batch.events)),
        *(
            _unwritten_row(unwritten, f"unwritten[{place}]", batch_id=batch.batch_id)
            for place, unwritten in enumerate(batch.unwritten)
        ),
    )


def check_node_batch(batch: NodeBatch) -> None:
    """Check that a batch of a node is not in a runtime's name.

    Raises:
        Refused: invalid_argument with the field.
    """
    if batch.node_id == RUNTIME_ID:
        raise invalid_argument("node_id", "the id of a node")


def check_runtime_batch(batch: NodeBatch) -> None:
    """Check that a batch of a runtime is in its own name, and says what it can know: limits that its callers exceeded.

    Raises:
        Refused: invalid_argument with the field.
    """
    if batch.node_id != RUNTIME_ID:
        raise invalid_argument("node_id", RUNTIME_ID)
    noted = [("events", event.action) for event in batch.events]
    counted = [("unwritten", unwritten.action) for unwritten in batch.unwritten]
    for field, action in (*noted, *counted):
        if action is not NodeAction.LIMIT:
            raise invalid_argument(f"{field}.action", "LIMIT, of a runtime")


def _event_row(event: NodeEvent, path: str) -> NodeRow:
    _check_reason(event.action, event.reason, path)
    if _CAUSE.fullmatch(event.cause) is None:
        raise invalid_argument(f"{path}.cause", "at most 64 of a-z 0-9 _ .")
    if event.cause and not event.reason:
        raise invalid_argument(f"{path}.cause", "of a refusal or an end only")
    _check_time(event.noted_at_ms, f"{path}.noted_at")
    for name in ("connection_id", "request_id"):
        _check_id(getattr(event, name), f"{path}.{name}")
    for name in ("user_id", "session_id", "device_id", "principal_id", "jti"):
        _check_id(getattr(event, name), f"{path}.{name}", may_be_empty=True)
    is_key = event.principal_kind in (PrincipalKind.SERVICE, PrincipalKind.DERIVED)
    return NodeRow(
        action=ACTIONS[event.action],
        outcome=_outcome(event),
        reason=f"{event.reason}:{event.cause}" if event.cause else event.reason,
        request_id=event.request_id,
        principal_kind=event.principal_kind.value if event.principal_kind else None,
        principal_id=event.principal_id or None,
        user_id=event.user_id or None,
        session_id=event.session_id or None,
        device_id=event.device_id or None,
        key_id=event.principal_id if is_key and event.principal_id else None,
        jti=event.jti or None,
        connection_id=event.connection_id,
        detail=_detail(event, path),
    )


def _outcome(event: NodeEvent) -> str:
    if event.action in _EVICTIONS:
        return "ended"
    return "refused" if event.reason else "done"


def _detail(event: NodeEvent, path: str) -> dict[str, DetailValue | Mapping[str, int]]:
    detail: dict[str, DetailValue | Mapping[str, int]] = {"noted_at": event.noted_at_ms}
    if event.topic:
        detail["topic"] = _topic(event.topic, f"{path}.topic")
    if event.action is NodeAction.LIMIT:
        for name in ("limit", "limit_value"):
            if _LIMIT.fullmatch(getattr(event, name)) is None:
                raise invalid_argument(f"{path}.{name}", "1..64 of a-z 0-9 _ .")
        detail["limit"], detail["value"] = event.limit, event.limit_value
    elif event.limit or event.limit_value:
        raise invalid_argument(f"{path}.limit", "of exceeded limits only")
    if event.action in _EVICTIONS:
        if len(event.positions) > min(POSITIONS_MAX, event.topic_count):
            raise invalid_argument(
                f"{path}.positions", f"at most {POSITIONS_MAX}, and no more than topic_count"
            )
        detail["topic_count"] = event.topic_count
        detail["last_seqs"] = {
            _topic(topic, f"{path}.positions[{place}].topic"): seq
            for place, (topic, seq) in enumerate(event.positions)
        }
    elif event.positions or event.topic_count:
        raise invalid_argument(f"{path}.positions", "of evictions only")
    return detail


def _unwritten_row(unwritten: Unwritten, path: str, *, batch_id: str) -> NodeRow:
    _check_reason(unwritten.action, unwritten.reason, path)
    _check_time(unwritten.since_ms, f"{path}.since")
    if not 1 <= unwritten.count <= COUNT_MAX:
        raise invalid_argument(f"{path}.count", f"1..{COUNT_MAX}")
    return NodeRow(
        action=Action.NODE_UNWRITTEN,
        outcome="done",
        reason="",
        # They had many request ids; this is whose batch said it.
        request_id=batch_id,
        detail={
            "action": ACTIONS[unwritten.action].value,
            "reason": unwritten.reason,
            "gap": unwritten.gap.value,
            "count": unwritten.count,
            "since": unwritten.since_ms,
        },
    )


def _check_reason(action: NodeAction, reason: str, path: str) -> None:
    if reason not in REGISTRY and not (reason == "" and action is NodeAction.SUBSCRIBE):
        raise invalid_argument(f"{path}.reason", "a reason code; empty for an allowed subscribe only")


def _check_id(text: str, path: str, *, may_be_empty: bool = False) -> None:
    minimum = 0 if may_be_empty else 1
    if not (minimum <= len(text) <= ID_MAX_BYTES and text.isascii() and (not text or text.isprintable())):
        raise invalid_argument(path, f"{minimum}..{ID_MAX_BYTES} printable ASCII characters")


def _check_time(milliseconds: int, path: str) -> None:
    if not 0 < milliseconds < _TIME_MAX_MS:
        raise invalid_argument(path, "Unix milliseconds")


def _topic(text: str, path: str) -> str:
    try:
        return parse_topic(text).name
    except TopicInvalid:
        raise invalid_argument(path, "a topic of the registry") from None


@attrs.frozen
class AuditQuery:
    """Which rows an operator asks for; None: any. Times are Unix milliseconds, ``from <= t < before``."""

    after: int = 0
    connection_id: str | None = None
    request_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    action: str | None = None
    from_ms: int | None = None
    before_ms: int | None = None
    limit: int = PAGE_DEFAULT


def check_query(query: AuditQuery) -> None:
    """Check what an operator asks for.

    Raises:
        Refused: invalid_argument with the parameter.
    """
    for name in ("connection_id", "request_id", "session_id", "user_id"):
        value: str | None = getattr(query, name)
        if value is not None:
            _check_id(value, name)
    if query.action is not None and query.action not in {action.value for action in Action}:
        raise invalid_argument("action", "an action of the log")
    for name in ("from_ms", "before_ms"):
        milliseconds: int | None = getattr(query, name)
        if milliseconds is not None:
            _check_time(milliseconds, name.removesuffix("_ms"))
    if not 1 <= query.limit <= PAGE_MAX:
        raise invalid_argument("limit", f"1..{PAGE_MAX}")


@attrs.frozen
class AuditRecord:
    """A row as it is read."""

    audit_id: int
    occurred_at_ms: int
    action: str
    outcome: str
    reason: str
    request_id: str
    principal_kind: str
    principal_id: str
    user_id: str
    session_id: str
    device_id: str
    key_id: str
    org_id: str
    jti: str
    connection_id: str
    node_id: str
    detail: Mapping[str, object]


@attrs.frozen
class AuditPage:
    """Rows in the order of their ids, and whether there is more."""

    rows: Sequence[AuditRecord]
    next_after: int
    has_more: bool
