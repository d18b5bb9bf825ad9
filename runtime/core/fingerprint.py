"""Fingerprint of a request: equal iff the caller asks for the same thing.

Pure. Made from values, not from the body's bytes, so that the JSON and the protobuf form of one
request are the same request. Every part is length-prefixed: no two different lists of parts have the
same canonical bytes.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.core.events import EventColumns

__all__ = ["fingerprint_events", "fingerprint_parts"]

_LENGTH: Final = struct.Struct(">I")
_EVENT: Final = struct.Struct(">III")


def fingerprint_parts(route: str, parts: Iterable[str | bytes | int | None]) -> bytes:
    """Return the fingerprint of a request with these fields, in a fixed order.

    None, ``""`` and ``0`` are three different values.
    """
    digest = sha256(_field(route))
    for part in parts:
        digest.update(_field(part))
    return digest.digest()


def fingerprint_events(events: EventColumns, expected_seq: int | None) -> bytes:
    """Return the fingerprint of an append. Event ids do not enter: they are ours."""
    pieces: list[bytes] = [_field("append"), _field(expected_seq)]
    for kind, payload, version in zip(events.kinds, events.payloads, events.schema_versions, strict=True):
        name = kind.encode()
        pieces += (_EVENT.pack(len(name), version, len(payload)), name, payload)
    return sha256(b"".join(pieces)).digest()


def _field(part: str | bytes | int | None) -> bytes:
    match part:
        case None:
            return b"n"
        case str():
            return _tagged(b"s", part.encode())
        case bytes():
            return _tagged(b"b", part)
        case int():
            return _tagged(b"i", str(part).encode())


def _tagged(tag: bytes, data: bytes) -> bytes:
    return tag + _LENGTH.pack(len(data)) + data
