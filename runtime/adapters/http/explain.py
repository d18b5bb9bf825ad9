"""``GET /internal/v1/explain?topic=&seq=``: what the runtime knows of one event, for operators.

    {
      "topic": "run:...:events", "seq": "12",
      "event": {"event_id", "request_id", "actor", "kind", "schema_version", "chain", "entry_bytes",
                "committed_at_us"} or null: nothing is committed at this position
      "observation": {"topic_class", "lineage", "head_seq", "head_chain", "floor_seq", "floor_reason"}
                or null: nothing was ever written to the topic
      "hint": {"published_at_us", "driver", "kind": "copy" or "hint", "record_first_seq",
                "record_last_seq"}
                or null: published before this process started, longer ago than it remembers, or not yet
    }

Positions are strings, chains hexadecimal ("" below the floor), times Unix microseconds: the commit's by
the database's clock, the publication's by this process's. Payloads are not shown. The admin token is
needed; a service without one has no such route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from quart import request

from khala_contracts import reason_codes
from khala_contracts.frames import SEQ_MAX
from khala_contracts.topics import TopicInvalid, parse_topic
from khala_service.http_problems import HttpProblem
from runtime.adapters.http.requests import query_number, query_text

if TYPE_CHECKING:
    from quart_trio import QuartTrio

    from khala_contracts.topics import TopicName
    from khala_service.admin_routes import AdminToken
    from runtime.actors.explainer import EventExplanation, Explainer

__all__ = ["EXPLAIN_ROUTE", "add_explain_route", "explanation_record"]

EXPLAIN_ROUTE: Final = "/internal/v1/explain"
_PARAMETERS: Final = frozenset({"topic", "seq"})


def add_explain_route(app: QuartTrio, *, admin: AdminToken, explainer: Explainer) -> None:
    """Register the route; for whoever presents the admin token."""

    @app.get(EXPLAIN_ROUTE)
    async def explain() -> dict[str, object]:
        admin.require()
        for name in request.args:
            if name not in _PARAMETERS:
                raise HttpProblem(reason_codes.INVALID_ARGUMENT, {"field": name, "problem": "unknown"})
        try:
            topic = parse_topic(query_text("topic")).name
        except TopicInvalid as error:
            raise HttpProblem(reason_codes.TOPIC_INVALID, {"problem": error.detail}) from None
        seq = query_number("seq", default=0, least=1, most=SEQ_MAX)
        if not seq:
            raise HttpProblem(reason_codes.INVALID_ARGUMENT, {"field": "seq", "problem": "required"})
        return explanation_record(topic, seq, await explainer.explain(topic, seq))


def explanation_record(topic: TopicName, seq: int, explanation: EventExplanation) -> dict[str, object]:
    """Return an explanation as JSON values."""
    return {
        "topic": topic,
        "seq": str(seq),
        "event": _event(explanation),
        "observation": _observation(explanation),
        "hint": _hint(explanation),
    }


def _event(explanation: EventExplanation) -> dict[str, object] | None:
    event = explanation.event
    if event is None:
        return None
    return {
        "event_id": event.event_id,
        "request_id": event.request_id,
        "actor": event.actor,
        "kind": event.kind,
        "schema_version": event.schema_version,
        "chain": explanation.chain.hex(),
        "entry_bytes": explanation.entry_bytes,
        "committed_at_us": event.committed_at_us,
    }


def _observation(explanation: EventExplanation) -> dict[str, object] | None:
    head = explanation.head
    if head is None:
        return None
    return {
        "topic_class": head.topic_class,
        "lineage": head.lineage,
        "head_seq": str(head.head_seq),
        "head_chain": head.head_chain.hex(),
        "floor_seq": str(head.floor_seq),
        "floor_reason": head.floor_reason,
    }


def _hint(explanation: EventExplanation) -> dict[str, object] | None:
    told = explanation.told
    if told is None:
        return None
    return {
        "published_at_us": told.published_at_us,
        "driver": told.driver,
        "kind": "copy" if told.is_copy else "hint",
        "record_first_seq": str(told.first_seq),
        "record_last_seq": str(told.last_seq),
    }
