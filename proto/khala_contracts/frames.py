"""A frame: one unit of a topic on the wire, as a value with invariants.

Invariants:
    1 <= seq <= 2^63 - 1, 1 <= schema_version <= 2^32 - 1
    topic and kind are not empty; kind has at most 64 bytes
A topic's grammar is checked where a topic enters (``topics.parse_topic``), not for each frame: a
client must be able to read frames of classes that are newer than itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from khala_contracts.topics import TopicName

__all__ = ["ERASED_KIND", "KIND_MAX_BYTES", "SCHEMA_VERSION_MAX", "SEQ_MAX", "Frame"]

SEQ_MAX: Final = 2**63 - 1
SCHEMA_VERSION_MAX: Final = 2**32 - 1
KIND_MAX_BYTES: Final = 64
# Stands in for a frame whose payload was erased; see erasure.py.
ERASED_KIND: Final = "khala.erased"


@attrs.frozen
class Frame:
    """The five fields of the envelope. Raises ValueError if an invariant does not hold."""

    topic: TopicName
    seq: int
    kind: str
    payload: bytes = attrs.field(repr=False)
    schema_version: int

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.seq <= SEQ_MAX:
            message = f"seq {self.seq} is outside 1..2^63-1"
            raise ValueError(message)
        if not self.topic or not self.kind:
            message = "a frame has a topic and a kind"
            raise ValueError(message)
        if len(self.kind) > KIND_MAX_BYTES or (
            not self.kind.isascii() and len(self.kind.encode()) > KIND_MAX_BYTES
        ):
            message = f"a kind has at most {KIND_MAX_BYTES} bytes"
            raise ValueError(message)
        if not 1 <= self.schema_version <= SCHEMA_VERSION_MAX:
            message = f"schema_version {self.schema_version} is outside 1..2^32-1"
            raise ValueError(message)
