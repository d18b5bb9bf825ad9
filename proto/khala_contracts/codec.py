"""The one door between wire and domain; its rooms are the modules that it re-exports from.

    entries.py           frames as bytes: the exact layout of an entry, joined ranges, JSON frames
    client_messages.py   what clients say: values, decoding, encoding
    server_messages.py   what nodes say: values
    server_encoding.py   what nodes say: values to bytes
    server_decoding.py   what nodes say: bytes to values

Exact layout of an entry (tests/contract/test_golden_frames.py, and runtime.append_v1 in SQL):
0x0A varint(len) [0x0A len topic][0x10 varint seq][0x1A len kind][0x22 len payload, left out if the
payload is empty][0x28 varint schema_version]. Everything that ends in ``_untrusted`` raises
``WireError`` and nothing else, whatever it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from khala_contracts import reason_codes
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
from khala_contracts.entries import (
    EntryTemplate,
    count_sound_entries,
    decode_entries,
    encode_entry,
    encode_varint,
    frame_json,
)
from khala_contracts.errors import WireError
from khala_contracts.server_decoding import (
    decode_server_message_json_untrusted,
    decode_server_message_untrusted,
    error_from_wire,
)
from khala_contracts.server_encoding import (
    encode_server_control,
    encode_server_control_json,
    encode_topic_heartbeat,
    error_to_wire,
    join_heartbeat,
)
from khala_contracts.server_messages import (
    ConnectionLimits,
    ErrorMessage,
    FramesMessage,
    GoAway,
    Lagging,
    Renewed,
    ReplayComplete,
    ServerControl,
    ServerHeartbeat,
    ServerMessage,
    SnapshotInfo,
    StaleCursor,
    StaleReason,
    Subscribed,
    SubscriptionMode,
    TopicHeartbeat,
    TopicPosition,
    Unsubscribed,
    UnsubscribedReason,
    Welcome,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ClientHeartbeat",
    "ClientMessage",
    "ConnectionLimits",
    "CursorStart",
    "EntryTemplate",
    "ErrorMessage",
    "FramesMessage",
    "FromStart",
    "GoAway",
    "Hello",
    "Lagging",
    "Renew",
    "Renewed",
    "ReplayComplete",
    "ServerControl",
    "ServerHeartbeat",
    "ServerMessage",
    "SnapshotInfo",
    "StaleCursor",
    "StaleReason",
    "Subscribe",
    "SubscribeFrom",
    "Subscribed",
    "SubscriptionMode",
    "TopicHeartbeat",
    "TopicPosition",
    "TopicStart",
    "Unsubscribe",
    "Unsubscribed",
    "UnsubscribedReason",
    "VersionRange",
    "Welcome",
    "WireError",
    "count_sound_entries",
    "count_unknown_fields",
    "decode_client_message_json_untrusted",
    "decode_client_message_untrusted",
    "decode_entries",
    "decode_message_untrusted",
    "decode_server_message_json_untrusted",
    "decode_server_message_untrusted",
    "encode_client_message",
    "encode_client_message_json",
    "encode_entry",
    "encode_message",
    "encode_server_control",
    "encode_server_control_json",
    "encode_topic_heartbeat",
    "encode_varint",
    "error_from_wire",
    "error_to_wire",
    "frame_json",
    "join_heartbeat",
]

M = TypeVar("M", bound=Message)


def decode_message_untrusted(message_cls: type[M], data: bytes) -> M:
    """Return the generated message in these bytes; unknown fields are kept in it.

    Raises:
        WireError: malformed_message.
    """
    try:
        return message_cls.FromString(data)
    except DecodeError:
        raise WireError(reason_codes.MALFORMED_MESSAGE, f"a {message_cls.DESCRIPTOR.full_name}") from None


def encode_message(message: Message) -> bytes:
    """Return the bytes of a generated message; equal messages give equal bytes."""
    return message.SerializeToString(deterministic=True)


def count_unknown_fields(message: Message) -> int:
    """Return how many fields of the message, at any depth, this build does not know."""
    return len(UnknownFieldSet(message)) + sum(count_unknown_fields(child) for child in _children(message))


def _children(message: Message) -> Iterator[Message]:
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if not field.is_repeated:
            yield value
        elif not field.message_type.GetOptions().map_entry:
            yield from value
