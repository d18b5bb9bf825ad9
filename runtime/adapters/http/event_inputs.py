"""EventInput messages to columns: every event is checked here, before anything is written.

Payloads that came encoded are checked and kept byte for byte; JSON data is encoded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from khala_contracts import kinds, reason_codes
from khala_contracts.errors import WireError
from runtime.core.events import EventColumns
from runtime.core.run_state_machine import COMMANDED_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from khala_contracts import http_messages as m
    from runtime.ports import Ids

__all__ = ["RUN_CLASS", "read_event", "read_events"]

RUN_CLASS: Final = "run_events"
# Kinds that only the runtime writes, by topic class.
_NOT_APPENDED: Final = {RUN_CLASS: COMMANDED_KINDS}


def read_events(inputs: Iterable[m.EventInput], *, ids: Ids, topic_class: str = RUN_CLASS) -> EventColumns:
    """Return the events of a batch for a topic of a class.

    Raises:
        WireError: kind_unknown, invalid_argument or payload_too_large, with the path of the first
            event that is wrong; invalid_argument if there is none at all.
    """
    event_kinds: list[str] = []
    payloads: list[bytes] = []
    versions: list[int] = []
    index = -1
    for index, item in enumerate(inputs):
        if item.idempotency_key:
            raise WireError(
                reason_codes.INVALID_ARGUMENT,
                "only in streams; a batch has the Idempotency-Key header",
                f"events[{index}].idempotency_key",
            )
        try:
            payload, version = _payload(item, topic_class)
        except WireError as error:
            path = f"events[{index}].{error.field}"
            raise WireError(error.reason, error.detail, path, limit=error.limit) from None
        event_kinds.append(item.kind)
        payloads.append(payload)
        versions.append(version)
    if index < 0:
        raise WireError(reason_codes.INVALID_ARGUMENT, "at least one event", "events")
    event_ids = tuple([ids.new("evt") for _ in event_kinds])
    return EventColumns(event_ids, tuple(event_kinds), tuple(payloads), tuple(versions))


def read_event(item: m.EventInput, *, ids: Ids) -> EventColumns:
    """Return one event of a run's stream. Raises WireError as `read_events`, with the path in the event."""
    payload, version = _payload(item, RUN_CLASS)
    return EventColumns((ids.new("evt"),), (item.kind,), (payload,), (version,))


def _payload(item: m.EventInput, topic_class: str) -> tuple[bytes, int]:
    kind = item.kind
    if kind in _NOT_APPENDED.get(topic_class, ()):
        raise WireError(reason_codes.INVALID_ARGUMENT, "written by the runtime only", "kind")
    version = kinds.payload_type(topic_class, kind).schema_version
    match item.WhichOneof("body"):
        case "payload_bytes":
            payload = item.payload_bytes
            kinds.check_payload_untrusted(topic_class, kind, payload)
        case "data":
            payload = kinds.encode_payload(topic_class, kind, item.data)
        case _:
            payload = kinds.encode_payload(topic_class, kind, {})
    return payload, version
