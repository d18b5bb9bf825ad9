"""Payload of ``khala.erased``: what remains of a frame whose payload was erased.

It names everything of the original frame that enters the chain, so that the chain still follows.
"""

from __future__ import annotations

from typing import Final

import attrs
from google.protobuf.message import DecodeError

from khala_contracts import reason_codes
from khala_contracts.errors import WireError
from khala_contracts.gen.openagents.sync.v1 import frames_pb2

__all__ = ["SHA256_BYTES", "Erased", "decode_erased_untrusted", "encode_erased"]

SHA256_BYTES: Final = 32


@attrs.frozen
class Erased:
    """The original frame, without its payload."""

    original_kind: str
    payload_sha256: bytes = attrs.field(repr=False)
    original_schema_version: int
    reason: str = ""

    def __attrs_post_init__(self) -> None:
        if (
            not self.original_kind
            or len(self.payload_sha256) != SHA256_BYTES
            or self.original_schema_version < 1
        ):
            message = "an erased frame names kind, payload hash and schema version of the original"
            raise ValueError(message)


def encode_erased(erased: Erased) -> bytes:
    """Return the payload."""
    return frames_pb2.Erased(
        original_kind=erased.original_kind,
        payload_sha256=erased.payload_sha256,
        reason=erased.reason,
        original_schema_version=erased.original_schema_version,
    ).SerializeToString(deterministic=True)


def decode_erased_untrusted(payload: bytes) -> Erased:
    """Return what the payload says.

    Raises:
        WireError: malformed_message; it does not name what it replaced.
    """
    try:
        message = frames_pb2.Erased.FromString(payload)
        return Erased(
            original_kind=message.original_kind,
            payload_sha256=message.payload_sha256,
            original_schema_version=message.original_schema_version,
            reason=message.reason,
        )
    except (DecodeError, ValueError):
        raise WireError(
            reason_codes.MALFORMED_MESSAGE, "not the payload of khala.erased", "payload_bytes"
        ) from None
