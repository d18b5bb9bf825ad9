from khala_contracts.gen.openagents.sync.v1 import errors_pb2 as _errors_pb2
from khala_contracts.gen.openagents.sync.v1 import frames_pb2 as _frames_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubscribeFrom(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUBSCRIBE_FROM_UNSPECIFIED: _ClassVar[SubscribeFrom]
    SUBSCRIBE_FROM_BEGINNING: _ClassVar[SubscribeFrom]
    SUBSCRIBE_FROM_EARLIEST: _ClassVar[SubscribeFrom]
    SUBSCRIBE_FROM_NOW: _ClassVar[SubscribeFrom]

class SubscriptionMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUBSCRIPTION_MODE_UNSPECIFIED: _ClassVar[SubscriptionMode]
    SUBSCRIPTION_MODE_LIVE: _ClassVar[SubscriptionMode]
    SUBSCRIPTION_MODE_REPLAYING: _ClassVar[SubscriptionMode]

class QosTier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QOS_TIER_UNSPECIFIED: _ClassVar[QosTier]
    QOS_TIER_HOT: _ClassVar[QosTier]
    QOS_TIER_WARM: _ClassVar[QosTier]
    QOS_TIER_COLD: _ClassVar[QosTier]

class UnsubscribedReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNSUBSCRIBED_REASON_UNSPECIFIED: _ClassVar[UnsubscribedReason]
    UNSUBSCRIBED_REASON_ASKED: _ClassVar[UnsubscribedReason]
    UNSUBSCRIBED_REASON_SLOW_CONSUMER: _ClassVar[UnsubscribedReason]
    UNSUBSCRIBED_REASON_FORBIDDEN: _ClassVar[UnsubscribedReason]

class StaleReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STALE_REASON_UNSPECIFIED: _ClassVar[StaleReason]
    STALE_REASON_RETENTION_EXPIRED: _ClassVar[StaleReason]
    STALE_REASON_COMPACTION_BOUNDARY: _ClassVar[StaleReason]
    STALE_REASON_REPLAY_BUDGET_EXCEEDED: _ClassVar[StaleReason]
    STALE_REASON_LINEAGE_MISMATCH: _ClassVar[StaleReason]
SUBSCRIBE_FROM_UNSPECIFIED: SubscribeFrom
SUBSCRIBE_FROM_BEGINNING: SubscribeFrom
SUBSCRIBE_FROM_EARLIEST: SubscribeFrom
SUBSCRIBE_FROM_NOW: SubscribeFrom
SUBSCRIPTION_MODE_UNSPECIFIED: SubscriptionMode
SUBSCRIPTION_MODE_LIVE: SubscriptionMode
SUBSCRIPTION_MODE_REPLAYING: SubscriptionMode
QOS_TIER_UNSPECIFIED: QosTier
QOS_TIER_HOT: QosTier
QOS_TIER_WARM: QosTier
QOS_TIER_COLD: QosTier
UNSUBSCRIBED_REASON_UNSPECIFIED: UnsubscribedReason
UNSUBSCRIBED_REASON_ASKED: UnsubscribedReason
UNSUBSCRIBED_REASON_SLOW_CONSUMER: UnsubscribedReason
UNSUBSCRIBED_REASON_FORBIDDEN: UnsubscribedReason
STALE_REASON_UNSPECIFIED: StaleReason
STALE_REASON_RETENTION_EXPIRED: StaleReason
STALE_REASON_COMPACTION_BOUNDARY: StaleReason
STALE_REASON_REPLAY_BUDGET_EXCEEDED: StaleReason
STALE_REASON_LINEAGE_MISMATCH: StaleReason

class VersionRange(_message.Message):
    __slots__ = ("min", "max")
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    min: int
    max: int
    def __init__(self, min: _Optional[int] = ..., max: _Optional[int] = ...) -> None: ...

class Cursor(_message.Message):
    __slots__ = ("seq", "lineage", "chain")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    seq: int
    lineage: str
    chain: bytes
    def __init__(self, seq: _Optional[int] = ..., lineage: _Optional[str] = ..., chain: _Optional[bytes] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("token", "ticket", "device_id", "client_build_id", "protocol", "schema")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    token: str
    ticket: str
    device_id: str
    client_build_id: str
    protocol: VersionRange
    schema: VersionRange
    def __init__(self, token: _Optional[str] = ..., ticket: _Optional[str] = ..., device_id: _Optional[str] = ..., client_build_id: _Optional[str] = ..., protocol: _Optional[_Union[VersionRange, _Mapping[str, object]]] = ..., schema: _Optional[_Union[VersionRange, _Mapping[str, object]]] = ...) -> None: ...

class TopicSubscription(_message.Message):
    __slots__ = ("topic", "cursor")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    topic: str
    cursor: Cursor
    def __init__(self, topic: _Optional[str] = ..., cursor: _Optional[_Union[Cursor, _Mapping[str, object]]] = ..., **kwargs: object) -> None: ...

class Subscribe(_message.Message):
    __slots__ = ("topics",)
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    topics: _containers.RepeatedCompositeFieldContainer[TopicSubscription]
    def __init__(self, topics: _Optional[_Iterable[_Union[TopicSubscription, _Mapping[str, object]]]] = ...) -> None: ...

class Unsubscribe(_message.Message):
    __slots__ = ("topics",)
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    topics: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, topics: _Optional[_Iterable[str]] = ...) -> None: ...

class Renew(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class ClientHeartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClientMessage(_message.Message):
    __slots__ = ("hello", "subscribe", "unsubscribe", "renew", "heartbeat")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    UNSUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    subscribe: Subscribe
    unsubscribe: Unsubscribe
    renew: Renew
    heartbeat: ClientHeartbeat
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping[str, object]]] = ..., subscribe: _Optional[_Union[Subscribe, _Mapping[str, object]]] = ..., unsubscribe: _Optional[_Union[Unsubscribe, _Mapping[str, object]]] = ..., renew: _Optional[_Union[Renew, _Mapping[str, object]]] = ..., heartbeat: _Optional[_Union[ClientHeartbeat, _Mapping[str, object]]] = ...) -> None: ...

