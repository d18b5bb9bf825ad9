from __future__ import annotations

import pytest

from khala_client.errors import KhalaError
from khala_client.outgoing import PAYLOAD_MAX_BYTES, OutgoingEvent, event_message
from khala_contracts import kinds


def test_encoded_once() -> None:
    """The same data gives the same bytes, which is what a key stands for."""
    event = OutgoingEvent.of("action", {"tool": "pytest", "args": ["-x"]}, key="k")
    assert event == OutgoingEvent.of("action", {"args": ["-x"], "tool": "pytest"}, key="k")
    assert kinds.decode_payload("action", event.payload)["args"] == ["-x"]
    message = event_message(event)
    assert (message.kind, message.payload_bytes, message.idempotency_key) == ("action", event.payload, "k")
    assert event.size_bytes > len(message.SerializeToString())


@pytest.mark.parametrize(
    ("kind", "data", "code"),
    [
        ("no.such", {}, "kind_unknown"),
        ("thought", {"txt": "x"}, "invalid_argument"),
        ("thought", {"text": 5}, "invalid_argument"),
        ("khala.erased", {}, "kind_unknown"),
        ("thought", {"text": "x" * PAYLOAD_MAX_BYTES}, "payload_too_large"),
    ],
)
def test_what_cannot_be_appended_is_refused_here(kind: str, data: dict[str, object], code: str) -> None:
    """With the kind, and the field if there is one; nothing was sent."""
    with pytest.raises(KhalaError) as refused:
        OutgoingEvent.of(kind, data)
    assert refused.value.code == code
    assert refused.value.details["kind"] == kind
    assert "xxx" not in str(refused.value)


def test_the_largest_payload() -> None:
    """256 KiB is allowed."""
    overhead = len(OutgoingEvent.of("thought", {"text": "x" * 200_000}).payload) - 200_000
    assert (
        len(OutgoingEvent.of("thought", {"text": "x" * (PAYLOAD_MAX_BYTES - overhead)}).payload)
        == PAYLOAD_MAX_BYTES
    )
