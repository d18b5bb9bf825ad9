"""WebSocket frames as a client makes them, well or badly, and a server's frames as bytes (RFC 6455, 5.2)."""

from __future__ import annotations

import attrs

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MASK = b"\x37\xfa\x21\x3d"


def upgrade_request(
    *headers: str, subprotocol: str = "khala.v1", line: str = "GET /sync/v1/ws HTTP/1.1"
) -> bytes:
    """Return an upgrade request; a header that is given replaces the usual one of its name."""
    usual = (
        "Host: khala", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Sec-WebSocket-Protocol: {subprotocol}",
    )  # fmt: skip
    given = {header.partition(":")[0].lower() for header in headers}
    kept = [header for header in usual if header.partition(":")[0].lower() not in given]
    # A name alone takes the usual header away.
    said = [line, *kept, *(header for header in headers if ":" in header), "", ""]
    return "\r\n".join(said).encode("utf-8", "surrogateescape")


def client_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    is_final: bool = True,
    reserved: int = 0,
    mask: bytes | None = MASK,
    length: int | None = None,
) -> bytes:
    """Return a frame.

    Args:
        opcode: 0..15.
        payload: In clear.
        is_final: Whether no fragment follows.
        reserved: The three reserved bits, 0..7.
        mask: None: unmasked, which a client must not do.
        length: Announced; that of the payload if it is not given.
    """
    announced = len(payload) if length is None else length
    bit = 0 if mask is None else 0x80
    head = bytearray((is_final << 7 | reserved << 4 | opcode,))
    if announced < 126:
        head += bytes((bit | announced,))
    elif announced < 1 << 16:
        head += bytes((bit | 126,)) + announced.to_bytes(2, "big")
    else:
        head += bytes((bit | 127,)) + announced.to_bytes(8, "big")
    if mask is None:
        return bytes(head) + payload
    return bytes(head) + mask + xor(payload, mask)


def xor(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask."""
    if not payload:
        return b""
    whole = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")).to_bytes(len(payload), "big")


def close_payload(code: int, reason: bytes = b"") -> bytes:
    """Return what a close frame carries."""
    return code.to_bytes(2, "big") + reason


@attrs.frozen
class ServerFrame:
    """A complete, unfragmented, unmasked frame."""

    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int | None:
        """Of a close; None if it has none, or is no close."""
        return int.from_bytes(self.payload[:2], "big") if self.opcode == CLOSE and self.payload else None


def split_server_bytes(wire: bytes) -> tuple[bytes, list[ServerFrame]]:
    """Return the HTTP answer and the frames behind it; whatever is neither is an error."""
    head, _, rest = wire.partition(b"\r\n\r\n")
    frames: list[ServerFrame] = []
    if not head.startswith(b"HTTP/1.1 101 "):
        return head, frames
    while rest:
        assert rest[0] & 0xF0 == 0x80, f"fragmented, or a reserved bit: {rest[:10]!r}"
        size, start = rest[1], 2
        assert size < 128, "a server's frames are not masked"
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(rest[2:start], "big")
        assert len(rest) >= start + size, "the last frame is not complete"
        frames.append(ServerFrame(rest[0] & 0x0F, rest[start : start + size]))
        rest = rest[start + size :]
    return head, frames
