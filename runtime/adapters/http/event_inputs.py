"""EventInput messages to columns: every event is checked here, before anything is written.

Payloads that came encoded are checked and kept byte for byte; JSON data is encoded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from khala_contracts import kinds, reason_codes
from khala_contracts.errors import WireError
from runtime.core.events import EventColumns
from runtime.core.run_state_machine import TRANSITION_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from khala_contracts import http_messages as m
    from runtime.ports import Ids

__all__ = ["read_event", "read_events"]

RUN_CLASS: Final = "run_events"


def read_events(inputs: Iterable[m.EventInput], *, ids: Ids) -> EventColumns:
    """Return the events of a batch.

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
            payload, version = _payload(item)
        except WireError as error:
            raise WireError(error.reason, error.detail, f"events[{index}].{error.field}") from None
        event_kinds.append(item.kind)
        payloads.append(payload)
        versions.append(version)
    if index < 0:
        raise WireError(reason_codes.INVALID_ARGUMENT, "at least one event", "events")
    event_ids = tuple([ids.new("evt") for _ in event_kinds])
    return EventColumns(event_ids, tuple(event_kinds), tuple(payloads), tuple(versions))


def read_event(item: m.EventInput, *, ids: Ids) -> EventColumns:
    """Return one event of a stream. Raises WireError as `read_events`, with the path in the event."""
    payload, version = _payload(item)
    return EventColumns((ids.new("evt"),), (item.kind,), (payload,), (version,))


def _payload(item: m.EventInput) -> tuple[bytes, int]:
    kind = item.kind
    if kind in TRANSITION_KINDS:
        raise WireError(reason_codes.INVALID_ARGUMENT, "written by transitions only", "kind")
    version = kinds.payload_type(RUN_CLASS, kind).schema_version
    match item.WhichOneof("body"):
        case "payload_bytes":
            payload = item.payload_bytes
            kinds.check_payload_untrusted(RUN_CLASS, kind, payload)
        case "data":
            payload = kinds.encode_payload(RUN_CLASS, kind, item.data)
        case _:
            payload = kinds.encode_payload(RUN_CLASS, kind, {})
    return payload, version