class ConnectionLimits(_message.Message):
    __slots__ = ("inbound_message_max_bytes", "client_messages_per_s", "client_messages_burst", "subscriptions_max", "topics_per_subscribe_max", "dead_after_ms")
    INBOUND_MESSAGE_MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    CLIENT_MESSAGES_PER_S_FIELD_NUMBER: _ClassVar[int]
    CLIENT_MESSAGES_BURST_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIPTIONS_MAX_FIELD_NUMBER: _ClassVar[int]
    TOPICS_PER_SUBSCRIBE_MAX_FIELD_NUMBER: _ClassVar[int]
    DEAD_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    inbound_message_max_bytes: int
    client_messages_per_s: int
    client_messages_burst: int
    subscriptions_max: int
    topics_per_subscribe_max: int
    dead_after_ms: int
    def __init__(self, inbound_message_max_bytes: _Optional[int] = ..., client_messages_per_s: _Optional[int] = ..., client_messages_burst: _Optional[int] = ..., subscriptions_max: _Optional[int] = ..., topics_per_subscribe_max: _Optional[int] = ..., dead_after_ms: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("connection_id", "node_id", "protocol", "schema", "heartbeat_interval_ms", "limits", "token_expires_at", "server_time")
    CONNECTION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    connection_id: str
    node_id: str
    protocol: int
    schema: int
    heartbeat_interval_ms: int
    limits: ConnectionLimits
    token_expires_at: int
    server_time: int
    def __init__(self, connection_id: _Optional[str] = ..., node_id: _Optional[str] = ..., protocol: _Optional[int] = ..., schema: _Optional[int] = ..., heartbeat_interval_ms: _Optional[int] = ..., limits: _Optional[_Union[ConnectionLimits, _Mapping[str, object]]] = ..., token_expires_at: _Optional[int] = ..., server_time: _Optional[int] = ...) -> None: ...

class Subscribed(_message.Message):
    __slots__ = ("topic", "lineage", "head_seq", "floor_seq", "chain_at_start", "tier", "mode", "start_seq")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQ_FIELD_NUMBER: _ClassVar[int]
    FLOOR_SEQ_FIELD_NUMBER: _ClassVar[int]
    CHAIN_AT_START_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    START_SEQ_FIELD_NUMBER: _ClassVar[int]
    topic: str
    lineage: str
    head_seq: int
    floor_seq: int
    chain_at_start: bytes
    tier: QosTier
    mode: SubscriptionMode
    start_seq: int
    def __init__(self, topic: _Optional[str] = ..., lineage: _Optional[str] = ..., head_seq: _Optional[int] = ..., floor_seq: _Optional[int] = ..., chain_at_start: _Optional[bytes] = ..., tier: _Optional[_Union[QosTier, str, int]] = ..., mode: _Optional[_Union[SubscriptionMode, str, int]] = ..., start_seq: _Optional[int] = ...) -> None: ...

class ReplayComplete(_message.Message):
    __slots__ = ("topic", "through_seq", "chain")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    THROUGH_SEQ_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    topic: str
    through_seq: int
    chain: bytes
    def __init__(self, topic: _Optional[str] = ..., through_seq: _Optional[int] = ..., chain: _Optional[bytes] = ...) -> None: ...

class Unsubscribed(_message.Message):
    __slots__ = ("topic", "reason")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    topic: str
    reason: UnsubscribedReason
    def __init__(self, topic: _Optional[str] = ..., reason: _Optional[_Union[UnsubscribedReason, str, int]] = ...) -> None: ...

class TopicHeartbeat(_message.Message):
    __slots__ = ("topic", "head_seq", "chain", "headroom_frames", "headroom_ms")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQ_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    HEADROOM_FRAMES_FIELD_NUMBER: _ClassVar[int]
    HEADROOM_MS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    head_seq: int
    chain: bytes
    headroom_frames: int
    headroom_ms: int
    def __init__(self, topic: _Optional[str] = ..., head_seq: _Optional[int] = ..., chain: _Optional[bytes] = ..., headroom_frames: _Optional[int] = ..., headroom_ms: _Optional[int] = ...) -> None: ...

class ServerHeartbeat(_message.Message):
    __slots__ = ("topics", "server_time")
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    topics: _containers.RepeatedCompositeFieldContainer[TopicHeartbeat]
    server_time: int
    def __init__(self, topics: _Optional[_Iterable[_Union[TopicHeartbeat, _Mapping[str, object]]]] = ..., server_time: _Optional[int] = ...) -> None: ...

class Lagging(_message.Message):
    __slots__ = ("topic", "from_seq", "head_seq")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    FROM_SEQ_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQ_FIELD_NUMBER: _ClassVar[int]
    topic: str
    from_seq: int
    head_seq: int
    def __init__(self, topic: _Optional[str] = ..., from_seq: _Optional[int] = ..., head_seq: _Optional[int] = ...) -> None: ...

class SnapshotInfo(_message.Message):
    __slots__ = ("available", "as_of_seq", "chain", "format_version", "path")
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_SEQ_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    available: bool
    as_of_seq: int
    chain: bytes
    format_version: int
    path: str
    def __init__(self, available: _Optional[bool] = ..., as_of_seq: _Optional[int] = ..., chain: _Optional[bytes] = ..., format_version: _Optional[int] = ..., path: _Optional[str] = ...) -> None: ...

class StaleCursor(_message.Message):
    __slots__ = ("topic", "reason", "lineage", "head_seq", "floor_seq", "floor_chain", "snapshot")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQ_FIELD_NUMBER: _ClassVar[int]
    FLOOR_SEQ_FIELD_NUMBER: _ClassVar[int]
    FLOOR_CHAIN_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    topic: str
    reason: StaleReason
    lineage: str
    head_seq: int
    floor_seq: int
    floor_chain: bytes
    snapshot: SnapshotInfo
    def __init__(self, topic: _Optional[str] = ..., reason: _Optional[_Union[StaleReason, str, int]] = ..., lineage: _Optional[str] = ..., head_seq: _Optional[int] = ..., floor_seq: _Optional[int] = ..., floor_chain: _Optional[bytes] = ..., snapshot: _Optional[_Union[SnapshotInfo, _Mapping[str, object]]] = ...) -> None: ...

class Renewed(_message.Message):
    __slots__ = ("token_expires_at",)
    TOKEN_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    token_expires_at: int
    def __init__(self, token_expires_at: _Optional[int] = ...) -> None: ...

class GoAway(_message.Message):
    __slots__ = ("reconnect_after_ms", "deadline_ms", "ticket")
    RECONNECT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    reconnect_after_ms: int
    deadline_ms: int
    ticket: str
    def __init__(self, reconnect_after_ms: _Optional[int] = ..., deadline_ms: _Optional[int] = ..., ticket: _Optional[str] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("frames", "welcome", "subscribed", "replay_complete", "unsubscribed", "heartbeat", "lagging", "stale_cursor", "renewed", "error", "go_away")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBED_FIELD_NUMBER: _ClassVar[int]
    REPLAY_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    UNSUBSCRIBED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    LAGGING_FIELD_NUMBER: _ClassVar[int]
    STALE_CURSOR_FIELD_NUMBER: _ClassVar[int]
    RENEWED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    GO_AWAY_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedCompositeFieldContainer[_frames_pb2.KhalaFrame]
    welcome: Welcome
    subscribed: Subscribed
    replay_complete: ReplayComplete
    unsubscribed: Unsubscribed
    heartbeat: ServerHeartbeat
    lagging: Lagging
    stale_cursor: StaleCursor
    renewed: Renewed
    error: _errors_pb2.Error
    go_away: GoAway
    def __init__(self, frames: _Optional[_Iterable[_Union[_frames_pb2.KhalaFrame, _Mapping[str, object]]]] = ..., welcome: _Optional[_Union[Welcome, _Mapping[str, object]]] = ..., subscribed: _Optional[_Union[Subscribed, _Mapping[str, object]]] = ..., replay_complete: _Optional[_Union[ReplayComplete, _Mapping[str, object]]] = ..., unsubscribed: _Optional[_Union[Unsubscribed, _Mapping[str, object]]] = ..., heartbeat: _Optional[_Union[ServerHeartbeat, _Mapping[str, object]]] = ..., lagging: _Optional[_Union[Lagging, _Mapping[str, object]]] = ..., stale_cursor: _Optional[_Union[StaleCursor, _Mapping[str, object]]] = ..., renewed: _Optional[_Union[Renewed, _Mapping[str, object]]] = ..., error: _Optional[_Union[_errors_pb2.Error, _Mapping[str, object]]] = ..., go_away: _Optional[_Union[GoAway, _Mapping[str, object]]] = ...) -> None: ...
