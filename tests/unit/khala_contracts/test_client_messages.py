"""What clients say: values, bytes and text."""

import pytest

from khala_contracts.client_messages import (
    ClientHeartbeat,
    ClientMessage,
    CursorStart,
    FromStart,
    Hello,
    Renew,
    Subscribe,
    SubscribeFrom,
    TopicStart,
    Unsubscribe,
    VersionRange,
    decode_client_message_json_untrusted,
    decode_client_message_untrusted,
    encode_client_message,
    encode_client_message_json,
)
from khala_contracts.errors import WireError
from khala_contracts.gen.openagents.sync.v1 import session_pb2

DEVICE = "dev_abcdefgh"
RANGE = VersionRange(1, 2)
MESSAGES: list[ClientMessage] = [
    Hello("token", None, DEVICE, "build", RANGE, RANGE),
    Hello(None, "ticket", DEVICE, "b" * 128, RANGE, VersionRange(3, 3)),
    Subscribe(
        (
            TopicStart("a", CursorStart(0)),
            TopicStart("b", CursorStart(2**63 - 1, "l" * 64, bytes(32))),
            *(TopicStart("c", FromStart(word)) for word in SubscribeFrom),
        )
    ),
    Subscribe(()),
    Unsubscribe(("a", "not a topic")),
    Renew("token"),
    ClientHeartbeat(),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_round_trips_in_both_subprotocols(message: ClientMessage) -> None:
    """Values at the limits included."""
    assert decode_client_message_untrusted(encode_client_message(message)) == message
    assert decode_client_message_json_untrusted(encode_client_message_json(message)) == message


def test_secrets_are_not_printed() -> None:
    """Tokens never reach a log by way of repr."""
    assert "token" not in repr(Hello("sesame", None, DEVICE, "b", RANGE, RANGE)).replace("token=", "")
    assert "sesame" not in repr(Renew("sesame"))


def refused(data: bytes | str) -> tuple[str, str]:
    """Return reason and field of a refused message."""
    decode = (
        decode_client_message_json_untrusted if isinstance(data, str) else decode_client_message_untrusted
    )
    with pytest.raises(WireError) as caught:
        decode(data)  # type: ignore[arg-type]
    return caught.value.reason_code, caught.value.field


def hello(**changes: object) -> bytes:
    """Return a hello with some of its fields changed."""
    fields: dict[str, object] = {
        "token": "t",
        "device_id": DEVICE,
        "client_build_id": "b",
        "protocol": session_pb2.VersionRange(min=1, max=1),
        "schema": session_pb2.VersionRange(min=1, max=1),
    }
    return session_pb2.ClientMessage(hello=session_pb2.Hello(**(fields | changes))).SerializeToString()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"token": None}, "hello.token"),
        ({"token": ""}, "hello.token"),
        ({"token": None, "ticket": ""}, "hello.ticket"),
        ({"device_id": ""}, "hello.device_id"),
        ({"device_id": "dev_" + "a" * 65}, "hello.device_id"),
        ({"client_build_id": ""}, "hello.client_build_id"),
        ({"client_build_id": "b" * 129}, "hello.client_build_id"),
        ({"client_build_id": "é" * 65}, "hello.client_build_id"),
        ({"protocol": None}, "hello.protocol"),
        ({"protocol": session_pb2.VersionRange(min=0, max=1)}, "hello.protocol"),
        ({"schema": session_pb2.VersionRange(min=3, max=2)}, "hello.schema"),
    ],
)
def test_an_incomplete_hello_is_malformed(changes: dict[str, object], field: str) -> None:
    """Each field that a hello must have, at its bound and one beyond."""
    assert refused(hello(**changes)) == ("malformed_message", field)


@pytest.mark.parametrize(
    ("cursor", "field"),
    [
        (session_pb2.Cursor(seq=-1), "seq"),
        (session_pb2.Cursor(seq=1), "lineage"),
        (session_pb2.Cursor(seq=1, lineage="l" * 65), "lineage"),
        (session_pb2.Cursor(seq=1, lineage="l", chain=bytes(31)), "chain"),
        (session_pb2.Cursor(seq=1, lineage="l", chain=bytes(33)), "chain"),
    ],
)
def test_a_cursor_that_no_client_could_hold_is_malformed(cursor: session_pb2.Cursor, field: str) -> None:
    """With the path to it."""
    topics = [session_pb2.TopicSubscription(topic="x", cursor=session_pb2.Cursor())]
    topics.append(session_pb2.TopicSubscription(topic="x", cursor=cursor))
    data = session_pb2.ClientMessage(subscribe=session_pb2.Subscribe(topics=topics)).SerializeToString()
    assert refused(data) == ("malformed_message", f"subscribe.topics[1].cursor.{field}")


def test_a_subscribe_without_a_start_is_malformed() -> None:
    """Neither cursor nor from, and a from that says nothing."""
    bare = session_pb2.TopicSubscription(topic="x")
    message = session_pb2.ClientMessage(subscribe=session_pb2.Subscribe(topics=[bare]))
    assert refused(message.SerializeToString()) == ("malformed_message", "subscribe.topics[0].cursor")
    for number in (0, 99):
        setattr(message.subscribe.topics[0], "from", number)
        assert refused(message.SerializeToString()) == ("malformed_message", "subscribe.topics[0].from")


def test_an_empty_renewal_is_malformed() -> None:
    """A renewal is its token."""
    data = session_pb2.ClientMessage(renew=session_pb2.Renew()).SerializeToString()
    assert refused(data) == ("malformed_message", "renew.token")


@pytest.mark.parametrize("data", [b"", "{}", b"\xff", "x", b"\x0a", "[]", '{"hello":1}'])
def test_what_is_no_message_is_malformed(data: bytes | str) -> None:
    """Nothing, noise, another shape."""
    assert refused(data)[0] == "malformed_message"


@pytest.mark.parametrize(
    "data",
    [
        b"\xa2\x06\x00",
        b"\xa2\x06\x03abc",
        encode_client_message(ClientHeartbeat()) + b"\xa2\x06\x00",
        '{"append_events":{}}',
        '{"command":null}',
        '{"heartbeat":{},"createRun":{}}',
    ],
)
def test_a_command_is_not_a_message(data: bytes | str) -> None:
    """Writes go over HTTP, also when they travel beside something harmless."""
    assert refused(data) == ("authority_write_forbidden", "")


def test_newer_fields_inside_a_known_message_are_skipped() -> None:
    """A newer client may say more in its hello than we know."""
    newer = session_pb2.Hello.FromString(
        session_pb2.ClientMessage.FromString(hello()).hello.SerializeToString() + b"\xa2\x06\x01x"
    )
    data = session_pb2.ClientMessage(hello=newer).SerializeToString()
    assert isinstance(decode_client_message_untrusted(data), Hello)
