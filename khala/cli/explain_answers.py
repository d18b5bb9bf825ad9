"""What runtime and nodes answer at ``/internal/v1/explain``, as values. Pure.

A newer server may say more, an older one less: what is missing is None, and what is unknown is shown
as it came. Times are Unix microseconds of whoever answered.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Bounds",
    "NodeAnswer",
    "RuntimeAnswer",
    "SubscriptionAnswer",
    "read_node_answer",
    "read_runtime_answer",
]


@attrs.frozen
class Bounds:
    """Something happened not before ``first_us`` and not after ``last_us``."""

    first_us: int
    last_us: int


@attrs.frozen
class RuntimeAnswer:
    """The commit and the hint. ``committed_at_us`` is None if nothing is committed at this position."""

    head_seq: int
    floor_seq: int
    floor_reason: str
    committed_at_us: int | None = None
    kind: str = ""
    event_id: str = ""
    request_id: str = ""
    published_at_us: int | None = None
    driver: str = ""
    published_as: str = ""


@attrs.frozen
class SubscriptionAnswer:
    """What became of the frame on one subscription; see khala/core/explanation.py for the words."""

    connection_id: str
    user_id: str
    device_id: str
    started_at_us: int
    start_seq: int
    position: int
    sent: float
    delivery: str
    path: str
    put_on_connection: Bounds | None
    mode: str = ""
    backlogged_since_us: int | None = None
    ended_at_us: int | None = None
    ended_because: str = ""
    closed_with: str = ""
    seen_head_seq: int | None = None
    seen_floor_seq: int | None = None


@attrs.frozen
class NodeAnswer:
    """What one node knows of the frame."""

    node_id: str
    started_at_us: int
    arrival: str
    opened_at_us: int | None
    opened_head_seq: int
    head_seq: int
    announced: Bounds | None
    checked: Bounds | None
    appended: Bounds | None
    is_healed: bool
    fanned_out: Bounds | None
    subscriptions: tuple[SubscriptionAnswer, ...]


def read_runtime_answer(document: Mapping[str, object]) -> RuntimeAnswer:
    """Read the runtime's answer.

    Raises:
        ValueError: It is none; names the member.
    """
    event, seen, hint = (_optional(document, name) for name in ("event", "observation", "hint"))
    answer = RuntimeAnswer(head_seq=0, floor_seq=1, floor_reason="")
    if seen is not None:
        answer = RuntimeAnswer(
            head_seq=_number(seen, "head_seq"),
            floor_seq=_number(seen, "floor_seq"),
            floor_reason=_text(seen, "floor_reason"),
        )
    if event is not None:
        answer = attrs.evolve(
            answer,
            committed_at_us=_number(event, "committed_at_us"),
            kind=_text(event, "kind"),
            event_id=_text(event, "event_id"),
            request_id=_text(event, "request_id"),
        )
    if hint is not None:
        answer = attrs.evolve(
            answer,
            published_at_us=_number(hint, "published_at_us"),
            driver=_text(hint, "driver"),
            published_as=_text(hint, "kind"),
        )
    return answer


def read_node_answer(document: Mapping[str, object]) -> NodeAnswer:
    """Read a node's answer. Raises as ``read_runtime_answer``."""
    arrival = _optional(document, "arrival") or {}
    listed = document.get("subscriptions")
    subscriptions = listed if isinstance(listed, list) else []
    return NodeAnswer(
        node_id=_text(document, "node_id"),
        started_at_us=_number(document, "started_at_us"),
        arrival=_text(arrival, "state"),
        opened_at_us=_optional_number(arrival, "opened_at_us"),
        opened_head_seq=_number(arrival, "opened_head_seq"),
        head_seq=_number(arrival, "head_seq"),
        announced=_bounds(arrival, "announced"),
        checked=_bounds(arrival, "checked"),
        appended=_bounds(arrival, "appended"),
        is_healed=arrival.get("is_healed") is True,
        fanned_out=_bounds(arrival, "fanned_out"),
        subscriptions=tuple(_subscription(each) for each in subscriptions if isinstance(each, dict)),
    )


def _subscription(record: Mapping[str, object]) -> SubscriptionAnswer:
    running = _optional(record, "running") or {}
    ended = _optional(record, "ended") or {}
    sent = record.get("sent")
    return SubscriptionAnswer(
        connection_id=_text(record, "connection_id"),
        user_id=_text(record, "user_id"),
        device_id=_text(record, "device_id"),
        started_at_us=_number(record, "started_at_us"),
        start_seq=_number(record, "start_seq"),
        position=_number(record, "position"),
        sent=float(sent) if isinstance(sent, int | float) else 0.0,
        delivery=_text(record, "delivery"),
        path=_text(record, "path"),
        put_on_connection=_bounds(record, "put_on_connection"),
        mode=_text(running, "mode"),
        backlogged_since_us=_optional_number(running, "backlogged_since_us"),
        ended_at_us=_optional_number(ended, "at_us"),
        ended_because=_text(ended, "because"),
        closed_with=_text(ended, "closed_with"),
        seen_head_seq=_optional_number(ended, "head_seq"),
        seen_floor_seq=_optional_number(ended, "floor_seq"),
    )


def _optional(record: Mapping[str, object], name: str) -> Mapping[str, object] | None:
    value = record.get(name)
    return value if isinstance(value, dict) else None


def _text(record: Mapping[str, object], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""


def _optional_number(record: Mapping[str, object], name: str) -> int | None:
    value = record.get(name)
    if value is None:
        return None
    with suppress(ValueError):
        if isinstance(value, int | str) and not isinstance(value, bool):
            return int(value)
    message = f"{name} is not a number"
    raise ValueError(message)


def _number(record: Mapping[str, object], name: str) -> int:
    value = _optional_number(record, name)
    if value is None:
        message = f"{name} is missing"
        raise ValueError(message)
    return value


def _bounds(record: Mapping[str, object], name: str) -> Bounds | None:
    value = _optional(record, name)
    return Bounds(_number(value, "first_us"), _number(value, "last_us")) if value is not None else None
