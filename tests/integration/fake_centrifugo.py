"""A stand-in for the Centrifugo program: its configuration file, HTTP API and client protocol, as documented.

    python fake_centrifugo.py --config FILE

It is not Centrifugo and says nothing about its speed: it shows that the stadium's side of the conversation is
one that a server can have. With the broker ``postgres`` it does not start, as an older version would not.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

CLIENTS: set[asyncio.StreamWriter] = set()
pongs = 0


def varint(value: int) -> bytes:
    """Return a number of a protobuf message."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes((*encoded, value))


def field(number: int, data: bytes) -> bytes:
    """Return a length-delimited field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def frame(*replies: bytes) -> bytes:
    """Return one WebSocket message with these replies."""
    body = b"".join(varint(len(reply)) + reply for reply in replies)
    head = bytes((0x82, len(body))) if len(body) < 126 else b"\x82\x7e" + len(body).to_bytes(2, "big")
    return head + body


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Return the payload of the next masked frame."""
    _, size = await reader.readexactly(2)
    mask_and_body = await reader.readexactly(4 + (size & 127))
    assert mask_and_body[:4] == bytes(4)
    return mask_and_body[4:]


async def serve_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer connect and subscribe, keep the client, and ping it once; the first reads no pings."""
    global pongs
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Protocol: centrifuge-protobuf\r\n\r\n")
    assert await read_frame(reader) == b"\x04\x08\x01\x22\x00", "connect"
    writer.write(frame(b"\x08\x01" + field(5, field(1, b"client-id"))))
    assert await read_frame(reader) == b"\x0d\x08\x02" + field(5, field(1, b"stadium")), "subscribe"
    writer.write(frame(b"\x08\x02" + field(6, b"")))
    CLIENTS.add(writer)
    writer.write(frame(b""))
    assert await read_frame(reader) == b"\x00", "pong"
    pongs += 1


def publish(commands: list[dict[str, dict[str, str]]]) -> None:
    """Send publications to everybody, in messages of at most two."""
    pushes = [
        field(
            4,
            field(2, b"stadium")
            + field(4, field(4, base64.b64decode(command["publish"]["b64data"])) + b"\x30\x05"),
        )
        for command in commands
    ]
    for first in range(0, len(pushes), 2):
        for client in CLIENTS:
            client.write(frame(*pushes[first : first + 2]))


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection: a subscriber, or the API."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.startswith(b"GET /connection/websocket "):
                assert b"Sec-WebSocket-Protocol: centrifuge-protobuf\r\n" in head
                return await serve_client(reader, writer)
            assert head.startswith(b"POST /api/batch ")
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            commands = json.loads(await reader.readexactly(size))["commands"]
            while pongs < len(CLIENTS) - 1:
                await asyncio.sleep(0.01)
            publish(commands)
            body = json.dumps({"replies": [{"publish": {}}] * len(commands)}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    except asyncio.IncompleteReadError:
        writer.close()


async def main(config: dict[str, dict[str, Any]]) -> None:
    """Listen as the configuration says, until the process is ended."""
    if config.get("broker", {}).get("type") == "postgres":
        sys.exit(f"unknown broker: {sorted(config['broker']['postgres'])}")
    address = config["http_server"]
    assert config["client"]["insecure"]
    assert config["http_api"]["insecure"]
    server = await asyncio.start_server(serve, address["address"], int(address["port"]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[2]).read_text())))
