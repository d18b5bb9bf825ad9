from google.protobuf import struct_pb2 as _struct_pb2
from khala_contracts.gen.openagents.runtime.v1 import events_pb2 as _events_pb2
from khala_contracts.gen.openagents.sync.v1 import frames_pb2 as _frames_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Ack(_message.Message):
    __slots__ = ("event_id", "topic", "seq", "lineage", "chain")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    topic: str
    seq: int
    lineage: str
    chain: bytes
    def __init__(self, event_id: _Optional[str] = ..., topic: _Optional[str] = ..., seq: _Optional[int] = ..., lineage: _Optional[str] = ..., chain: _Optional[bytes] = ...) -> None: ...

class Watermark(_message.Message):
    __slots__ = ("topic", "lineage", "seq", "chain")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    topic: str
    lineage: str
    seq: int
    chain: bytes
    def __init__(self, topic: _Optional[str] = ..., lineage: _Optional[str] = ..., seq: _Optional[int] = ..., chain: _Optional[bytes] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("run_id", "name", "state", "owner_user_id", "org_id", "agent", "source", "attributes", "created_at_us", "finished_at_us", "topic", "watermark")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OWNER_USER_ID_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_US_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_US_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    name: str
    state: _events_pb2.RunState
    owner_user_id: str
    org_id: str
    agent: str
    source: str
    attributes: _containers.ScalarMap[str, str]
    created_at_us: int
    finished_at_us: int
    topic: str
    watermark: Watermark
    def __init__(self, run_id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[_Union[_events_pb2.RunState, str, int]] = ..., owner_user_id: _Optional[str] = ..., org_id: _Optional[str] = ..., agent: _Optional[str] = ..., source: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ..., created_at_us: _Optional[int] = ..., finished_at_us: _Optional[int] = ..., topic: _Optional[str] = ..., watermark: _Optional[_Union[Watermark, _Mapping[str, object]]] = ...) -> None: ...

class CreateRunRequest(_message.Message):
    __slots__ = ("name", "agent", "source", "attributes", "org_id")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    agent: str
    source: str
    attributes: _containers.ScalarMap[str, str]
    org_id: str
    def __init__(self, name: _Optional[str] = ..., agent: _Optional[str] = ..., source: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ..., org_id: _Optional[str] = ...) -> None: ...

class CreateRunResponse(_message.Message):
    __slots__ = ("run", "ack")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    run: Run
    ack: Ack
    def __init__(self, run: _Optional[_Union[Run, _Mapping[str, object]]] = ..., ack: _Optional[_Union[Ack, _Mapping[str, object]]] = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping[str, object]]] = ...) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs", "next_page_token")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    next_page_token: str
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping[str, object]]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class EventInput(_message.Message):
    __slots__ = ("kind", "data", "payload_bytes", "idempotency_key")
    KIND_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    kind: str
    data: _struct_pb2.Struct
    payload_bytes: bytes
    idempotency_key: str
    def __init__(self, kind: _Optional[str] = ..., data: _Optional[_Union[_struct_pb2.Struct, _Mapping[str, object]]] = ..., payload_bytes: _Optional[bytes] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class AppendEventsRequest(_message.Message):
    __slots__ = ("events", "expected_seq")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_SEQ_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[EventInput]
    expected_seq: int
    def __init__(self, events: _Optional[_Iterable[_Union[EventInput, _Mapping[str, object]]]] = ..., expected_seq: _Optional[int] = ...) -> None: ...

class AppendEventsResponse(_message.Message):
    __slots__ = ("acks",)
    ACKS_FIELD_NUMBER: _ClassVar[int]
    acks: _containers.RepeatedCompositeFieldContainer[Ack]
    def __init__(self, acks: _Optional[_Iterable[_Union[Ack, _Mapping[str, object]]]] = ...) -> None: ...

class AppendStreamAck(_message.Message):
    __slots__ = ("committed", "failed")
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    committed: AppendEventsResponse
    failed: StreamError
    def __init__(self, committed: _Optional[_Union[AppendEventsResponse, _Mapping[str, object]]] = ..., failed: _Optional[_Union[StreamError, _Mapping[str, object]]] = ...) -> None: ...

class StreamError(_message.Message):
    __slots__ = ("code", "message", "event_index", "retryable", "retry_after_ms", "details")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    EVENT_INDEX_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    event_index: int
    retryable: bool
    retry_after_ms: int
    details: _containers.ScalarMap[str, str]
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., event_index: _Optional[int] = ..., retryable: _Optional[bool] = ..., retry_after_ms: _Optional[int] = ..., details: _Optional[_Mapping[str, str]] = ...) -> None: ...

