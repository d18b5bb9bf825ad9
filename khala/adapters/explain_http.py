"""``GET /internal/v1/explain?topic=&seq=`` on the node's admin port: what this node knows of a frame.

For operators (admin token): it names users and connections. Answers JSON; 64-bit integers are strings
there, times are Unix microseconds of this node's clock, a time that is not exact is a pair of bounds.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import trio
from quart import request

from khala.actors.explainer import explain_frame
from khala_contracts import reason_codes
from khala_contracts.frames import SEQ_MAX
from khala_contracts.topics import TopicInvalid, parse_topic
from khala_service.http_problems import HttpProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from quart_trio import QuartTrio

    from khala.actors.registry import TopicRegistry
    from khala.core.explanation import NodeExplanation, SubscriptionFacts, TopicFacts
    from khala.core.seq_times import Passed
    from khala.ports import Clock
    from khala_service.admin_routes import AdminToken

__all__ = ["EXPLAIN_ROUTE", "add_explain_route", "explanation_record"]

EXPLAIN_ROUTE: Final = "/internal/v1/explain"
_SEQ: Final = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)


def add_explain_route(
    app: QuartTrio, admin: AdminToken, *, node_id: str, topics: TopicRegistry, clock: Clock
) -> None:
    """Register the route; for whoever presents the admin token."""

    @app.get(EXPLAIN_ROUTE)
    async def explain() -> dict[str, object]:
        admin.require()
        try:
            topic = parse_topic(request.args.get("topic", "")).name
        except TopicInvalid as error:
            raise HttpProblem(reason_codes.TOPIC_INVALID, {"problem": error.detail}) from error
        text = request.args.get("seq", "")
        if not _SEQ.fullmatch(text) or int(text) > SEQ_MAX:
            raise HttpProblem(reason_codes.INVALID_ARGUMENT, {"field": "seq"})
        # The two clocks are read together, so every time of one answer is moved by the same amount.
        offset = clock.now() - trio.current_time()
        return {
            "node_id": node_id,
            "now_us": _us(clock.now()),
            "topic": topic,
            "seq": text,
            **explanation_record(
                explain_frame(topics, topic, int(text)), to_wall=lambda at: _us(at + offset)
            ),
        }


def explanation_record(explanation: NodeExplanation, *, to_wall: Callable[[float], int]) -> dict[str, object]:
    """Return an explanation as JSON values; ``to_wall`` turns a monotonic time into Unix microseconds."""
    return {
        "started_at_us": to_wall(explanation.started_at),
        "arrival": _topic_record(explanation.topic, to_wall),
        "subscriptions": [_subscription_record(facts, to_wall) for facts in explanation.subscriptions],
    }


def _topic_record(facts: TopicFacts, to_wall: Callable[[float], int]) -> dict[str, object]:
    return {
        "state": facts.arrival.value,
        "is_live": facts.is_live,
        "opened_at_us": _optional(facts.opened_at, to_wall),
        "opened_head_seq": str(facts.opened_head_seq),
        "head_seq": str(facts.head_seq),
        "announced": _bounds(facts.announced, to_wall),
        "published": _bounds(facts.published, _us),
        "checked": _bounds(facts.checked, to_wall),
        "appended": _bounds(facts.appended, to_wall),
        "is_healed": facts.is_healed,
        "fanned_out": _bounds(facts.fanned_out, to_wall),
    }


def _subscription_record(facts: SubscriptionFacts, to_wall: Callable[[float], int]) -> dict[str, object]:
    note, standing = facts.note, facts.standing
    record: dict[str, object] = {
        "connection_id": note.connection_id,
        "user_id": note.user_id,
        "device_id": note.device_id,
        "started_at_us": to_wall(note.started_at),
        "start_seq": str(note.start_seq),
        "through_seq": str(note.through_seq),
        "delivery": facts.delivery.value,
        "path": facts.path.value if facts.path is not None else None,
        "put_on_connection": _bounds(facts.passed, to_wall),
        "position": str(standing.position if standing is not None else note.position),
        "sent": standing.sent if standing is not None else note.sent,
        "running": None,
        "ended": None,
    }
    if standing is not None:
        record["running"] = {
            "mode": "replaying" if standing.is_replaying else "live",
            "is_waiting_for_page": standing.is_waiting_for_page,
            "backlogged_since_us": _optional(standing.backlogged_since, to_wall),
        }
    elif note.ended_at is not None:
        record["ended"] = {
            "at_us": to_wall(note.ended_at),
            "because": note.ended_because,
            "closed_with": note.closed_with,
            "head_seq": str(note.head_seq) if note.head_seq is not None else None,
            "floor_seq": str(note.floor_seq) if note.floor_seq is not None else None,
        }
    return record


def _us(at_s: float) -> int:
    return round(at_s * 1e6)


def _optional(at: float | None, to_wall: Callable[[float], int]) -> int | None:
    return to_wall(at) if at is not None else None


def _bounds(passed: Passed | None, to_wall: Callable[[float], int]) -> dict[str, int] | None:
    if passed is None:
        return None
    return {"first_us": to_wall(passed.first_at), "last_us": to_wall(passed.last_at)}
