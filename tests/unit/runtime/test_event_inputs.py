"""Events of a request: what is kept byte for byte, what is encoded, what is refused and where."""

from __future__ import annotations

import pytest

from khala_contracts import http_messages as m
from khala_contracts import kinds, reason_codes, strict_json
from khala_contracts.errors import WireError
from runtime.adapters.http.event_inputs import read_event, read_events
from tests.actors.runtime.rig import CountingIds

KIB = 1024


def from_json(text: str) -> m.AppendEventsRequest:
    """Return a request as its JSON says."""
    return strict_json.parse_strict(text, m.AppendEventsRequest)


def test_json_and_protobuf_give_the_same_event() -> None:
    """ARC-10: both forms of one event give byte-identical columns."""
    payload = kinds.encode_payload("run_events", "thought", {"text": "hi", "step": 3})
    encoded = m.AppendEventsRequest(events=[m.EventInput(kind="thought", payload_bytes=payload)])
    written = from_json('{"events":[{"kind":"thought","data":{"text":"hi","step":3}}]}')
    one, other = (read_events(request.events, ids=CountingIds()) for request in (encoded, written))
    assert one == other
    assert one.payloads == (payload,)
    assert one.schema_versions == (1,)


def test_encoded_payload_is_kept_as_it_is() -> None:
    """A payload of a newer client, with fields that we do not know, is not rewritten."""
    newer = b"\xfa\x3f\x01x" + kinds.encode_payload("run_events", "thought", {"text": "t"})
    events = read_events([m.EventInput(kind="thought", payload_bytes=newer)], ids=CountingIds())
    assert events.payloads == (newer,)


def test_no_body_is_the_empty_message() -> None:
    """An event without data has the empty payload."""
    assert read_event(m.EventInput(kind="thought"), ids=CountingIds()).payloads == (b"",)


@pytest.mark.parametrize(
    ("item", "reason", "field"),
    [
        (m.EventInput(kind="unheard.of"), reason_codes.KIND_UNKNOWN, "kind"),
        (m.EventInput(), reason_codes.KIND_UNKNOWN, "kind"),
        (m.EventInput(kind="khala.erased"), reason_codes.KIND_UNKNOWN, "kind"),
        (m.EventInput(kind="worker.registered"), reason_codes.KIND_UNKNOWN, "kind"),
        (m.EventInput(kind="run.started"), reason_codes.INVALID_ARGUMENT, "kind"),
        (m.EventInput(kind="run.state_changed"), reason_codes.INVALID_ARGUMENT, "kind"),
        (m.EventInput(kind="run.finished"), reason_codes.INVALID_ARGUMENT, "kind"),
        (m.EventInput(kind="thought", payload_bytes=b"\xff"), reason_codes.INVALID_ARGUMENT, "payload_bytes"),
        (
            m.EventInput(kind="thought", payload_bytes=b"\x0a\x81\x80\x10" + b"x" * (256 * KIB + 1)),
            reason_codes.PAYLOAD_TOO_LARGE,
            "payload_bytes",
        ),
        (m.EventInput(kind="thought", idempotency_key="k"), reason_codes.INVALID_ARGUMENT, "idempotency_key"),
    ],
)
def test_refusals_name_the_event(item: m.EventInput, reason: reason_codes.ReasonCode, field: str) -> None:
    """The first wrong event is named by its index and field; a batch is refused as a whole."""
    good = m.EventInput(kind="thought")
    with pytest.raises(WireError) as refused:
        read_events([good, good, item, good], ids=CountingIds())
    assert refused.value.reason is reason
    assert refused.value.field == f"events[2].{field}"


def test_refusals_in_data_name_the_path() -> None:
    """Wrong JSON data is named below the event."""
    request = from_json('{"events":[{"kind":"thought","data":{"txet":"hi"}}]}')
    with pytest.raises(WireError) as refused:
        read_events(request.events, ids=CountingIds())
    assert refused.value.reason is reason_codes.INVALID_ARGUMENT
    assert refused.value.field == "events[0].data.txet"


@pytest.mark.parametrize(("over", "is_refused"), [(0, False), (1, True)])
def test_payload_limit(over: int, is_refused: bool) -> None:  # a column of the table
    """A payload of exactly 256 KiB passes; one byte more does not."""
    text = "x" * (256 * KIB - 4 + over)
    payload = kinds.payload_type("run_events", "thought").message_cls(text=text).SerializeToString()
    assert len(payload) == 256 * KIB + over
    item = m.EventInput(kind="thought", payload_bytes=payload)
    if is_refused:
        with pytest.raises(WireError):
            read_event(item, ids=CountingIds())
    else:
        assert read_event(item, ids=CountingIds()).size_bytes == 256 * KIB


def test_no_event_at_all() -> None:
    """An empty batch is a mistake of the caller."""
    with pytest.raises(WireError) as refused:
        read_events([], ids=CountingIds())
    assert (refused.value.reason, refused.value.field) == (reason_codes.INVALID_ARGUMENT, "events")
