"""A stream of keyed events as NDJSON, and the acks that answer it. Pure.

Request: one EventInput a line. Answer: one AppendStreamAck a line, in order, each either a
committed chunk or, as the last line, what ended the stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from khala_client.errors import KhalaError, Unavailable, error_for
from khala_client.outgoing import OutgoingEvent, event_message
from khala_client.resources import Ack
from khala_contracts import http_messages as m
from khala_contracts import strict_json
from khala_contracts.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NDJSON", "StreamOutcome", "decode_stream_outcome_untrusted", "encode_stream"]

NDJSON: Final = "application/x-ndjson"


@attrs.frozen
class StreamOutcome:
    """How far a stream got: ``acks`` of its first events, and why it ended if not all are there.

    ``refused_index`` is the first event that was not appended, None if all were.
    """

    acks: tuple[Ack, ...]
    error: KhalaError | None = None
    refused_index: int | None = None


def encode_stream(events: Sequence[OutgoingEvent]) -> bytes:
    """Return the body of a stream.

    Raises:
        ValueError: an event without a key: a retry could repeat it.
    """
    if not all(event.key for event in events):
        message = "every event of a stream needs a key"
        raise ValueError(message)
    return b"".join(strict_json.print_json(event_message(event)).encode() + b"\n" for event in events)


def decode_stream_outcome_untrusted(data: bytes) -> StreamOutcome:
    """Return what the answer's lines say.

    Raises:
        Unavailable: they are not AppendStreamAck lines; what was committed is unknown.
    """
    acks: list[Ack] = []
    for line in filter(bytes.strip, data.split(b"\n")):
        try:
            answer = strict_json.parse_strict(line, m.AppendStreamAck)
        except WireError as error:
            raise Unavailable(
                "the answer is not one of this service", details={"outcome": "unknown"}
            ) from error
        if answer.HasField("failed"):
            failed = answer.failed
            refusal = error_for(
                failed.code,
                failed.message,
                retryable=failed.retryable,
                retry_after_ms=failed.retry_after_ms,
                details=dict(failed.details),
            )
            return StreamOutcome(tuple(acks), refusal, failed.event_index)
        acks.extend(Ack.of(ack) for ack in answer.committed.acks)
    return StreamOutcome(tuple(acks))
