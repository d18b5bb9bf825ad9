from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class FanoutRecord(_message.Message):
    __slots__ = ("topic", "lineage", "first_seq", "last_seq", "chain_before", "chain_after", "entries", "key_id", "mac", "committed_at_us")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    CHAIN_BEFORE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_AFTER_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_AT_US_FIELD_NUMBER: _ClassVar[int]
    topic: str
    lineage: str
    first_seq: int
    last_seq: int
    chain_before: bytes
    chain_after: bytes
    entries: _containers.RepeatedScalarFieldContainer[bytes]
    key_id: str
    mac: bytes
    committed_at_us: int
    def __init__(self, topic: _Optional[str] = ..., lineage: _Optional[str] = ..., first_seq: _Optional[int] = ..., last_seq: _Optional[int] = ..., chain_before: _Optional[bytes] = ..., chain_after: _Optional[bytes] = ..., entries: _Optional[_Iterable[bytes]] = ..., key_id: _Optional[str] = ..., mac: _Optional[bytes] = ..., committed_at_us: _Optional[int] = ...) -> None: ...
