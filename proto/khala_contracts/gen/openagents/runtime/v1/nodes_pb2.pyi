from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeReport(_message.Message):
    __slots__ = ("node_id", "instance_id", "build_id", "started_at", "draining", "leaving", "not_ready", "figures", "topics", "uptime_ms")
    class NotReadyEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    NOT_READY_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_MS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    instance_id: str
    build_id: str
    started_at: int
    draining: bool
    leaving: bool
    not_ready: _containers.ScalarMap[str, str]
    figures: FanoutFigures
    topics: _containers.RepeatedCompositeFieldContainer[NodeTopic]
    uptime_ms: int
    def __init__(self, node_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., build_id: _Optional[str] = ..., started_at: _Optional[int] = ..., draining: _Optional[bool] = ..., leaving: _Optional[bool] = ..., not_ready: _Optional[_Mapping[str, str]] = ..., figures: _Optional[_Union[FanoutFigures, _Mapping[str, object]]] = ..., topics: _Optional[_Iterable[_Union[NodeTopic, _Mapping[str, object]]]] = ..., uptime_ms: _Optional[int] = ...) -> None: ...

class NodeReportAck(_message.Message):
    __slots__ = ("silent_after_ms",)
    SILENT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    silent_after_ms: int
    def __init__(self, silent_after_ms: _Optional[int] = ...) -> None: ...

class FanoutFigures(_message.Message):
    __slots__ = ("connections", "subscriptions", "topics_live", "waiting_bytes", "connections_blocked", "write_stall_max_ms", "lag_frames_max", "frames_appended", "deliveries", "heals", "records_forged", "evictions", "slow_consumers", "fairness")
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    TOPICS_LIVE_FIELD_NUMBER: _ClassVar[int]
    WAITING_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_BLOCKED_FIELD_NUMBER: _ClassVar[int]
    WRITE_STALL_MAX_MS_FIELD_NUMBER: _ClassVar[int]
    LAG_FRAMES_MAX_FIELD_NUMBER: _ClassVar[int]
    FRAMES_APPENDED_FIELD_NUMBER: _ClassVar[int]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    HEALS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FORGED_FIELD_NUMBER: _ClassVar[int]
    EVICTIONS_FIELD_NUMBER: _ClassVar[int]
    SLOW_CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    FAIRNESS_FIELD_NUMBER: _ClassVar[int]
    connections: int
    subscriptions: int
    topics_live: int
    waiting_bytes: int
    connections_blocked: int
    write_stall_max_ms: int
    lag_frames_max: int
    frames_appended: int
    deliveries: int
    heals: int
    records_forged: int
    evictions: int
    slow_consumers: SlowConsumerActions
    fairness: Fairness
    def __init__(self, connections: _Optional[int] = ..., subscriptions: _Optional[int] = ..., topics_live: _Optional[int] = ..., waiting_bytes: _Optional[int] = ..., connections_blocked: _Optional[int] = ..., write_stall_max_ms: _Optional[int] = ..., lag_frames_max: _Optional[int] = ..., frames_appended: _Optional[int] = ..., deliveries: _Optional[int] = ..., heals: _Optional[int] = ..., records_forged: _Optional[int] = ..., evictions: _Optional[int] = ..., slow_consumers: _Optional[_Union[SlowConsumerActions, _Mapping[str, object]]] = ..., fairness: _Optional[_Union[Fairness, _Mapping[str, object]]] = ...) -> None: ...

class SlowConsumerActions(_message.Message):
    __slots__ = ("throttle", "catch_up", "release", "disconnect")
    THROTTLE_FIELD_NUMBER: _ClassVar[int]
    CATCH_UP_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    DISCONNECT_FIELD_NUMBER: _ClassVar[int]
    throttle: int
    catch_up: int
    release: int
    disconnect: int
    def __init__(self, throttle: _Optional[int] = ..., catch_up: _Optional[int] = ..., release: _Optional[int] = ..., disconnect: _Optional[int] = ...) -> None: ...

class Fairness(_message.Message):
    __slots__ = ("index", "judged", "sum", "sum_of_squares")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    SUM_OF_SQUARES_FIELD_NUMBER: _ClassVar[int]
    index: float
    judged: int
    sum: float
    sum_of_squares: float
    def __init__(self, index: _Optional[float] = ..., judged: _Optional[int] = ..., sum: _Optional[float] = ..., sum_of_squares: _Optional[float] = ...) -> None: ...

class NodeTopic(_message.Message):
    __slots__ = ("topic", "topic_class", "head_seq", "subscribers", "replaying", "frames_per_s", "lag_frames_max")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    TOPIC_CLASS_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQ_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    REPLAYING_FIELD_NUMBER: _ClassVar[int]
    FRAMES_PER_S_FIELD_NUMBER: _ClassVar[int]
    LAG_FRAMES_MAX_FIELD_NUMBER: _ClassVar[int]
    topic: str
    topic_class: str
    head_seq: int
    subscribers: int
    replaying: int
    frames_per_s: float
    lag_frames_max: int
    def __init__(self, topic: _Optional[str] = ..., topic_class: _Optional[str] = ..., head_seq: _Optional[int] = ..., subscribers: _Optional[int] = ..., replaying: _Optional[int] = ..., frames_per_s: _Optional[float] = ..., lag_frames_max: _Optional[int] = ...) -> None: ...

