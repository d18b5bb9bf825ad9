"""WebSocket framing of what the node sends: one unmasked, unfragmented frame (RFC 6455, 5.2).

Data and control messages are framed here and never pass through the WebSocket library, so that
one framed range serves every subscriber. Pongs come from the library; so does the close, but where it sends none.
"""

from __future__ import annotations

import struct
from typing import Final

_FIN_TEXT: Final = 0x81
_FIN_BINARY: Final = 0x82
_FIN_CLOSE: Final = 0x88
# A control frame carries 125 bytes at most (RFC 6455, 5.5), and two of them are the code.
_REASON_MAX_BYTES: Final = 123


def frame_header(length: int, *, is_text: bool = False) -> bytes:
    """Return the header of a final frame that carries ``length`` bytes."""
    first = _FIN_TEXT if is_text else _FIN_BINARY
    if length < 126:
        return bytes((first, length))
    if length < 65_536:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)


def frame_message(body: bytes, *, is_text: bool = False) -> bytes:
    """Return ``body`` as one complete WebSocket message."""
    return frame_header(len(body), is_text=is_text) + body


def frame_close(code: int, reason: str = "") -> bytes:
    """Return a close frame; a reason beyond 123 bytes is cut."""
    payload = code.to_bytes(2, "big") + reason.encode()[:_REASON_MAX_BYTES]
    return bytes((_FIN_CLOSE, len(payload))) + payload
