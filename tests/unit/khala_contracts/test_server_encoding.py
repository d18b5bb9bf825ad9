"""Server messages from values to bytes."""

import json

import pytest

from khala_contracts import reason_codes
from khala_contracts.gen.openagents.sync.v1 import session_pb2
from khala_contracts.server_encoding import (
    encode_server_control,
    encode_server_control_json,
    encode_topic_heartbeat,
    error_to_wire,
    join_heartbeat,
)
from khala_contracts.server_messages import ErrorMessage, ServerControl, ServerHeartbeat, TopicHeartbeat
from khala_contracts.topics import TopicName
from tests.unit.khala_contracts.server_samples import CHAIN, CONTROLS


@pytest.mark.parametrize("message", CONTROLS, ids=lambda message: type(message).__name__)
def test_each_message_is_one_control_member_and_no_frames(message: ServerControl) -> None:
    """Frames or one control message, never both; the two subprotocols say the same."""
    wire = session_pb2.ServerMessage.FromString(encode_server_control(message))
    assert wire.WhichOneof("control") is not None
    assert not wire.frames
    document = json.loads(encode_server_control_json(message))
    assert list(document) == [wire.WhichOneof("control")]


def test_every_control_member_has_a_sample() -> None:
    """A new message on the wire needs a value, a sample and both mappings."""
    control = session_pb2.ServerMessage.DESCRIPTOR.oneofs_by_name["control"]
    sampled = {
        session_pb2.ServerMessage.FromString(encode_server_control(m)).WhichOneof("control") for m in CONTROLS
    }
    assert sampled == {field.name for field in control.fields}


def test_encoding_is_deterministic() -> None:
    """Details in another order give the same bytes."""
    one = ErrorMessage.of(reason_codes.INTERNAL, details={"a": "1", "b": "2"})
    other = ErrorMessage.of(reason_codes.INTERNAL, details={"b": "2", "a": "1"})
    assert encode_server_control(one) == encode_server_control(other)
    assert encode_server_control_json(one) == encode_server_control_json(other)


@pytest.mark.parametrize("row", reason_codes.REGISTRY.values(), ids=lambda row: row.name)
def test_an_error_carries_name_and_number(row: reason_codes.ReasonCode) -> None:
    """Readers may use either."""
    wire = error_to_wire(ErrorMessage.of(row))
    assert (wire.code, wire.reason) == (row.name, row.number)


def test_a_code_of_the_future_passes_through_as_internal() -> None:
    """A proxy of ours repeats what it was told."""
    wire = error_to_wire(ErrorMessage("melted", "It melted."))
    assert (wire.code, wire.reason) == ("melted", reason_codes.INTERNAL.number)


@pytest.mark.parametrize("count", [0, 1, 2, 64])
@pytest.mark.parametrize("server_time_ms", [1, 1_700_000_000_123, 2**63 - 1])
def test_a_joined_heartbeat_is_the_message(count: int, server_time_ms: int) -> None:
    """Entries that are encoded once and joined for a connection give the bytes of the whole message."""
    topics = tuple(
        TopicHeartbeat(TopicName(f"run:{number}:events"), number * 2**55, CHAIN, number, number * 1_000)
        for number in range(count)
    )
    whole = ServerHeartbeat(topics, server_time_ms)
    for is_text, encoded in (
        (False, encode_server_control(whole)),
        (True, encode_server_control_json(whole)),
    ):
        entries = [encode_topic_heartbeat(topic, is_text=is_text) for topic in topics]
        assert join_heartbeat(entries, server_time_ms, is_text=is_text) == encoded
