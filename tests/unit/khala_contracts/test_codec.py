"""The door between wire and domain."""

import pytest

from khala_contracts import codec
from khala_contracts import http_messages as m
from khala_contracts.errors import WireError


def test_everything_it_lists_is_there() -> None:
    """Other packages import from this one name."""
    assert sorted(codec.__all__) == sorted(set(codec.__all__))
    assert all(hasattr(codec, name) for name in codec.__all__)


def test_messages_of_http_bodies_round_trip() -> None:
    """Deterministically."""
    run = m.Run(run_id="r", attributes={"b": "2", "a": "1"})
    data = codec.encode_message(run)
    assert codec.decode_message_untrusted(m.Run, data) == run
    assert data == codec.encode_message(m.Run(run_id="r", attributes={"a": "1", "b": "2"}))


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"\x0a\x01\xff"])
def test_bytes_that_are_no_body_are_refused(data: bytes) -> None:
    """Noise, cut off, bad UTF-8."""
    with pytest.raises(WireError) as caught:
        codec.decode_message_untrusted(m.Run, data)
    assert caught.value.reason_code == "malformed_message"


def test_unknown_fields_are_counted_at_every_depth() -> None:
    """SPEC section 4: in binary they are kept and counted."""
    newer = b"\xa2\x06\x01x"
    ack = m.Ack.FromString(m.Ack(seq=1).SerializeToString() + newer)
    run = m.Run.FromString(m.Run(name="n", attributes={"a": "b"}).SerializeToString() + newer + newer)
    response = m.CreateRunResponse(run=run, ack=ack)
    assert codec.count_unknown_fields(response) == 3
    assert codec.count_unknown_fields(m.AppendEventsResponse(acks=[ack, ack])) == 2
    assert codec.count_unknown_fields(m.Run(name="n", attributes={"a": "b"})) == 0
    assert codec.decode_message_untrusted(m.Ack, codec.encode_message(ack)) == ack
