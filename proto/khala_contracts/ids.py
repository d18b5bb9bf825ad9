"""Form of identifiers: a registered prefix and a UUIDv7 in lower-case Crockford base32.

    run_01fwhe4ydgfk1shh6w1g60eecf        3 letters, "_", 26 characters, ascending by time

128 bits fill 26 characters with two bits to spare, so the first character is 0..7: every value has
exactly one spelling. Devices make their own ids and keep them; only their form is checked. Where the
bytes come from is not decided here (``khala_service.identifiers``): this module has no clock.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEVICE_ID_MAX_BYTES", "ID_PREFIXES", "UUID_BYTES", "format_id", "is_device_id", "is_id"]

# Prefix -> what it names. The first seven are public (SPEC section 2), the others stay inside.
ID_PREFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "usr": "user",
        "org": "organisation",
        "run": "run",
        "wrk": "worker",
        "ses": "session",
        "evt": "event",
        "key": "service key",
        "lin": "lineage",
        "con": "connection",
        "nod": "node",
        "jti": "sync token",
        "req": "request",
        "bat": "batch of a node's audit",
    }
)

UUID_BYTES: Final = 16
DEVICE_ID_MAX_BYTES: Final = 68
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
# Two characters at a time: every event has an id, and one by one costs three times as much.
_PAIRS: Final = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_SHIFTS: Final = tuple(range(120, -1, -10))
_BODY: Final = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}", re.ASCII)
_DEVICE_ID: Final = re.compile(r"dev_[0-9a-z]{8,64}", re.ASCII)


def format_id(prefix: str, uuid_bytes: bytes) -> str:
    """Return the id of these 16 bytes.

    Raises:
        ValueError: The prefix is not registered, or there are not 16 bytes.
    """
    if prefix not in ID_PREFIXES:
        message = f"unknown id prefix {prefix!r}"
        raise ValueError(message)
    if len(uuid_bytes) != UUID_BYTES:
        message = f"an id is made of {UUID_BYTES} bytes, not {len(uuid_bytes)}"
        raise ValueError(message)
    value = int.from_bytes(uuid_bytes, "big")
    return f"{prefix}_" + "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])


def is_id(prefix: str, text: str) -> bool:
    """Return whether the text is an id with this prefix; names compare as bytes."""
    return (
        prefix in ID_PREFIXES
        and text.startswith(f"{prefix}_")
        and _BODY.fullmatch(text, len(prefix) + 1) is not None
    )


def is_device_id(text: str) -> bool:
    """Return whether the text is a device id: ``dev_`` and 8..64 of ``0-9 a-z``."""
    return _DEVICE_ID.fullmatch(text) is not None
