"""What the load client sends."""

from __future__ import annotations

import pytest

from chaos.load.append_client import KIND, Answer, batch_of, payload_of
from khala_contracts import http_messages as m
from khala_contracts.kinds import check_payload_untrusted


@pytest.mark.parametrize("size_bytes", [3, 50, 129, 130, 131, 132, 200, 20_000])
def test_a_payload_has_the_size_that_the_report_names(size_bytes: int) -> None:
    """To the byte where protobuf has such a size, else one less; and the API takes it."""
    payload = payload_of(size_bytes)
    assert size_bytes - 1 <= len(payload) <= size_bytes
    check_payload_untrusted("run_events", KIND, payload)


def test_a_batch_holds_that_many_events_of_that_size() -> None:
    """The prepared body is one append request."""
    request = m.AppendEventsRequest.FromString(batch_of(200, 200))
    assert {len(event.payload_bytes) for event in request.events} == {200}
    assert len(request.events) == 200


def test_an_answer_is_read_after_the_clock_has_stopped() -> None:
    """Its bytes are kept and decoded on demand."""
    ack = m.Ack(event_id="evt_1", topic="run:x:events", seq=7, chain=bytes(32))
    body = m.AppendEventsResponse(acks=[ack]).SerializeToString()
    assert list(Answer("run_1", "key", body, 0.01).acks()) == [ack]
