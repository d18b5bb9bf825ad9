"""Server messages from bytes to values, both subprotocols.

A reader must live with newer servers: in binary, unknown fields are skipped and an unknown control
message becomes a ``FramesMessage`` without frames; an unknown reason code is kept by name and treated
as ``internal``, not retryable. The strict JSON mapping refuses what it does not know. What breaks an
invariant is refused in both.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from khala_contracts import entries, reason_codes, strict_json
from khala_contracts.chain import CHAIN_BYTES
from khala_contracts.errors import WireError
from khala_contracts.gen.openagents.sync.v1 import errors_pb2, session_pb2
from khala_contracts.server_encoding import MODES, STALE_REASONS, TIERS, UNSUBSCRIBED_REASONS
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
    Subscribed,
    TopicHeartbeat,
    Unsubscribed,
    Welcome,
)
from khala_contracts.topics import TopicName

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from khala_contracts.frames import Frame

__all__ = ["decode_server_message_json_untrusted", "decode_server_message_untrusted", "error_from_wire"]


def decode_server_message_untrusted(data: bytes) -> ServerMessage:
    """Return the message in these bytes.

    Raises:
        WireError: malformed_message, with the field at fault.
    """
    try:
        return _from_wire(session_pb2.ServerMessage.FromString(data))
    except DecodeError:
        raise _malformed("a ServerMessage of openagents.sync.v1", "") from None


def decode_server_message_json_untrusted(text: str | bytes) -> ServerMessage:
    """Return the message in this text. Raises WireError as the binary form."""
    return _from_wire(strict_json.parse_strict(text, session_pb2.ServerMessage))


def error_from_wire(wire: errors_pb2.Error) -> ErrorMessage:
    """Return the error of a generated message; a code of the future is internal, not retryable."""
    row = reason_codes.REGISTRY.get(wire.code) or reason_codes.by_number(wire.reason)
    is_known = row is not reason_codes.UNKNOWN
    return ErrorMessage(
        code=wire.code or row.name,
        message=wire.message,
        topic=wire.topic,
        retryable=is_known and wire.retryable,
        advice=row.advice,
        retry_after_ms=wire.retry_after_ms,
        docs=wire.docs,
        details=MappingProxyType(dict(wire.details)),
        request_id=wire.request_id,
    )


def _malformed(detail: str, field: str) -> WireError:
    return WireError(reason_codes.MALFORMED_MESSAGE, detail, field)


def _chain(value: bytes, field: str) -> bytes:
    if len(value) != CHAIN_BYTES:
        raise _malformed(f"{CHAIN_BYTES} bytes", field)
    return value


def _position(value: int, field: str, *, least: int = 0) -> int:
    if value < least:
        raise _malformed(f"at least {least}", field)
    return value


def _topic(value: str, field: str) -> TopicName:
    if not value:
        raise _malformed("not empty", field)
    return TopicName(value)


def _from_wire(wire: session_pb2.ServerMessage) -> ServerMessage:
    member = wire.WhichOneof("control")
    if member is None:
        return FramesMessage(_check_frames(entries.decode_frames(wire)))
    if wire.frames:
        raise _malformed("frames or one control message, never both", "frames")
    return _READERS[member](getattr(wire, member))


def _check_frames(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    for index in range(1, len(frames)):
        if frames[index].topic != frames[0].topic:
            raise _malformed("frames of one topic", f"frames[{index}].topic")
        if frames[index].seq != frames[index - 1].seq + 1:
            raise _malformed("ascending by one", f"frames[{index}].seq")
    return tuple(frames)


def _read_welcome(wire: session_pb2.Welcome) -> Welcome:
    limits = wire.limits
    return Welcome(
        connection_id=wire.connection_id,
        node_id=wire.node_id,
        protocol=wire.protocol,
        schema=wire.schema,
        heartbeat_interval_ms=wire.heartbeat_interval_ms,
        limits=ConnectionLimits(
            inbound_message_max_bytes=limits.inbound_message_max_bytes,
            client_messages_per_s=limits.client_messages_per_s,
            client_messages_burst=limits.client_messages_burst,
            subscriptions_max=limits.subscriptions_max,
            topics_per_subscribe_max=limits.topics_per_subscribe_max,
            dead_after_ms=limits.dead_after_ms,
        ),
        token_expires_at_ms=wire.token_expires_at,
        server_time_ms=wire.server_time,
    )


def _read_subscribed(wire: session_pb2.Subscribed) -> Subscribed:
    return Subscribed(
        topic=_topic(wire.topic, "subscribed.topic"),
        lineage=wire.lineage,
        head_seq=_position(wire.head_seq, "subscribed.head_seq"),
        floor_seq=_position(wire.floor_seq, "subscribed.floor_seq", least=1),
        chain_at_start=_chain(wire.chain_at_start, "subscribed.chain_at_start"),
        tier=TIERS.from_wire_untrusted(wire.tier, "subscribed.tier"),
        mode=MODES.from_wire_untrusted(wire.mode, "subscribed.mode"),
        start_seq=_position(wire.start_seq, "subscribed.start_seq"),
    )


def _read_replay_complete(wire: session_pb2.ReplayComplete) -> ReplayComplete:
    return ReplayComplete(
        topic=_topic(wire.topic, "replay_complete.topic"),
        through_seq=_position(wire.through_seq, "replay_complete.through_seq"),
        chain=_chain(wire.chain, "replay_complete.chain"),
    )


def _read_unsubscribed(wire: session_pb2.Unsubscribed) -> Unsubscribed:
    return Unsubscribed(
        topic=_topic(wire.topic, "unsubscribed.topic"),
        reason=UNSUBSCRIBED_REASONS.from_wire_untrusted(wire.reason, "unsubscribed.reason"),
    )


def _read_heartbeat(wire: session_pb2.ServerHeartbeat) -> ServerHeartbeat:
    topics = tuple(
        TopicHeartbeat(
            topic=_topic(topic.topic, f"heartbeat.topics[{index}].topic"),
            head_seq=_position(topic.head_seq, f"heartbeat.topics[{index}].head_seq"),
            chain=_chain(topic.chain, f"heartbeat.topics[{index}].chain"),
            headroom_frames=topic.headroom_frames,
            headroom_ms=topic.headroom_ms,
        )
        for index, topic in enumerate(wire.topics)
    )
    return ServerHeartbeat(topics, wire.server_time)


def _read_lagging(wire: session_pb2.Lagging) -> Lagging:
    return Lagging(
        topic=_topic(wire.topic, "lagging.topic"),
        from_seq=_position(wire.from_seq, "lagging.from_seq"),
        head_seq=_position(wire.head_seq, "lagging.head_seq"),
    )


def _read_stale_cursor(wire: session_pb2.StaleCursor) -> StaleCursor:
    snapshot = wire.snapshot
    return StaleCursor(
        topic=_topic(wire.topic, "stale_cursor.topic"),
        reason=STALE_REASONS.from_wire_untrusted(wire.reason, "stale_cursor.reason"),
        lineage=wire.lineage,
        head_seq=_position(wire.head_seq, "stale_cursor.head_seq"),
        floor_seq=_position(wire.floor_seq, "stale_cursor.floor_seq", least=1),
        floor_chain=_chain(wire.floor_chain, "stale_cursor.floor_chain"),
        snapshot=SnapshotInfo(
            available=snapshot.available,
            as_of_seq=snapshot.as_of_seq,
            chain=snapshot.chain,
            format_version=snapshot.format_version,
            path=snapshot.path,
        )
        if wire.HasField("snapshot")
        else None,
    )


def _read_renewed(wire: session_pb2.Renewed) -> Renewed:
    return Renewed(wire.token_expires_at)


def _read_go_away(wire: session_pb2.GoAway) -> GoAway:
    return GoAway(wire.reconnect_after_ms, wire.deadline_ms, wire.ticket or None)


# Keyed by the member's name; that each reader gets its own message type is the table's one promise
# (tests/unit/khala_contracts/test_server_decoding.py: every member has its reader).
_READERS: Final[Mapping[str, Callable[..., ServerControl]]] = {
    "welcome": _read_welcome,
    "subscribed": _read_subscribed,
    "replay_complete": _read_replay_complete,
    "unsubscribed": _read_unsubscribed,
    "heartbeat": _read_heartbeat,
    "lagging": _read_lagging,
    "stale_cursor": _read_stale_cursor,
    "renewed": _read_renewed,
    "error": error_from_wire,
    "go_away": _read_go_away,
}
