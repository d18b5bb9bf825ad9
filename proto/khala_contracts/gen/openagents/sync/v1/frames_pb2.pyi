from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class KhalaFrame(_message.Message):
    __slots__ = ("topic", "seq", "kind", "payload_bytes", "schema_version")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    topic: str
    seq: int
    kind: str
    payload_bytes: bytes
    schema_version: int
    def __init__(self, topic: _Optional[str] = ..., seq: _Optional[int] = ..., kind: _Optional[str] = ..., payload_bytes: _Optional[bytes] = ..., schema_version: _Optional[int] = ...) -> None: ...

class Erased(_message.Message):
    __slots__ = ("original_kind", "payload_sha256", "reason", "original_schema_version")
    ORIGINAL_KIND_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_SHA256_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    original_kind: str
    payload_sha256: bytes
    reason: str
    original_schema_version: int
    def __init__(self, original_kind: _Optional[str] = ..., payload_sha256: _Optional[bytes] = ..., reason: _Optional[str] = ..., original_schema_version: _Optional[int] = ...) -> None: ...
