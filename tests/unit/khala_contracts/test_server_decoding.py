"""Server messages from bytes to values."""

import pytest

from khala_contracts import reason_codes
from khala_contracts.entries import encode_entry, frame_json
from khala_contracts.errors import WireError
from khala_contracts.frames import Frame
from khala_contracts.gen.openagents.sync.v1 import errors_pb2, session_pb2
from khala_contracts.reason_codes import Advice
from khala_contracts.server_decoding import (
    decode_server_message_json_untrusted,
    decode_server_message_untrusted,
    error_from_wire,
)
from khala_contracts.server_encoding import encode_server_control, encode_server_control_json
from khala_contracts.server_messages import FramesMessage, Renewed, ServerControl
from khala_contracts.topics import TopicName
from tests.unit.khala_contracts.server_samples import CHAIN, CONTROLS, TOPIC

FRAMES = tuple(Frame(TOPIC, seq, "output", bytes([seq]), 1) for seq in (7, 8, 9))


@pytest.mark.parametrize("message", CONTROLS, ids=lambda message: type(message).__name__)
def test_every_message_round_trips_in_both_subprotocols(message: ServerControl) -> None:
    """What was sent is what is read, 64-bit numbers included; every member has its reader."""
    assert decode_server_message_untrusted(encode_server_control(message)) == message
    assert decode_server_message_json_untrusted(encode_server_control_json(message)) == message


def test_frames_round_trip_in_both_subprotocols() -> None:
    """Joined entries are a message, and so are joined JSON objects."""
    entries = [encode_entry(frame) for frame in FRAMES]
    assert decode_server_message_untrusted(b"".join(entries)) == FramesMessage(FRAMES)
    text = b'{"frames":[' + b",".join(map(frame_json, entries)) + b"]}"
    assert decode_server_message_json_untrusted(text) == FramesMessage(FRAMES)


def refused(message: session_pb2.ServerMessage) -> str:
    """Return the field at which a message is refused."""
    with pytest.raises(WireError) as caught:
        decode_server_message_untrusted(message.SerializeToString())
    assert caught.value.reason_code == "malformed_message"
    return caught.value.field


def test_frames_of_two_topics_or_with_a_hole_are_refused() -> None:
    """A message has frames of one topic, ascending by one."""
    other = Frame(TopicName("run:y:events"), 8, "output", b"", 1)
    for pair, field in (((FRAMES[0], other), "frames[1].topic"), ((FRAMES[0], FRAMES[2]), "frames[1].seq")):
        with pytest.raises(WireError) as caught:
            decode_server_message_untrusted(b"".join(map(encode_entry, pair)))
        assert caught.value.field == field


def test_frames_beside_a_control_message_are_refused() -> None:
    """Never both."""
    message = session_pb2.ServerMessage.FromString(encode_entry(FRAMES[0]))
    message.lagging.topic = TOPIC
    assert refused(message) == "frames"


def test_bytes_that_are_no_message_are_refused() -> None:
    """Noise."""
    with pytest.raises(WireError):
        decode_server_message_untrusted(b"\xff")


def test_a_control_message_of_the_future_has_nothing_to_apply() -> None:
    """An old client reads a newer server."""
    assert decode_server_message_untrusted(b"\xa2\x06\x01x") == FramesMessage(())


def test_fields_of_the_future_are_skipped() -> None:
    """A known message may say more than we know, and so may a frame."""
    newer = session_pb2.Renewed.FromString(b"\x08\x05\xa2\x06\x01x")
    message = session_pb2.ServerMessage(renewed=newer)
    assert decode_server_message_untrusted(message.SerializeToString()) == Renewed(5)
    entry = encode_entry(FRAMES[0])
    longer = entry[:1] + bytes([entry[1] + 4]) + entry[2:] + b"\xa2\x06\x01x"
    assert decode_server_message_untrusted(longer) == FramesMessage(FRAMES[:1])


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (session_pb2.ServerMessage(subscribed=session_pb2.Subscribed()), "subscribed.topic"),
        (
            session_pb2.ServerMessage(subscribed=session_pb2.Subscribed(topic=TOPIC, head_seq=-1)),
            "subscribed.head_seq",
        ),
        (session_pb2.ServerMessage(subscribed=session_pb2.Subscribed(topic=TOPIC)), "subscribed.floor_seq"),
        (
            session_pb2.ServerMessage(subscribed=session_pb2.Subscribed(topic=TOPIC, floor_seq=1)),
            "subscribed.chain_at_start",
        ),
        (
            session_pb2.ServerMessage(
                subscribed=session_pb2.Subscribed(topic=TOPIC, floor_seq=1, chain_at_start=CHAIN, tier=9)
            ),
            "subscribed.tier",
        ),
        (
            session_pb2.ServerMessage(replay_complete=session_pb2.ReplayComplete(topic=TOPIC)),
            "replay_complete.chain",
        ),
        (
            session_pb2.ServerMessage(unsubscribed=session_pb2.Unsubscribed(topic=TOPIC)),
            "unsubscribed.reason",
        ),
        (
            session_pb2.ServerMessage(
                heartbeat=session_pb2.ServerHeartbeat(
                    topics=[session_pb2.TopicHeartbeat(topic=TOPIC, chain=b"x")]
                )
            ),
            "heartbeat.topics[0].chain",
        ),
        (
            session_pb2.ServerMessage(lagging=session_pb2.Lagging(topic=TOPIC, from_seq=-5)),
            "lagging.from_seq",
        ),
        (session_pb2.ServerMessage(stale_cursor=session_pb2.StaleCursor(topic=TOPIC)), "stale_cursor.reason"),
    ],
)
def test_broken_invariants_are_refused_with_the_field(message: session_pb2.ServerMessage, field: str) -> None:
    """Empty topics, negative positions, chains of another length, unspecified words."""
    assert refused(message) == field


def test_an_unknown_code_is_kept_by_name_and_never_retried() -> None:
    """PR-04: an old client, a newer server that calls it retryable."""
    wire = errors_pb2.Error(
        code="melted", message="It melted.", retryable=True, reason=4_000, retry_after_ms=5
    )
    error = error_from_wire(wire)
    assert (error.code, error.retryable, error.advice, error.retry_after_ms) == (
        "melted",
        False,
        Advice.GIVE_UP,
        5,
    )


def test_a_code_may_be_given_by_number_alone() -> None:
    """A terse sender."""
    error = error_from_wire(errors_pb2.Error(reason=reason_codes.DRAINING.number, retryable=True))
    assert (error.code, error.retryable, error.advice) == ("draining", True, Advice.RETRY_BACKOFF)
    assert error_from_wire(errors_pb2.Error()).code == "internal"
