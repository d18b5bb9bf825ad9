"""The hash chain that seals a topic: SHA-256 over wire-visible fields only.

    chain(0) = SHA256("khala.chain.v1" || 0x00 || topic)
    chain(n) = SHA256(chain(n-1) || u64be(seq) || u32be(schema_version)
                      || u32be(len kind) || kind || SHA256(payload_bytes))

The payload enters by its hash, so an erased frame leaves the chain intact. Lineage and times never
enter. Golden vectors: proto/fixtures/chain.json; PostgreSQL computes the same in append_v1.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from khala_contracts.erasure import decode_erased_untrusted
from khala_contracts.frames import ERASED_KIND

if TYPE_CHECKING:
    from khala_contracts.frames import Frame

__all__ = [
    "CHAIN_BYTES",
    "chain_after",
    "chain_next",
    "chain_next_erased",
    "chain_next_hashed",
    "chain_start",
]

CHAIN_BYTES: Final = 32
_DOMAIN: Final = b"khala.chain.v1\x00"
_HEAD: Final = struct.Struct(">QII")


def chain_start(topic: str) -> bytes:
    """Return chain(0) of a topic."""
    return sha256(_DOMAIN + topic.encode()).digest()


def chain_next(previous: bytes, seq: int, schema_version: int, kind: str, payload: bytes) -> bytes:
    """Return the chain at ``seq``, given the chain at ``seq - 1``."""
    return chain_next_hashed(previous, seq, schema_version, kind, sha256(payload).digest())


def chain_next_hashed(
    previous: bytes, seq: int, schema_version: int, kind: str, payload_sha256: bytes
) -> bytes:
    """Return the chain at ``seq`` from the hash of the payload alone."""
    name = kind.encode()
    return sha256(previous + _HEAD.pack(seq, schema_version, len(name)) + name + payload_sha256).digest()


def chain_next_erased(previous: bytes, seq: int, payload: bytes) -> bytes:
    """Return the chain at ``seq`` of an erased frame, from what its payload names.

    Raises:
        WireError: malformed_message; the payload does not name what it replaced.
    """
    erased = decode_erased_untrusted(payload)
    return chain_next_hashed(
        previous, seq, erased.original_schema_version, erased.original_kind, erased.payload_sha256
    )


def chain_after(previous: bytes, frame: Frame) -> bytes:
    """Return the chain at the frame's seq, erased or not.

    Raises:
        WireError: malformed_message; an erased frame that does not name what it replaced.
    """
    if frame.kind == ERASED_KIND:
        return chain_next_erased(previous, frame.seq, frame.payload)
    return chain_next(previous, frame.seq, frame.schema_version, frame.kind, frame.payload)
