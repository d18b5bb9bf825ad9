"""The body of a command that appends a batch, for whatever topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from khala_contracts import http_messages as m
from khala_contracts import reason_codes
from khala_service.http_edge import HttpProblem, read_body
from runtime.adapters.http.event_inputs import read_events

if TYPE_CHECKING:
    from runtime.core.events import EventColumns
    from runtime.core.limits import RuntimeLimits
    from runtime.ports import Ids

__all__ = ["EventBatch", "check_batch", "read_batch"]


@attrs.frozen
class EventBatch:
    """Checked events; `expected_seq` is None if the caller does not care where they are appended."""

    events: EventColumns
    expected_seq: int | None


async def read_batch(topic_class: str, *, ids: Ids, limits: RuntimeLimits) -> EventBatch:
    """Return the batch in the body of the current request.

    Raises:
        HttpProblem: payload_too_large, and what `read_body` raises.
        WireError: as `read_events`.
    """
    body = await read_body(
        m.AppendEventsRequest, max_bytes=limits.append_bytes_max, limit_name="append_bytes_max"
    )
    return check_batch(body, topic_class, ids=ids, limits=limits)


def check_batch(
    body: m.AppendEventsRequest, topic_class: str, *, ids: Ids, limits: RuntimeLimits
) -> EventBatch:
    """Return the batch in a message.

    Raises:
        HttpProblem: payload_too_large, for too many events.
        WireError: as `read_events`.
    """
    if len(body.events) > limits.append_events_max:
        details = {"field": "events", "limit_events": str(limits.append_events_max)}
        details |= limits.name_limit("append_events_max")
        raise HttpProblem(reason_codes.PAYLOAD_TOO_LARGE, details)
    expected_seq = body.expected_seq if body.HasField("expected_seq") else None
    return EventBatch(read_events(body.events, ids=ids, topic_class=topic_class), expected_seq)