class TransitionRunRequest(_message.Message):
    __slots__ = ("to_state", "reason", "exit_status", "result")
    TO_STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXIT_STATUS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    to_state: _events_pb2.RunState
    reason: str
    exit_status: int
    result: str
    def __init__(self, to_state: _Optional[_Union[_events_pb2.RunState, str, int]] = ..., reason: _Optional[str] = ..., exit_status: _Optional[int] = ..., result: _Optional[str] = ...) -> None: ...

class TransitionRunResponse(_message.Message):
    __slots__ = ("run", "ack")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    run: Run
    ack: Ack
    def __init__(self, run: _Optional[_Union[Run, _Mapping[str, object]]] = ..., ack: _Optional[_Union[Ack, _Mapping[str, object]]] = ...) -> None: ...

class TransferRunRequest(_message.Message):
    __slots__ = ("owner_user_id",)
    OWNER_USER_ID_FIELD_NUMBER: _ClassVar[int]
    owner_user_id: str
    def __init__(self, owner_user_id: _Optional[str] = ...) -> None: ...

class TransferRunResponse(_message.Message):
    __slots__ = ("run", "ack")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    run: Run
    ack: Ack
    def __init__(self, run: _Optional[_Union[Run, _Mapping[str, object]]] = ..., ack: _Optional[_Union[Ack, _Mapping[str, object]]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("event_id", "topic", "seq", "kind", "payload_bytes", "schema_version", "committed_at_us", "request_id", "actor")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_AT_US_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    topic: str
    seq: int
    kind: str
    payload_bytes: bytes
    schema_version: int
    committed_at_us: int
    request_id: str
    actor: str
    def __init__(self, event_id: _Optional[str] = ..., topic: _Optional[str] = ..., seq: _Optional[int] = ..., kind: _Optional[str] = ..., payload_bytes: _Optional[bytes] = ..., schema_version: _Optional[int] = ..., committed_at_us: _Optional[int] = ..., request_id: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class ListEventsResponse(_message.Message):
    __slots__ = ("events", "watermark", "head_seq", "floor_seq", "chain_before")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQ_FIELD_NUMBER: _ClassVar[int]
    FLOOR_SEQ_FIELD_NUMBER: _ClassVar[int]
    CHAIN_BEFORE_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    watermark: Watermark
    head_seq: int
    floor_seq: int
    chain_before: bytes
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping[str, object]]]] = ..., watermark: _Optional[_Union[Watermark, _Mapping[str, object]]] = ..., head_seq: _Optional[int] = ..., floor_seq: _Optional[int] = ..., chain_before: _Optional[bytes] = ...) -> None: ...

