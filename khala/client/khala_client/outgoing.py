"""An event on its way to the runtime, encoded and measured before anything is sent.

Encoding here, rather than on the server, finds a wrong field where it was written, and makes a
retry byte for byte the same request, which is what an idempotency key stands for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import attrs

from khala_client.errors import error_for
from khala_contracts import http_messages as m
from khala_contracts import kinds
from khala_contracts.errors import WireError
from khala_contracts.topics import TOPIC_CLASSES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PAYLOAD_MAX_BYTES", "OutgoingEvent", "event_message"]

_RUN_CLASS: Final = "run_events"
PAYLOAD_MAX_BYTES: Final = TOPIC_CLASSES[_RUN_CLASS].payload_max_bytes
# Tags, lengths and the kind around a payload, rounded up: batches stay below the request's limit.
_ENVELOPE_BYTES: Final = 128


@attrs.frozen
class OutgoingEvent:
    """A kind with its encoded payload; ``key`` names it in a stream of keyed events."""

    kind: str
    payload: bytes = attrs.field(repr=False)
    key: str = ""

    @classmethod
    def of(
        cls, kind: str, data: Mapping[str, object], *, key: str = "", topic_class: str = _RUN_CLASS
    ) -> Self:
        """Encode ``data``, the JSON mapping of the kind's payload message.

        Args:
            kind: One that may be appended to topics of ``topic_class``.
            data: Its fields.
            key: See the class.
            topic_class: ``run_events``, or ``app``.

        Raises:
            KhalaError: ``kind_unknown``, ``invalid_argument`` (with the field) or
                ``payload_too_large``; nothing was sent.
        """
        try:
            payload = kinds.encode_payload(topic_class, kind, data)
        except WireError as error:
            raise error_for(error.reason_code, details={"kind": kind, **error.details}) from error
        return cls(kind, payload, key)

    @property
    def size_bytes(self) -> int:
        """What it adds to a request, rounded up."""
        return len(self.payload) + len(self.key) + _ENVELOPE_BYTES


def event_message(event: OutgoingEvent) -> m.EventInput:
    """Return the wire's message."""
    return m.EventInput(kind=event.kind, payload_bytes=event.payload, idempotency_key=event.key)
