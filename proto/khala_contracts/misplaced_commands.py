"""Recognises the body of an HTTP command where a client message belongs, so that the refusal names the mistake.

Asked only for bytes that are refused anyway: the answer chooses between two reason codes of one close
code, and nothing is ever done with the command. Protobuf does not say which message some bytes are, so
this is a judgement: a body of ours, whole, without a field that it does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from khala_contracts import http_messages as m
from khala_contracts import kinds

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["is_append", "is_command"]

_COMMANDS: Final[tuple[type[Message], ...]] = (
    m.CreateRunRequest,
    m.AppendEventsRequest,
    m.TransitionRunRequest,
    m.TransferRunRequest,
    m.RegisterWorkerRequest,
    m.TransitionWorkerRequest,
    m.TopicOwnersRequest,
    m.EventInput,
    m.DevSignInRequest,
    m.ExchangeCodeRequest,
    m.RefreshRequest,
    m.SyncTokenRequest,
    m.CreateKeyRequest,
    m.RotateKeyRequest,
    m.RevokeSessionsRequest,
    m.RedeemRequest,
    m.ResolvePrincipalRequest,
)
_KINDS: Final = frozenset(kind for _class_name, kind in kinds.KINDS)


def is_command(data: bytes) -> bool:
    """Return whether bytes that are no client message are the body of a command."""
    return bool(data) and (any(_is_exactly(data, command) for command in _COMMANDS) or _is_audit(data))


def is_append(data: bytes) -> bool:
    """Return whether bytes are the body of an append; also if they could be read as a broken hello.

    Both begin with a message whose first field is text: a token there, a registered kind here.
    """
    if not _is_exactly(data, m.AppendEventsRequest):
        return False
    events = m.AppendEventsRequest.FromString(data).events
    return bool(events) and all(event.kind in _KINDS for event in events)


def _is_audit(data: bytes) -> bool:
    # Its fields are as far apart as those of a client message; only a batch that has its id is one.
    return _is_exactly(data, m.AppendAuditRequest) and bool(m.AppendAuditRequest.FromString(data).batch_id)


def _is_exactly(data: bytes, message_cls: type[Message]) -> bool:
    try:
        message = message_cls.FromString(data)
    except DecodeError:
        return False
    return len(UnknownFieldSet(message)) == 0
