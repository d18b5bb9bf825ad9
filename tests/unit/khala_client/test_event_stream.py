from __future__ import annotations

import json

import pytest

from khala_client.errors import Unavailable
from khala_client.event_stream import decode_stream_outcome_untrusted, encode_stream
from khala_client.outgoing import OutgoingEvent
from khala_contracts import http_messages as m
from khala_contracts import strict_json
from tests.unit.khala_client.node_model import topic_number


def ack_line(*seqs: int) -> bytes:
    """Return the line of one committed chunk."""
    acks = [
        m.Ack(event_id=f"evt_{seq}", topic=topic_number(1), seq=seq, lineage="lin_1", chain=bytes(32))
        for seq in seqs
    ]
    return (
        strict_json.print_json(m.AppendStreamAck(committed=m.AppendEventsResponse(acks=acks))).encode()
        + b"\n"
    )


def test_a_line_per_event_with_its_key() -> None:
    """The strict JSON mapping; what is parsed is what was meant."""
    events = [
        OutgoingEvent.of("thought", {"text": "a\nb"}, key="1"),
        OutgoingEvent.of("custom", {"name": "x"}, key="2"),
    ]
    lines = encode_stream(events).splitlines()
    assert [json.loads(line)["idempotency_key"] for line in lines] == ["1", "2"]
    parsed = [strict_json.parse_strict(line, m.EventInput) for line in lines]
    assert [(one.kind, one.payload_bytes) for one in parsed] == [
        (event.kind, event.payload) for event in events
    ]


@pytest.mark.parametrize("keys", [("",), ("a", "")])
def test_every_event_has_a_key(keys: tuple[str, ...]) -> None:
    """A retry could otherwise repeat one."""
    with pytest.raises(ValueError, match="needs a key"):
        encode_stream([OutgoingEvent.of("thought", {}, key=key) for key in keys])


def test_all_chunks_committed() -> None:
    """Acks in order, over however many lines."""
    outcome = decode_stream_outcome_untrusted(ack_line(1, 2) + b"\n" + ack_line(3))
    assert [ack.seq for ack in outcome.acks] == [1, 2, 3]
    assert outcome.error is None


def test_a_stream_that_ended_early() -> None:
    """What was committed before stays, and the culprit is named."""
    failed = m.StreamError(
        code="rate_limited", event_index=2, retryable=True, retry_after_ms=70, details={"a": "b"}
    )
    line = strict_json.print_json(m.AppendStreamAck(failed=failed)).encode()
    outcome = decode_stream_outcome_untrusted(ack_line(1, 2) + line)
    assert len(outcome.acks) == 2
    assert isinstance(outcome.error, Unavailable)
    assert (outcome.error.code, outcome.error.retry_after_ms, outcome.refused_index) == (
        "rate_limited",
        70,
        2,
    )


@pytest.mark.parametrize("data", [b"<html>", b'{"unknown": 1}', b'{"committed": null}'])
def test_an_answer_that_is_not_ours(data: bytes) -> None:
    """Unknown outcome: the keys settle it on retry."""
    with pytest.raises(Unavailable) as error:
        decode_stream_outcome_untrusted(data)
    assert error.value.details["outcome"] == "unknown"