class TopicInfo(_message.Message):
    __slots__ = ("topic", "topic_class", "lineage", "head_seq", "head_chain", "floor_seq", "floor_chain", "floor_reason", "retained_bytes")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    TOPIC_CLASS_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQ_FIELD_NUMBER: _ClassVar[int]
    HEAD_CHAIN_FIELD_NUMBER: _ClassVar[int]
    FLOOR_SEQ_FIELD_NUMBER: _ClassVar[int]
    FLOOR_CHAIN_FIELD_NUMBER: _ClassVar[int]
    FLOOR_REASON_FIELD_NUMBER: _ClassVar[int]
    RETAINED_BYTES_FIELD_NUMBER: _ClassVar[int]
    topic: str
    topic_class: str
    lineage: str
    head_seq: int
    head_chain: bytes
    floor_seq: int
    floor_chain: bytes
    floor_reason: str
    retained_bytes: int
    def __init__(self, topic: _Optional[str] = ..., topic_class: _Optional[str] = ..., lineage: _Optional[str] = ..., head_seq: _Optional[int] = ..., head_chain: _Optional[bytes] = ..., floor_seq: _Optional[int] = ..., floor_chain: _Optional[bytes] = ..., floor_reason: _Optional[str] = ..., retained_bytes: _Optional[int] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("worker_id", "name", "state", "owner_user_id", "org_id", "topic", "watermark")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OWNER_USER_ID_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    name: str
    state: _events_pb2.WorkerState
    owner_user_id: str
    org_id: str
    topic: str
    watermark: Watermark
    def __init__(self, worker_id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[_Union[_events_pb2.WorkerState, str, int]] = ..., owner_user_id: _Optional[str] = ..., org_id: _Optional[str] = ..., topic: _Optional[str] = ..., watermark: _Optional[_Union[Watermark, _Mapping[str, object]]] = ...) -> None: ...

class RegisterWorkerRequest(_message.Message):
    __slots__ = ("name", "host", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    host: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., host: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class TransitionWorkerRequest(_message.Message):
    __slots__ = ("to_state", "reason")
    TO_STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    to_state: _events_pb2.WorkerState
    reason: str
    def __init__(self, to_state: _Optional[_Union[_events_pb2.WorkerState, str, int]] = ..., reason: _Optional[str] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("topic", "lineage", "from_seq", "through_seq", "chain", "state", "key_id", "signature")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    FROM_SEQ_FIELD_NUMBER: _ClassVar[int]
    THROUGH_SEQ_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    topic: str
    lineage: str
    from_seq: int
    through_seq: int
    chain: bytes
    state: _events_pb2.RunState
    key_id: str
    signature: bytes
    def __init__(self, topic: _Optional[str] = ..., lineage: _Optional[str] = ..., from_seq: _Optional[int] = ..., through_seq: _Optional[int] = ..., chain: _Optional[bytes] = ..., state: _Optional[_Union[_events_pb2.RunState, str, int]] = ..., key_id: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class ReplayArtifact(_message.Message):
    __slots__ = ("topic", "lineage", "chain_before", "frames", "chain_after")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_BEFORE_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    CHAIN_AFTER_FIELD_NUMBER: _ClassVar[int]
    topic: str
    lineage: str
    chain_before: bytes
    frames: _containers.RepeatedCompositeFieldContainer[_frames_pb2.KhalaFrame]
    chain_after: bytes
    def __init__(self, topic: _Optional[str] = ..., lineage: _Optional[str] = ..., chain_before: _Optional[bytes] = ..., frames: _Optional[_Iterable[_Union[_frames_pb2.KhalaFrame, _Mapping[str, object]]]] = ..., chain_after: _Optional[bytes] = ...) -> None: ...

class TopicOwnersRequest(_message.Message):
    __slots__ = ("topics",)
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    topics: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, topics: _Optional[_Iterable[str]] = ...) -> None: ...

class TopicOwner(_message.Message):
    __slots__ = ("topic", "known", "owner_user_id", "org_id")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    OWNER_USER_ID_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    topic: str
    known: bool
    owner_user_id: str
    org_id: str
    def __init__(self, topic: _Optional[str] = ..., known: _Optional[bool] = ..., owner_user_id: _Optional[str] = ..., org_id: _Optional[str] = ...) -> None: ...

class TopicOwnersResponse(_message.Message):
    __slots__ = ("owners",)
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    owners: _containers.RepeatedCompositeFieldContainer[TopicOwner]
    def __init__(self, owners: _Optional[_Iterable[_Union[TopicOwner, _Mapping[str, object]]]] = ...) -> None: ...

class TopicMessagesResponse(_message.Message):
    __slots__ = ("observation", "frames", "watermark", "chain_before")
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    CHAIN_BEFORE_FIELD_NUMBER: _ClassVar[int]
    observation: TopicInfo
    frames: _containers.RepeatedCompositeFieldContainer[_frames_pb2.KhalaFrame]
    watermark: Watermark
    chain_before: bytes
    def __init__(self, observation: _Optional[_Union[TopicInfo, _Mapping[str, object]]] = ..., frames: _Optional[_Iterable[_Union[_frames_pb2.KhalaFrame, _Mapping[str, object]]]] = ..., watermark: _Optional[_Union[Watermark, _Mapping[str, object]]] = ..., chain_before: _Optional[bytes] = ...) -> None: ...

class ProjectionDifference(_message.Message):
    __slots__ = ("run_id", "problem")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    problem: str
    def __init__(self, run_id: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class ProjectionDriftResponse(_message.Message):
    __slots__ = ("checked", "differences", "difference_count", "stored_hash", "folded_hash", "next_page_token")
    CHECKED_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    STORED_HASH_FIELD_NUMBER: _ClassVar[int]
    FOLDED_HASH_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    checked: int
    differences: _containers.RepeatedCompositeFieldContainer[ProjectionDifference]
    difference_count: int
    stored_hash: bytes
    folded_hash: bytes
    next_page_token: str
    def __init__(self, checked: _Optional[int] = ..., differences: _Optional[_Iterable[_Union[ProjectionDifference, _Mapping[str, object]]]] = ..., difference_count: _Optional[int] = ..., stored_hash: _Optional[bytes] = ..., folded_hash: _Optional[bytes] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class RebuildProjectionsResponse(_message.Message):
    __slots__ = ("rebuilt", "changed", "summaries", "failures", "failure_count", "hash", "next_page_token")
    REBUILT_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    SUMMARIES_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    FAILURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    rebuilt: int
    changed: int
    summaries: int
    failures: _containers.RepeatedCompositeFieldContainer[ProjectionDifference]
    failure_count: int
    hash: bytes
    next_page_token: str
    def __init__(self, rebuilt: _Optional[int] = ..., changed: _Optional[int] = ..., summaries: _Optional[int] = ..., failures: _Optional[_Iterable[_Union[ProjectionDifference, _Mapping[str, object]]]] = ..., failure_count: _Optional[int] = ..., hash: _Optional[bytes] = ..., next_page_token: _Optional[str] = ...) -> None: ...
