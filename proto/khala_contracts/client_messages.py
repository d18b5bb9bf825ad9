"""What a client says to a node, as values, and their mapping to and from the wire.

Everything a client may send is here; there is no message that writes. A message that is none of
these but carries something (a command of another protocol, or of a newer one) is refused with
``authority_write_forbidden``. How many topics one message may name is the node's limit, not a matter
of form; whether a topic's name is one is answered per topic.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, assert_never

import attrs
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from khala_contracts import misplaced_commands, reason_codes, strict_json
from khala_contracts.chain import CHAIN_BYTES
from khala_contracts.errors import WireError
from khala_contracts.frames import SEQ_MAX
from khala_contracts.gen.openagents.sync.v1 import session_pb2
from khala_contracts.ids import is_device_id
from khala_contracts.wire_enums import EnumMap

__all__ = [
    "BUILD_ID_MAX_BYTES",
    "LINEAGE_MAX_BYTES",
    "ClientHeartbeat",
    "ClientMessage",
    "CursorStart",
    "FromStart",
    "Hello",
    "Renew",
    "Subscribe",
    "SubscribeFrom",
    "TopicStart",
    "Unsubscribe",
    "VersionRange",
    "decode_client_message_json_untrusted",
    "decode_client_message_untrusted",
    "encode_client_message",
    "encode_client_message_json",
]

# A build id is a version, a commit, a channel; longer ones are somebody's experiment with our logs.
BUILD_ID_MAX_BYTES: Final = 128
# lin_ and 26 characters today; room for another form, none for a payload.
LINEAGE_MAX_BYTES: Final = 64


class SubscribeFrom(Enum):
    """Where to start without a cursor."""

    BEGINNING = "beginning"
    EARLIEST = "earliest"
    NOW = "now"


@attrs.frozen
class VersionRange:
    """Versions that a client speaks, both ends included."""

    min: int
    max: int


@attrs.frozen
class Hello:
    """First message: who connects, with what right. Exactly one of token and ticket is set."""

    token: str | None = attrs.field(repr=False)
    ticket: str | None = attrs.field(repr=False)
    device_id: str
    client_build_id: str
    protocol: VersionRange
    schema: VersionRange


@attrs.frozen
class CursorStart:
    """Start after what was applied. Lineage is set if seq > 0; chain is ``b""`` if not known."""

    seq: int
    lineage: str = ""
    chain: bytes = attrs.field(default=b"", repr=False)


@attrs.frozen
class FromStart:
    """Start by a word."""

    start: SubscribeFrom


@attrs.frozen
class TopicStart:
    """One topic of a subscribe, its name as the client wrote it."""

    topic: str
    start: CursorStart | FromStart


@attrs.frozen
class Subscribe:
    """Follow these topics."""

    topics: tuple[TopicStart, ...]


@attrs.frozen
class Unsubscribe:
    """Follow these topics no longer."""

    topics: tuple[str, ...]


@attrs.frozen
class Renew:
    """Extend authority by a fresh token, on the same connection."""

    token: str = attrs.field(repr=False)


@attrs.frozen
class ClientHeartbeat:
    """A sign of life."""


ClientMessage = Hello | Subscribe | Unsubscribe | Renew | ClientHeartbeat

_FROM: Final = EnumMap(SubscribeFrom, session_pb2.SubscribeFrom.DESCRIPTOR)
_MEMBERS: Final = frozenset(field.name for field in session_pb2.ClientMessage.DESCRIPTOR.fields)


def encode_client_message(message: ClientMessage) -> bytes:
    """Return the bytes of a binary message (``khala.v1``)."""
    return _to_wire(message).SerializeToString(deterministic=True)


def encode_client_message_json(message: ClientMessage) -> str:
    """Return the text of a JSON message (``khala.v1.json``)."""
    return strict_json.print_json(_to_wire(message))


def decode_client_message_untrusted(data: bytes) -> ClientMessage:
    """Return the message in these bytes.

    Raises:
        WireError: malformed_message with the field, or authority_write_forbidden.
    """
    try:
        wire = session_pb2.ClientMessage.FromString(data)
    except DecodeError:
        if misplaced_commands.is_command(data):
            raise _command() from None
        raise _malformed("a ClientMessage of openagents.sync.v1", "") from None
    if len(UnknownFieldSet(wire)) > 0:
        raise _command()
    try:
        return _from_wire(wire)
    except WireError:
        if misplaced_commands.is_append(data):
            raise _command() from None
        raise


def decode_client_message_json_untrusted(text: str) -> ClientMessage:
    """Return the message in this text.

    Raises:
        WireError: malformed_message with the field, or authority_write_forbidden.
    """
    document = strict_json.load_untrusted(text)
    unknown = strict_json.unknown_keys(document, _MEMBERS)
    if unknown:
        raise _command()
    return _from_wire(strict_json.fill(document, session_pb2.ClientMessage))


def _command() -> WireError:
    return WireError(
        reason_codes.AUTHORITY_WRITE_FORBIDDEN, "hello, subscribe, unsubscribe, renew, heartbeat"
    )


def _malformed(detail: str, field: str) -> WireError:
    return WireError(reason_codes.MALFORMED_MESSAGE, detail, field)


def _to_wire(message: ClientMessage) -> session_pb2.ClientMessage:
    match message:
        case Hello():
            return session_pb2.ClientMessage(hello=_hello_to_wire(message))
        case Subscribe():
            topics = [_start_to_wire(start) for start in message.topics]
            return session_pb2.ClientMessage(subscribe=session_pb2.Subscribe(topics=topics))
        case Unsubscribe():
            return session_pb2.ClientMessage(unsubscribe=session_pb2.Unsubscribe(topics=message.topics))
        case Renew():
            return session_pb2.ClientMessage(renew=session_pb2.Renew(token=message.token))
        case ClientHeartbeat():
            return session_pb2.ClientMessage(heartbeat=session_pb2.ClientHeartbeat())
        case _:
            assert_never(message)


def _hello_to_wire(hello: Hello) -> session_pb2.Hello:
    return session_pb2.Hello(
        token=hello.token,
        ticket=hello.ticket,
        device_id=hello.device_id,
        client_build_id=hello.client_build_id,
        protocol=session_pb2.VersionRange(min=hello.protocol.min, max=hello.protocol.max),
        schema=session_pb2.VersionRange(min=hello.schema.min, max=hello.schema.max),
    )


def _start_to_wire(topic_start: TopicStart) -> session_pb2.TopicSubscription:
    start = topic_start.start
    if isinstance(start, CursorStart):
        cursor = session_pb2.Cursor(seq=start.seq, lineage=start.lineage, chain=start.chain)
        return session_pb2.TopicSubscription(topic=topic_start.topic, cursor=cursor)
    wire = session_pb2.TopicSubscription(topic=topic_start.topic)
    # "from" is the field's name on the wire and a keyword here.
    setattr(wire, "from", session_pb2.SubscribeFrom.Value(_FROM.to_wire(start.start)))
    return wire


def _from_wire(wire: session_pb2.ClientMessage) -> ClientMessage:
    match wire.WhichOneof("message"):
        case "hello":
            return _hello_from_wire(wire.hello)
        case "subscribe":
            topics = enumerate(wire.subscribe.topics)
            return Subscribe(tuple(_start_from_wire(topic, f"subscribe.topics[{i}]") for i, topic in topics))
        case "unsubscribe":
            return Unsubscribe(tuple(wire.unsubscribe.topics))
        case "renew":
            if not wire.renew.token:
                raise _malformed("not empty", "renew.token")
            return Renew(wire.renew.token)
        case "heartbeat":
            return ClientHeartbeat()
        case _:
            raise _malformed("one of hello, subscribe, unsubscribe, renew, heartbeat", "")


def _hello_from_wire(wire: session_pb2.Hello) -> Hello:
    credential = wire.WhichOneof("credential")
    if credential is None or not getattr(wire, credential):
        raise _malformed("token or ticket, not empty", f"hello.{credential or 'token'}")
    if not is_device_id(wire.device_id):
        raise _malformed("dev_ and 8..64 of 0-9 a-z", "hello.device_id")
    if not 1 <= len(wire.client_build_id.encode()) <= BUILD_ID_MAX_BYTES:
        raise _malformed(f"1..{BUILD_ID_MAX_BYTES} bytes", "hello.client_build_id")
    return Hello(
        token=wire.token if credential == "token" else None,
        ticket=wire.ticket if credential == "ticket" else None,
        device_id=wire.device_id,
        client_build_id=wire.client_build_id,
        protocol=_range_from_wire(wire.protocol, "hello.protocol"),
        schema=_range_from_wire(wire.schema, "hello.schema"),
    )


def _range_from_wire(wire: session_pb2.VersionRange, field: str) -> VersionRange:
    if not 1 <= wire.min <= wire.max:
        raise _malformed("1 <= min <= max", field)
    return VersionRange(wire.min, wire.max)


def _start_from_wire(wire: session_pb2.TopicSubscription, field: str) -> TopicStart:
    match wire.WhichOneof("start"):
        case "cursor":
            return TopicStart(wire.topic, _cursor_from_wire(wire.cursor, f"{field}.cursor"))
        case "from":
            return TopicStart(
                wire.topic, FromStart(_FROM.from_wire_untrusted(getattr(wire, "from"), f"{field}.from"))
            )
        case _:
            raise _malformed("cursor or from", f"{field}.cursor")


def _cursor_from_wire(wire: session_pb2.Cursor, field: str) -> CursorStart:
    if not 0 <= wire.seq <= SEQ_MAX:
        raise _malformed("0..2^63-1", f"{field}.seq")
    if wire.seq > 0 and not wire.lineage:
        raise _malformed("required if seq > 0", f"{field}.lineage")
    if len(wire.lineage.encode()) > LINEAGE_MAX_BYTES:
        raise _malformed(f"at most {LINEAGE_MAX_BYTES} bytes", f"{field}.lineage")
    if len(wire.chain) not in {0, CHAIN_BYTES}:
        raise _malformed(f"{CHAIN_BYTES} bytes or absent", f"{field}.chain")
    return CursorStart(wire.seq, wire.lineage, wire.chain)
