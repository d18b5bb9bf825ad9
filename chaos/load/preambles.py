"""Files of what each of many connections says first, for clients in C (``native/stream.h`` reads them).

One entry for each connection, integers little-endian:

    u32 bytes of the upgrade request, u32 bytes of what follows the 101, u32 number of topics
    the upgrade request, the masked messages
    for each topic: u16 length, name, i64 seq after which its frames begin (-1: ``subscribed`` says so)
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import attrs

from khala_contracts.codec import (
    FromStart,
    Hello,
    Subscribe,
    SubscribeFrom,
    TopicStart,
    VersionRange,
    encode_client_message,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from khala_contracts.codec import ClientMessage

__all__ = ["FROM_NOW", "Preamble", "mask_message", "upgrade_request", "write_preambles"]

# SPEC section 3.
TOPICS_PER_SUBSCRIBE: Final = 64
FROM_NOW: Final = FromStart(SubscribeFrom.NOW)
_V1: Final = VersionRange(1, 1)
_HEAD: Final = struct.Struct("<III")
_LENGTH: Final = struct.Struct("<H")
_SEQ: Final = struct.Struct("<q")


@attrs.frozen
class Preamble:
    """What one connection says first.

    Attributes:
        upgrade: The HTTP request; empty for a peer without one.
        messages: Masked WebSocket frames, sent when the 101 is there.
        expected: Topics, and the seq after which each begins; -1 if ``subscribed`` says it.
    """

    upgrade: bytes
    messages: bytes = attrs.field(repr=False)
    expected: Sequence[tuple[str, int]]

    @classmethod
    def of_subscriber(
        cls,
        token: str,
        device_id: str,
        topics: Sequence[TopicStart],
        *,
        host: str = "localhost",
        path: str = "/sync/v1/ws",
    ) -> Preamble:
        """Return hello and subscribe of a client of the node (``FROM_NOW`` or a cursor for each topic)."""
        hello = Hello(token, None, device_id, "bench", _V1, _V1)
        starts = [
            topics[first : first + TOPICS_PER_SUBSCRIBE]
            for first in range(0, len(topics), TOPICS_PER_SUBSCRIBE)
        ]
        messages: list[ClientMessage] = [hello, *(Subscribe(tuple(some)) for some in starts)]
        return cls(
            upgrade_request(host, path),
            b"".join(mask_message(encode_client_message(message)) for message in messages),
            [(start.topic, -1) for start in topics],
        )


def upgrade_request(host: str, path: str, subprotocol: str | None = "khala.v1") -> bytes:
    """Return the request that opens a WebSocket; without extensions."""
    protocol = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{protocol}\r\n"
    ).encode()


def mask_message(body: bytes) -> bytes:
    """Return one binary client frame; a mask of zeros is a mask (RFC 6455, 5.3)."""
    size = len(body)
    if size < 126:
        return bytes((0x82, 0x80 | size)) + bytes(4) + body
    return bytes((0x82, 0x80 | 126)) + size.to_bytes(2, "big") + bytes(4) + body


def write_preambles(file: Path, preambles: Iterable[Preamble]) -> None:
    """Write the file that the clients in C read."""
    with file.open("wb") as output:
        for one in preambles:
            output.write(_HEAD.pack(len(one.upgrade), len(one.messages), len(one.expected)))
            output.write(one.upgrade + one.messages)
            for topic, after_seq in one.expected:
                name = topic.encode()
                output.write(_LENGTH.pack(len(name)) + name + _SEQ.pack(after_seq))
