"""What an application sees of a topic: one Event per frame.

Pure. The payload is decoded when it is asked for, so that a follower which only counts or stores
does not pay for it. Kinds that this client does not know are delivered with their raw bytes.
"""

from __future__ import annotations

from functools import cached_property
from typing import Self

import attrs

from khala_contracts import kinds
from khala_contracts.frames import ERASED_KIND, Frame

__all__ = ["Event"]


@attrs.frozen
class Event:
    """One immutable fact of a topic, at the position where it was applied.

    Attributes:
        topic: Its topic.
        seq: Position in that topic: 1, 2, 3, ... without holes.
        kind: ``<noun>.<past verb or part>``.
        payload: The payload message, encoded.
        schema_version: Version of that message.
        chain: Hash that seals everything up to and including this event.
    """

    topic: str
    seq: int
    kind: str
    payload: bytes = attrs.field(repr=False)
    schema_version: int
    chain: bytes = attrs.field(repr=False)

    @classmethod
    def from_frame(cls, frame: Frame, *, chain: bytes) -> Self:
        """Return the event that ``frame`` carries, sealed by ``chain`` at its seq."""
        return cls(
            topic=frame.topic,
            seq=frame.seq,
            kind=frame.kind,
            payload=frame.payload,
            schema_version=frame.schema_version,
            chain=chain,
        )

    @cached_property
    def data(self) -> dict[str, object]:
        """The payload as its JSON mapping; ``{"payload_base64": ...}`` for an unknown kind."""
        return kinds.decode_payload(self.kind, self.payload)

    @property
    def is_erased(self) -> bool:
        """True if the payload was erased; ``data`` then says what stood here."""
        return self.kind == ERASED_KIND
