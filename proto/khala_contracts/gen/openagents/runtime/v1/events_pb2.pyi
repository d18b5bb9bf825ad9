from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_STATE_UNSPECIFIED: _ClassVar[RunState]
    RUN_STATE_CREATED: _ClassVar[RunState]
    RUN_STATE_RUNNING: _ClassVar[RunState]
    RUN_STATE_PAUSED: _ClassVar[RunState]
    RUN_STATE_SUCCEEDED: _ClassVar[RunState]
    RUN_STATE_FAILED: _ClassVar[RunState]
    RUN_STATE_CANCELLED: _ClassVar[RunState]

class OutputStream(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_STREAM_UNSPECIFIED: _ClassVar[OutputStream]
    OUTPUT_STREAM_STDOUT: _ClassVar[OutputStream]
    OUTPUT_STREAM_STDERR: _ClassVar[OutputStream]

class WorkerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKER_STATE_UNSPECIFIED: _ClassVar[WorkerState]
    WORKER_STATE_REGISTERED: _ClassVar[WorkerState]
    WORKER_STATE_IDLE: _ClassVar[WorkerState]
    WORKER_STATE_BUSY: _ClassVar[WorkerState]
    WORKER_STATE_LOST: _ClassVar[WorkerState]
    WORKER_STATE_STOPPED: _ClassVar[WorkerState]
RUN_STATE_UNSPECIFIED: RunState
RUN_STATE_CREATED: RunState
RUN_STATE_RUNNING: RunState
RUN_STATE_PAUSED: RunState
RUN_STATE_SUCCEEDED: RunState
RUN_STATE_FAILED: RunState
RUN_STATE_CANCELLED: RunState
OUTPUT_STREAM_UNSPECIFIED: OutputStream
OUTPUT_STREAM_STDOUT: OutputStream
OUTPUT_STREAM_STDERR: OutputStream
WORKER_STATE_UNSPECIFIED: WorkerState
WORKER_STATE_REGISTERED: WorkerState
WORKER_STATE_IDLE: WorkerState
WORKER_STATE_BUSY: WorkerState
WORKER_STATE_LOST: WorkerState
WORKER_STATE_STOPPED: WorkerState

class RunStarted(_message.Message):
    __slots__ = ("name", "agent", "source", "attributes")
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
    name: str
    agent: str
    source: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., agent: _Optional[str] = ..., source: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RunStateChanged(_message.Message):
    __slots__ = ("from_state", "to_state", "reason")
    FROM_STATE_FIELD_NUMBER: _ClassVar[int]
    TO_STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    from_state: RunState
    to_state: RunState
    reason: str
    def __init__(self, from_state: _Optional[_Union[RunState, str, int]] = ..., to_state: _Optional[_Union[RunState, str, int]] = ..., reason: _Optional[str] = ...) -> None: ...

class RunFinished(_message.Message):
    __slots__ = ("state", "exit_status", "reason", "result")
    STATE_FIELD_NUMBER: _ClassVar[int]
    EXIT_STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    state: RunState
    exit_status: int
    reason: str
    result: str
    def __init__(self, state: _Optional[_Union[RunState, str, int]] = ..., exit_status: _Optional[int] = ..., reason: _Optional[str] = ..., result: _Optional[str] = ...) -> None: ...

class RunTransferred(_message.Message):
    __slots__ = ("from_user_id", "to_user_id")
    FROM_USER_ID_FIELD_NUMBER: _ClassVar[int]
    TO_USER_ID_FIELD_NUMBER: _ClassVar[int]
    from_user_id: str
    to_user_id: str
    def __init__(self, from_user_id: _Optional[str] = ..., to_user_id: _Optional[str] = ...) -> None: ...

class StepStarted(_message.Message):
    __slots__ = ("step", "title")
    STEP_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    step: int
    title: str
    def __init__(self, step: _Optional[int] = ..., title: _Optional[str] = ...) -> None: ...

class Thought(_message.Message):
    __slots__ = ("text", "step", "role")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    text: str
    step: int
    role: str
    def __init__(self, text: _Optional[str] = ..., step: _Optional[int] = ..., role: _Optional[str] = ...) -> None: ...

class Action(_message.Message):
    __slots__ = ("text", "step", "tool", "args", "call_id")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    text: str
    step: int
    tool: str
    args: _struct_pb2.Value
    call_id: str
    def __init__(self, text: _Optional[str] = ..., step: _Optional[int] = ..., tool: _Optional[str] = ..., args: _Optional[_Union[_struct_pb2.Value, _Mapping[str, object]]] = ..., call_id: _Optional[str] = ...) -> None: ...

class Observation(_message.Message):
    __slots__ = ("text", "step", "call_id", "duration_s", "state")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    text: str
    step: int
    call_id: str
    duration_s: float
    state: _struct_pb2.Value
    def __init__(self, text: _Optional[str] = ..., step: _Optional[int] = ..., call_id: _Optional[str] = ..., duration_s: _Optional[float] = ..., state: _Optional[_Union[_struct_pb2.Value, _Mapping[str, object]]] = ...) -> None: ...

class Output(_message.Message):
    __slots__ = ("stream", "text", "replaced_bytes")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REPLACED_BYTES_FIELD_NUMBER: _ClassVar[int]
    stream: OutputStream
    text: str
    replaced_bytes: int
    def __init__(self, stream: _Optional[_Union[OutputStream, str, int]] = ..., text: _Optional[str] = ..., replaced_bytes: _Optional[int] = ...) -> None: ...

class MessageDelta(_message.Message):
    __slots__ = ("message_id", "offset", "text")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    offset: int
    text: str
    def __init__(self, message_id: _Optional[str] = ..., offset: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class MessageDone(_message.Message):
    __slots__ = ("message_id", "text", "role")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    text: str
    role: str
    def __init__(self, message_id: _Optional[str] = ..., text: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class ToolCalled(_message.Message):
    __slots__ = ("call_id", "tool", "args", "step")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    tool: str
    args: _struct_pb2.Value
    step: int
    def __init__(self, call_id: _Optional[str] = ..., tool: _Optional[str] = ..., args: _Optional[_Union[_struct_pb2.Value, _Mapping[str, object]]] = ..., step: _Optional[int] = ...) -> None: ...

class ToolReturned(_message.Message):
    __slots__ = ("call_id", "result", "error", "step")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    result: _struct_pb2.Value
    error: str
    step: int
    def __init__(self, call_id: _Optional[str] = ..., result: _Optional[_Union[_struct_pb2.Value, _Mapping[str, object]]] = ..., error: _Optional[str] = ..., step: _Optional[int] = ...) -> None: ...

class ErrorRaised(_message.Message):
    __slots__ = ("text", "type", "step")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    text: str
    type: str
    step: int
    def __init__(self, text: _Optional[str] = ..., type: _Optional[str] = ..., step: _Optional[int] = ...) -> None: ...

class Artifact(_message.Message):
    __slots__ = ("name", "media_type", "uri", "text", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    media_type: str
    uri: str
    text: str
    sha256: str
    def __init__(self, name: _Optional[str] = ..., media_type: _Optional[str] = ..., uri: _Optional[str] = ..., text: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class Custom(_message.Message):
    __slots__ = ("name", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    data: _struct_pb2.Value
    def __init__(self, name: _Optional[str] = ..., data: _Optional[_Union[_struct_pb2.Value, _Mapping[str, object]]] = ...) -> None: ...

class WorkerRegistered(_message.Message):
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

class WorkerStateChanged(_message.Message):
    __slots__ = ("from_state", "to_state", "reason")
    FROM_STATE_FIELD_NUMBER: _ClassVar[int]
    TO_STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    from_state: WorkerState
    to_state: WorkerState
    reason: str
    def __init__(self, from_state: _Optional[_Union[WorkerState, str, int]] = ..., to_state: _Optional[_Union[WorkerState, str, int]] = ..., reason: _Optional[str] = ...) -> None: ...

class WorkerStatusReported(_message.Message):
    __slots__ = ("run_id", "text", "gauges")
    class GaugesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    GAUGES_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    text: str
    gauges: _containers.ScalarMap[str, float]
    def __init__(self, run_id: _Optional[str] = ..., text: _Optional[str] = ..., gauges: _Optional[_Mapping[str, float]] = ...) -> None: ...

class ThreadUpdated(_message.Message):
    __slots__ = ("thread_id", "title", "status", "data")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    title: str
    status: str
    data: _struct_pb2.Value
    def __init__(self, thread_id: _Optional[str] = ..., title: _Optional[str] = ..., status: _Optional[str] = ..., data: _Optional[_Union[_struct_pb2.Value, _Mapping[str, object]]] = ...) -> None: ...

class RunSummarised(_message.Message):
    __slots__ = ("run_id", "name", "state", "head_seq", "title", "withdrawn")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQ_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    name: str
    state: RunState
    head_seq: int
    title: str
    withdrawn: bool
    def __init__(self, run_id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[_Union[RunState, str, int]] = ..., head_seq: _Optional[int] = ..., title: _Optional[str] = ..., withdrawn: _Optional[bool] = ...) -> None: ...

class WorkerSummarised(_message.Message):
    __slots__ = ("worker_id", "name", "state", "run_id")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    name: str
    state: WorkerState
    run_id: str
    def __init__(self, worker_id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[_Union[WorkerState, str, int]] = ..., run_id: _Optional[str] = ...) -> None: ...

class OpsReported(_message.Message):
    __slots__ = ("subject", "status", "text")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    subject: str
    status: str
    text: str
    def __init__(self, subject: _Optional[str] = ..., status: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Notification(_message.Message):
    __slots__ = ("title", "text", "link")
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    title: str
    text: str
    link: str
    def __init__(self, title: _Optional[str] = ..., text: _Optional[str] = ..., link: _Optional[str] = ...) -> None: ...

class InboxDelivered(_message.Message):
    __slots__ = ("subject", "data")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    subject: str
    data: _struct_pb2.Value
    def __init__(self, subject: _Optional[str] = ..., data: _Optional[_Union[_struct_pb2.Value, _Mapping[str, object]]] = ...) -> None: ...
