"""Server messages from values to bytes, both subprotocols. Frames are joined entries: ``entries.py``.

What a heartbeat says of a topic is the same for all who stand at its head. So heartbeats are also made of
entries, each encoded once and joined for a connection; the bytes are those of the whole message:

    binary    0x32 varint(length of the rest) [0x0A varint(length) TopicHeartbeat]* 0x10 varint(server_time)
    JSON      {"heartbeat":{"topics":[ENTRY,ENTRY],"server_time":"1700000000000"}}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from khala_contracts import reason_codes, strict_json
from khala_contracts.entries import encode_varint
from khala_contracts.gen.openagents.sync.v1 import errors_pb2, session_pb2
from khala_contracts.reason_codes import Advice
from khala_contracts.server_messages import (
    ErrorMessage,
    GoAway,
    Lagging,
    Renewed,
    ReplayComplete,
    ServerControl,
    ServerHeartbeat,
    StaleCursor,
    StaleReason,
    Subscribed,
    SubscriptionMode,
    TopicHeartbeat,
    Unsubscribed,
    UnsubscribedReason,
    Welcome,
)
from khala_contracts.topics import Tier
from khala_contracts.wire_enums import EnumMap

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "MODES",
    "STALE_REASONS",
    "TIERS",
    "UNSUBSCRIBED_REASONS",
    "encode_server_control",
    "encode_server_control_json",
    "encode_topic_heartbeat",
    "error_to_wire",
    "join_heartbeat",
]

TIERS: Final = EnumMap(Tier, session_pb2.QosTier.DESCRIPTOR)
MODES: Final = EnumMap(SubscriptionMode, session_pb2.SubscriptionMode.DESCRIPTOR)
UNSUBSCRIBED_REASONS: Final = EnumMap(UnsubscribedReason, session_pb2.UnsubscribedReason.DESCRIPTOR)
STALE_REASONS: Final = EnumMap(StaleReason, session_pb2.StaleReason.DESCRIPTOR)
# Fields 6 of ServerMessage and 2 of ServerHeartbeat.
_HEARTBEAT_TAG: Final = b"\x32"
_SERVER_TIME_TAG: Final = b"\x10"
_ADVICE: Final = EnumMap(Advice, errors_pb2.Advice.DESCRIPTOR)


def encode_server_control(message: ServerControl) -> bytes:
    """Return the bytes of a binary message (``khala.v1``)."""
    return _to_wire(message).SerializeToString(deterministic=True)


def encode_server_control_json(message: ServerControl) -> bytes:
    """Return the UTF-8 text of a JSON message (``khala.v1.json``)."""
    mapping = strict_json.message_to_mapping(_to_wire(message))
    # A control message has no frames, and an empty list would only cost bytes.
    del mapping["frames"]
    return strict_json.dump(mapping).encode()


def encode_topic_heartbeat(topic: TopicHeartbeat, *, is_text: bool) -> bytes:
    """Return what heartbeats say of one topic, as an entry for ``join_heartbeat``."""
    wire = _topic_heartbeat_to_wire(topic)
    if is_text:
        return strict_json.print_json(wire).encode()
    return session_pb2.ServerHeartbeat(topics=[wire]).SerializeToString(deterministic=True)


def join_heartbeat(entries: Iterable[bytes], server_time_ms: int, *, is_text: bool) -> bytes:
    """Return the heartbeat of these entries, in order: the bytes that ``encode_server_control`` gives.

    Args:
        entries: Of ``encode_topic_heartbeat``, all for the same subprotocol.
        server_time_ms: Unix milliseconds, above 0.
        is_text: Whether the subprotocol is JSON.
    """
    if is_text:
        return b'{"heartbeat":{"topics":[%b],"server_time":"%d"}}' % (b",".join(entries), server_time_ms)
    body = b"".join((*entries, _SERVER_TIME_TAG, encode_varint(server_time_ms)))
    return _HEARTBEAT_TAG + encode_varint(len(body)) + body


def error_to_wire(error: ErrorMessage) -> errors_pb2.Error:
    """Return the generated message of an error: the body of every HTTP refusal."""
    row = reason_codes.REGISTRY.get(error.code, reason_codes.UNKNOWN)
    return errors_pb2.Error(
        code=error.code,
        message=error.message,
        topic=error.topic,
        retryable=error.retryable,
        advice=_ADVICE.to_wire(error.advice),
        retry_after_ms=error.retry_after_ms,
        docs=error.docs,
        details=dict(error.details),
        reason=errors_pb2.ReasonCode.Name(row.number),
        request_id=error.request_id,
    )


def _to_wire(message: ServerControl) -> session_pb2.ServerMessage:
    match message:
        case Welcome():
            return session_pb2.ServerMessage(welcome=_welcome_to_wire(message))
        case Subscribed():
            return session_pb2.ServerMessage(subscribed=_subscribed_to_wire(message))
        case ReplayComplete():
            complete = session_pb2.ReplayComplete(
                topic=message.topic, through_seq=message.through_seq, chain=message.chain
            )
            return session_pb2.ServerMessage(replay_complete=complete)
        case Unsubscribed():
            reason = UNSUBSCRIBED_REASONS.to_wire(message.reason)
            return session_pb2.ServerMessage(
                unsubscribed=session_pb2.Unsubscribed(topic=message.topic, reason=reason)
            )
        case ServerHeartbeat():
            return session_pb2.ServerMessage(heartbeat=_heartbeat_to_wire(message))
        case Lagging():
            lagging = session_pb2.Lagging(
                topic=message.topic, from_seq=message.from_seq, head_seq=message.head_seq
            )
            return session_pb2.ServerMessage(lagging=lagging)
        case StaleCursor():
            return session_pb2.ServerMessage(stale_cursor=_stale_to_wire(message))
        case Renewed():
            return session_pb2.ServerMessage(
                renewed=session_pb2.Renewed(token_expires_at=message.token_expires_at_ms)
            )
        case ErrorMessage():
            return session_pb2.ServerMessage(error=error_to_wire(message))
        case GoAway():
            go_away = session_pb2.GoAway(
                reconnect_after_ms=message.reconnect_after_ms,
                deadline_ms=message.deadline_ms,
                ticket=message.ticket,
            )
            return session_pb2.ServerMessage(go_away=go_away)
        case _:
            assert_never(message)


def _welcome_to_wire(welcome: Welcome) -> session_pb2.Welcome:
    limits = welcome.limits
    return session_pb2.Welcome(
        connection_id=welcome.connection_id,
        node_id=welcome.node_id,
        protocol=welcome.protocol,
        schema=welcome.schema,
        heartbeat_interval_ms=welcome.heartbeat_interval_ms,
        limits=session_pb2.ConnectionLimits(
            inbound_message_max_bytes=limits.inbound_message_max_bytes,
            client_messages_per_s=limits.client_messages_per_s,
            client_messages_burst=limits.client_messages_burst,
            subscriptions_max=limits.subscriptions_max,
            topics_per_subscribe_max=limits.topics_per_subscribe_max,
            dead_after_ms=limits.dead_after_ms,
        ),
        token_expires_at=welcome.token_expires_at_ms,
        server_time=welcome.server_time_ms,
    )


def _subscribed_to_wire(message: Subscribed) -> session_pb2.Subscribed:
    return session_pb2.Subscribed(
        topic=message.topic,
        lineage=message.lineage,
        head_seq=message.head_seq,
        floor_seq=message.floor_seq,
        chain_at_start=message.chain_at_start,
        tier=TIERS.to_wire(message.tier),
        mode=MODES.to_wire(message.mode),
        start_seq=message.start_seq,
    )


def _heartbeat_to_wire(message: ServerHeartbeat) -> session_pb2.ServerHeartbeat:
    topics = [_topic_heartbeat_to_wire(topic) for topic in message.topics]
    return session_pb2.ServerHeartbeat(topics=topics, server_time=message.server_time_ms)


def _topic_heartbeat_to_wire(topic: TopicHeartbeat) -> session_pb2.TopicHeartbeat:
    return session_pb2.TopicHeartbeat(
        topic=topic.topic,
        head_seq=topic.head_seq,
        chain=topic.chain,
        headroom_frames=topic.headroom_frames,
        headroom_ms=topic.headroom_ms,
    )


def _stale_to_wire(message: StaleCursor) -> session_pb2.StaleCursor:
    snapshot = message.snapshot
    return session_pb2.StaleCursor(
        topic=message.topic,
        reason=STALE_REASONS.to_wire(message.reason),
        lineage=message.lineage,
        head_seq=message.head_seq,
        floor_seq=message.floor_seq,
        floor_chain=message.floor_chain,
        snapshot=None
        if snapshot is None
        else session_pb2.SnapshotInfo(
            available=snapshot.available,
            as_of_seq=snapshot.as_of_seq,
            chain=snapshot.chain,
            format_version=snapshot.format_version,
            path=snapshot.path,
        ),
    )
