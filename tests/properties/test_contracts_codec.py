"""Codec: every value survives the wire, and nothing but WireError escapes on noise."""

import json
from collections.abc import Callable
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from khala_contracts import codec
from khala_contracts.errors import WireError
from khala_contracts.frames import Frame
from khala_contracts.gen.openagents.sync.v1 import frames_pb2, session_pb2
from khala_contracts.strict_json import message_to_mapping
from tests.properties.contract_strategies import client_messages, frames, histories

ALLOWED = {None, "malformed_message", "authority_write_forbidden"}


def refusal(decode: Callable[[], object]) -> str | None:
    """Return the code with which decoding is refused, None if it is not."""
    try:
        decode()
    except WireError as error:
        return error.reason_code
    return None


@given(frames)
def test_an_entry_is_what_protobuf_writes_and_reads(frame: Frame) -> None:
    """encode_entry and EntryTemplate equal the canonical serialisation; decoding gives the frame back."""
    generated = frames_pb2.KhalaFrame(
        topic=frame.topic,
        seq=frame.seq,
        kind=frame.kind,
        payload_bytes=frame.payload,
        schema_version=frame.schema_version,
    )
    expected = session_pb2.ServerMessage(frames=[generated]).SerializeToString(deterministic=True)
    entry = codec.encode_entry(frame)
    assert entry == expected
    assert (
        codec.EntryTemplate(frame.topic).entry(frame.seq, frame.kind, frame.payload, frame.schema_version)
        == entry
    )
    assert codec.decode_entries(entry) == [frame]
    assert json.loads(codec.frame_json(entry)) == message_to_mapping(generated)


@given(histories(), st.data())
def test_any_range_of_joined_entries_is_a_message(history: list[Frame], data: st.DataObject) -> None:
    """Both subprotocols, any cut: joining entries 10 to 25 is the message of frames 10 to 25."""
    start = data.draw(st.integers(0, len(history)))
    end = data.draw(st.integers(start, len(history)))
    entries = [codec.encode_entry(frame) for frame in history[start:end]]
    wanted = codec.FramesMessage(tuple(history[start:end]))
    assert codec.decode_server_message_untrusted(b"".join(entries)) == wanted
    text = b'{"frames":[' + b",".join(map(codec.frame_json, entries)) + b"]}"
    assert codec.decode_server_message_json_untrusted(text) == wanted


@given(client_messages)
def test_client_messages_round_trip(message: codec.ClientMessage) -> None:
    """In both subprotocols."""
    assert codec.decode_client_message_untrusted(codec.encode_client_message(message)) == message
    assert codec.decode_client_message_json_untrusted(codec.encode_client_message_json(message)) == message


@given(st.binary(max_size=200))
def test_noise_is_a_message_or_a_wire_error(data: bytes) -> None:
    """Nothing else escapes from any decoder of bytes."""
    for decode in (
        codec.decode_client_message_untrusted,
        codec.decode_server_message_untrusted,
        codec.decode_entries,
    ):
        assert refusal(partial(decode, data)) in ALLOWED


@given(client_messages, st.data())
def test_spoiled_messages_are_a_message_or_a_wire_error(
    message: codec.ClientMessage, data: st.DataObject
) -> None:
    """A byte changed, removed or inserted; a message that still decodes encodes again."""
    encoded = bytearray(codec.encode_client_message(message))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(encoded)))
        encoded[place : place + data.draw(st.integers(0, 1))] = data.draw(st.binary(max_size=1))
    try:
        decoded = codec.decode_client_message_untrusted(bytes(encoded))
    except WireError:
        return
    assert codec.decode_client_message_untrusted(codec.encode_client_message(decoded)) == decoded


@given(st.text(max_size=200))
def test_text_is_a_message_or_a_wire_error(text: str) -> None:
    """Nothing else escapes from any decoder of text."""
    for decode in (codec.decode_client_message_json_untrusted, codec.decode_server_message_json_untrusted):
        assert refusal(partial(decode, text)) in ALLOWED
