"""Kinds of events: which payload message each has, per topic class, and what other tools call them.

A kind is ``<noun>.<past verb or part>``. The same kind has the same payload message in every class, so
a reader needs the kind alone. Unknown kinds cannot be written; a reader delivers and ignores them.
A payload is the deterministic protobuf encoding of its message; ``data`` is the strict JSON mapping.
"""

from __future__ import annotations

from base64 import b64encode
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs
from google.protobuf import struct_pb2
from google.protobuf.message import DecodeError, Message

from khala_contracts import reason_codes, strict_json
from khala_contracts.errors import WireError
from khala_contracts.frames import ERASED_KIND
from khala_contracts.gen.openagents.runtime.v1 import events_pb2
from khala_contracts.gen.openagents.sync.v1 import frames_pb2
from khala_contracts.payload_checks import check_finite
from khala_contracts.topics import TOPIC_CLASSES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "KINDS",
    "PayloadType",
    "check_payload_untrusted",
    "decode_payload",
    "encode_payload",
    "kinds_of",
    "payload_type",
]


@attrs.frozen
class PayloadType:
    """What a kind carries.

    Attributes:
        message: Full name of the payload message.
        schema_version: Version of that message that this build writes.
        message_cls: The generated class.
    """

    message: str
    schema_version: int
    message_cls: type[Message] = attrs.field(repr=False)


def _payload(message_cls: type[Message], schema_version: int = 1) -> PayloadType:
    return PayloadType(message_cls.DESCRIPTOR.full_name, schema_version, message_cls)


_RUN: Final = {
    "run.started": _payload(events_pb2.RunStarted),
    "run.state_changed": _payload(events_pb2.RunStateChanged),
    "run.finished": _payload(events_pb2.RunFinished),
    "step.started": _payload(events_pb2.StepStarted),
    "thought": _payload(events_pb2.Thought),
    "action": _payload(events_pb2.Action),
    "observation": _payload(events_pb2.Observation),
    "output": _payload(events_pb2.Output),
    "message.delta": _payload(events_pb2.MessageDelta),
    "message.done": _payload(events_pb2.MessageDone),
    "tool.called": _payload(events_pb2.ToolCalled),
    "tool.returned": _payload(events_pb2.ToolReturned),
    "error": _payload(events_pb2.ErrorRaised),
    "artifact": _payload(events_pb2.Artifact),
    "custom": _payload(events_pb2.Custom),
}
# What happens to a run as such, not in it: no other topic has these.
_RUN_CUSTODY: Final = {"run.transferred": _payload(events_pb2.RunTransferred)}
_WORKER: Final = {
    "worker.registered": _payload(events_pb2.WorkerRegistered),
    "worker.state_changed": _payload(events_pb2.WorkerStateChanged),
    "worker.status_reported": _payload(events_pb2.WorkerStatusReported),
    "custom": _payload(events_pb2.Custom),
}
_RUN_SUMMARY: Final = {"run.summarised": _payload(events_pb2.RunSummarised)}
_BY_CLASS: Final[Mapping[str, Mapping[str, PayloadType]]] = {
    "run_events": _RUN | _RUN_CUSTODY,
    "worker_events": _WORKER,
    "user_runs": _RUN_SUMMARY,
    "org_runs": _RUN_SUMMARY,
    "user_codex": {"thread.updated": _payload(events_pb2.ThreadUpdated)},
    "org_workers": {"worker.summarised": _payload(events_pb2.WorkerSummarised)},
    "org_ops": {"ops.reported": _payload(events_pb2.OpsReported)},
    "notifications": {"notification.posted": _payload(events_pb2.Notification)},
    "device_inbox": {"inbox.delivered": _payload(events_pb2.InboxDelivered)},
    "app": _RUN,
}
_ERASED: Final = _payload(frames_pb2.Erased)

# (class name, kind) -> payload. ``khala.erased`` stands in every class, but nobody appends it.
KINDS: Final[Mapping[tuple[str, str], PayloadType]] = MappingProxyType(
    {(name, kind): payload for name, kinds in _BY_CLASS.items() for kind, payload in kinds.items()}
    | {(name, ERASED_KIND): _ERASED for name in TOPIC_CLASSES}
)
_BY_KIND: Final = {kind: payload for (_name, kind), payload in KINDS.items()}


def kinds_of(topic_class: str) -> tuple[str, ...]:
    """Return the kinds that may be appended to topics of a class, in the registry's order."""
    return tuple(_BY_CLASS[topic_class])


def payload_type(topic_class: str, kind: str) -> PayloadType:
    """Return what a kind carries that may be appended to a class.

    Raises:
        WireError: kind_unknown; not registered for the class, or ``khala.erased``.
    """
    found = _BY_CLASS[topic_class].get(kind)
    if found is None:
        raise WireError(reason_codes.KIND_UNKNOWN, "a kind of this topic's class", "kind")
    return found


def encode_payload(topic_class: str, kind: str, data: Mapping[str, object] | struct_pb2.Struct) -> bytes:
    """Return the payload of an event from its JSON mapping.

    Args:
        topic_class: Name of a class of the registry.
        kind: A kind of that class.
        data: Strict JSON mapping of the payload message. Of a ``Struct``, numbers without a
            fraction count as integers.

    Raises:
        WireError: kind_unknown; invalid_argument with the path, beginning with ``data``;
            payload_too_large.
    """
    wanted = payload_type(topic_class, kind)
    mapping = strict_json.struct_to_mapping(data) if isinstance(data, struct_pb2.Struct) else data
    try:
        message = strict_json.fill(mapping, wanted.message_cls, path="data")
    except WireError as error:
        raise WireError(reason_codes.INVALID_ARGUMENT, error.detail, error.field) from None
    payload = message.SerializeToString(deterministic=True)
    _check_size(topic_class, payload)
    return payload


def check_payload_untrusted(topic_class: str, kind: str, payload: bytes) -> None:
    """Check bytes that a caller encoded. Unknown fields are allowed: the caller may be newer.

    Raises:
        WireError: kind_unknown; invalid_argument (not this message, or a number that is not
            finite); payload_too_large.
    """
    wanted = payload_type(topic_class, kind)
    _check_size(topic_class, payload)
    try:
        message = wanted.message_cls.FromString(payload)
    except DecodeError:
        raise WireError(reason_codes.INVALID_ARGUMENT, f"a {wanted.message}", "payload_bytes") from None
    check_finite(message, "payload_bytes")


def decode_payload(kind: str, payload: bytes) -> dict[str, object]:
    """Return a payload as its JSON mapping.

    Never raises for what is in a payload: an unknown kind, or bytes that are not its message, give
    ``{"payload_base64": ...}``.
    """
    known = _BY_KIND.get(kind)
    if known is not None:
        try:
            return strict_json.message_to_mapping(known.message_cls.FromString(payload))
        except DecodeError:
            pass
    return {"payload_base64": b64encode(payload).decode()}


def _check_size(topic_class: str, payload: bytes) -> None:
    maximum = TOPIC_CLASSES[topic_class].payload_max_bytes
    if len(payload) > maximum:
        raise WireError(
            reason_codes.PAYLOAD_TOO_LARGE,
            f"at most {maximum} bytes",
            "payload_bytes",
            limit=("payload_max_bytes", maximum),
        )