class FanoutMetricsResponse(_message.Message):
    __slots__ = ("generated_at", "topic_limit", "nodes", "totals", "topics", "trend")
    GENERATED_AT_FIELD_NUMBER: _ClassVar[int]
    TOPIC_LIMIT_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    TREND_FIELD_NUMBER: _ClassVar[int]
    generated_at: int
    topic_limit: int
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStanding]
    totals: FanoutTotals
    topics: _containers.RepeatedCompositeFieldContainer[TopicStanding]
    trend: FanoutTrend
    def __init__(self, generated_at: _Optional[int] = ..., topic_limit: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[NodeStanding, _Mapping[str, object]]]] = ..., totals: _Optional[_Union[FanoutTotals, _Mapping[str, object]]] = ..., topics: _Optional[_Iterable[_Union[TopicStanding, _Mapping[str, object]]]] = ..., trend: _Optional[_Union[FanoutTrend, _Mapping[str, object]]] = ...) -> None: ...

class NodeStanding(_message.Message):
    __slots__ = ("node_id", "instance_id", "build_id", "started_at", "report_age_ms", "silent", "ready", "draining", "not_ready", "figures")
    class NotReadyEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    REPORT_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    SILENT_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    NOT_READY_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    instance_id: str
    build_id: str
    started_at: int
    report_age_ms: int
    silent: bool
    ready: bool
    draining: bool
    not_ready: _containers.ScalarMap[str, str]
    figures: FanoutFigures
    def __init__(self, node_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., build_id: _Optional[str] = ..., started_at: _Optional[int] = ..., report_age_ms: _Optional[int] = ..., silent: _Optional[bool] = ..., ready: _Optional[bool] = ..., draining: _Optional[bool] = ..., not_ready: _Optional[_Mapping[str, str]] = ..., figures: _Optional[_Union[FanoutFigures, _Mapping[str, object]]] = ...) -> None: ...

class FanoutTotals(_message.Message):
    __slots__ = ("nodes", "nodes_ready", "nodes_draining", "nodes_silent", "figures")
    NODES_FIELD_NUMBER: _ClassVar[int]
    NODES_READY_FIELD_NUMBER: _ClassVar[int]
    NODES_DRAINING_FIELD_NUMBER: _ClassVar[int]
    NODES_SILENT_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    nodes: int
    nodes_ready: int
    nodes_draining: int
    nodes_silent: int
    figures: FanoutFigures
    def __init__(self, nodes: _Optional[int] = ..., nodes_ready: _Optional[int] = ..., nodes_draining: _Optional[int] = ..., nodes_silent: _Optional[int] = ..., figures: _Optional[_Union[FanoutFigures, _Mapping[str, object]]] = ...) -> None: ...

class TopicStanding(_message.Message):
    __slots__ = ("topic", "topic_class", "nodes", "subscribers", "replaying", "head_seq", "frames_per_s", "lag_frames_max", "rate_rank", "lag_rank")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    TOPIC_CLASS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    REPLAYING_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQ_FIELD_NUMBER: _ClassVar[int]
    FRAMES_PER_S_FIELD_NUMBER: _ClassVar[int]
    LAG_FRAMES_MAX_FIELD_NUMBER: _ClassVar[int]
    RATE_RANK_FIELD_NUMBER: _ClassVar[int]
    LAG_RANK_FIELD_NUMBER: _ClassVar[int]
    topic: str
    topic_class: str
    nodes: int
    subscribers: int
    replaying: int
    head_seq: int
    frames_per_s: float
    lag_frames_max: int
    rate_rank: int
    lag_rank: int
    def __init__(self, topic: _Optional[str] = ..., topic_class: _Optional[str] = ..., nodes: _Optional[int] = ..., subscribers: _Optional[int] = ..., replaying: _Optional[int] = ..., head_seq: _Optional[int] = ..., frames_per_s: _Optional[float] = ..., lag_frames_max: _Optional[int] = ..., rate_rank: _Optional[int] = ..., lag_rank: _Optional[int] = ...) -> None: ...

class FanoutTrend(_message.Message):
    __slots__ = ("window_s", "covered_s", "fairness", "fairness_min", "before", "after")
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    COVERED_S_FIELD_NUMBER: _ClassVar[int]
    FAIRNESS_FIELD_NUMBER: _ClassVar[int]
    FAIRNESS_MIN_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    window_s: int
    covered_s: int
    fairness: float
    fairness_min: float
    before: FanoutChanges
    after: FanoutChanges
    def __init__(self, window_s: _Optional[int] = ..., covered_s: _Optional[int] = ..., fairness: _Optional[float] = ..., fairness_min: _Optional[float] = ..., before: _Optional[_Union[FanoutChanges, _Mapping[str, object]]] = ..., after: _Optional[_Union[FanoutChanges, _Mapping[str, object]]] = ...) -> None: ...

class FanoutChanges(_message.Message):
    __slots__ = ("throttle", "catch_up", "release", "disconnect", "evictions")
    THROTTLE_FIELD_NUMBER: _ClassVar[int]
    CATCH_UP_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    DISCONNECT_FIELD_NUMBER: _ClassVar[int]
    EVICTIONS_FIELD_NUMBER: _ClassVar[int]
    throttle: int
    catch_up: int
    release: int
    disconnect: int
    evictions: int
    def __init__(self, throttle: _Optional[int] = ..., catch_up: _Optional[int] = ..., release: _Optional[int] = ..., disconnect: _Optional[int] = ..., evictions: _Optional[int] = ...) -> None: ...
