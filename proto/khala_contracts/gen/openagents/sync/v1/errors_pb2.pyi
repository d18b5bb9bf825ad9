from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Advice(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ADVICE_UNSPECIFIED: _ClassVar[Advice]
    ADVICE_RETRY_NOW: _ClassVar[Advice]
    ADVICE_RETRY_BACKOFF: _ClassVar[Advice]
    ADVICE_REAUTHENTICATE: _ClassVar[Advice]
    ADVICE_REBOOTSTRAP: _ClassVar[Advice]
    ADVICE_UPGRADE: _ClassVar[Advice]
    ADVICE_GIVE_UP: _ClassVar[Advice]

class ReasonCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_CODE_UNSPECIFIED: _ClassVar[ReasonCode]
    REASON_CODE_DRAINING: _ClassVar[ReasonCode]
    REASON_CODE_SLOW_CONSUMER: _ClassVar[ReasonCode]
    REASON_CODE_HEARTBEAT_TIMEOUT: _ClassVar[ReasonCode]
    REASON_CODE_RATE_LIMITED: _ClassVar[ReasonCode]
    REASON_CODE_UNAVAILABLE: _ClassVar[ReasonCode]
    REASON_CODE_TOKEN_EXPIRED: _ClassVar[ReasonCode]
    REASON_CODE_INTERNAL: _ClassVar[ReasonCode]
    REASON_CODE_HELLO_TIMEOUT: _ClassVar[ReasonCode]
    REASON_CODE_PROTOCOL_ERROR: _ClassVar[ReasonCode]
    REASON_CODE_MALFORMED_MESSAGE: _ClassVar[ReasonCode]
    REASON_CODE_AUTHORITY_WRITE_FORBIDDEN: _ClassVar[ReasonCode]
    REASON_CODE_REAUTH_REQUIRED: _ClassVar[ReasonCode]
    REASON_CODE_TOKEN_INVALID: _ClassVar[ReasonCode]
    REASON_CODE_TOKEN_REPLAYED: _ClassVar[ReasonCode]
    REASON_CODE_FORBIDDEN: _ClassVar[ReasonCode]
    REASON_CODE_UPGRADE_REQUIRED: _ClassVar[ReasonCode]
    REASON_CODE_LIMIT_EXCEEDED: _ClassVar[ReasonCode]
    REASON_CODE_MESSAGE_TOO_LARGE: _ClassVar[ReasonCode]
    REASON_CODE_FRAMING_ERROR: _ClassVar[ReasonCode]
    REASON_CODE_INVALID_TEXT: _ClassVar[ReasonCode]
    REASON_CODE_STALE_RETENTION_EXPIRED: _ClassVar[ReasonCode]
    REASON_CODE_STALE_COMPACTION_BOUNDARY: _ClassVar[ReasonCode]
    REASON_CODE_STALE_REPLAY_BUDGET_EXCEEDED: _ClassVar[ReasonCode]
    REASON_CODE_STALE_LINEAGE_MISMATCH: _ClassVar[ReasonCode]
    REASON_CODE_TOPIC_INVALID: _ClassVar[ReasonCode]
    REASON_CODE_NOT_FOUND: _ClassVar[ReasonCode]
    REASON_CODE_INVALID_ARGUMENT: _ClassVar[ReasonCode]
    REASON_CODE_PAYLOAD_TOO_LARGE: _ClassVar[ReasonCode]
    REASON_CODE_KIND_UNKNOWN: _ClassVar[ReasonCode]
    REASON_CODE_IDEMPOTENCY_CONFLICT: _ClassVar[ReasonCode]
    REASON_CODE_SEQ_CONFLICT: _ClassVar[ReasonCode]
    REASON_CODE_INVALID_TRANSITION: _ClassVar[ReasonCode]
    REASON_CODE_RUN_FINISHED: _ClassVar[ReasonCode]
    REASON_CODE_UNAUTHENTICATED: _ClassVar[ReasonCode]
    REASON_CODE_METHOD_NOT_ALLOWED: _ClassVar[ReasonCode]
    REASON_CODE_UNSUPPORTED_MEDIA_TYPE: _ClassVar[ReasonCode]
    REASON_CODE_NOT_ACCEPTABLE: _ClassVar[ReasonCode]
    REASON_CODE_ORIGIN_FORBIDDEN: _ClassVar[ReasonCode]
    REASON_CODE_NAME_TAKEN: _ClassVar[ReasonCode]
    REASON_CODE_SUPERSEDED: _ClassVar[ReasonCode]
ADVICE_UNSPECIFIED: Advice
ADVICE_RETRY_NOW: Advice
ADVICE_RETRY_BACKOFF: Advice
ADVICE_REAUTHENTICATE: Advice
ADVICE_REBOOTSTRAP: Advice
ADVICE_UPGRADE: Advice
ADVICE_GIVE_UP: Advice
REASON_CODE_UNSPECIFIED: ReasonCode
REASON_CODE_DRAINING: ReasonCode
REASON_CODE_SLOW_CONSUMER: ReasonCode
REASON_CODE_HEARTBEAT_TIMEOUT: ReasonCode
REASON_CODE_RATE_LIMITED: ReasonCode
REASON_CODE_UNAVAILABLE: ReasonCode
REASON_CODE_TOKEN_EXPIRED: ReasonCode
REASON_CODE_INTERNAL: ReasonCode
REASON_CODE_HELLO_TIMEOUT: ReasonCode
REASON_CODE_PROTOCOL_ERROR: ReasonCode
REASON_CODE_MALFORMED_MESSAGE: ReasonCode
REASON_CODE_AUTHORITY_WRITE_FORBIDDEN: ReasonCode
REASON_CODE_REAUTH_REQUIRED: ReasonCode
REASON_CODE_TOKEN_INVALID: ReasonCode
REASON_CODE_TOKEN_REPLAYED: ReasonCode
REASON_CODE_FORBIDDEN: ReasonCode
REASON_CODE_UPGRADE_REQUIRED: ReasonCode
REASON_CODE_LIMIT_EXCEEDED: ReasonCode
REASON_CODE_MESSAGE_TOO_LARGE: ReasonCode
REASON_CODE_FRAMING_ERROR: ReasonCode
REASON_CODE_INVALID_TEXT: ReasonCode
REASON_CODE_STALE_RETENTION_EXPIRED: ReasonCode
REASON_CODE_STALE_COMPACTION_BOUNDARY: ReasonCode
REASON_CODE_STALE_REPLAY_BUDGET_EXCEEDED: ReasonCode
REASON_CODE_STALE_LINEAGE_MISMATCH: ReasonCode
REASON_CODE_TOPIC_INVALID: ReasonCode
REASON_CODE_NOT_FOUND: ReasonCode
REASON_CODE_INVALID_ARGUMENT: ReasonCode
REASON_CODE_PAYLOAD_TOO_LARGE: ReasonCode
REASON_CODE_KIND_UNKNOWN: ReasonCode
REASON_CODE_IDEMPOTENCY_CONFLICT: ReasonCode
REASON_CODE_SEQ_CONFLICT: ReasonCode
REASON_CODE_INVALID_TRANSITION: ReasonCode
REASON_CODE_RUN_FINISHED: ReasonCode
REASON_CODE_UNAUTHENTICATED: ReasonCode
REASON_CODE_METHOD_NOT_ALLOWED: ReasonCode
REASON_CODE_UNSUPPORTED_MEDIA_TYPE: ReasonCode
REASON_CODE_NOT_ACCEPTABLE: ReasonCode
REASON_CODE_ORIGIN_FORBIDDEN: ReasonCode
REASON_CODE_NAME_TAKEN: ReasonCode
REASON_CODE_SUPERSEDED: ReasonCode

class Error(_message.Message):
    __slots__ = ("code", "message", "topic", "retryable", "advice", "retry_after_ms", "docs", "details", "reason", "request_id")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    DOCS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    topic: str
    retryable: bool
    advice: Advice
    retry_after_ms: int
    docs: str
    details: _containers.ScalarMap[str, str]
    reason: ReasonCode
    request_id: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., topic: _Optional[str] = ..., retryable: _Optional[bool] = ..., advice: _Optional[_Union[Advice, str, int]] = ..., retry_after_ms: _Optional[int] = ..., docs: _Optional[str] = ..., details: _Optional[_Mapping[str, str]] = ..., reason: _Optional[_Union[ReasonCode, str, int]] = ..., request_id: _Optional[str] = ...) -> None: ...
