"""A streamed append whose body a test writes piece by piece while it reads the acknowledgements."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from tests.integration.runtime.rig import NDJSON, Document, stream_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@attrs.define
class OpenStream:
    """A request whose body is still being written, on a socket of its own."""

    socket: trio.SocketStream
    received: bytes = b""

    async def send(self, *events: Document) -> None:
        """Send events as one piece of the body."""
        body = stream_body(events)
        await self.socket.send_all(b"%x\r\n%s\r\n" % (len(body), body))

    async def finish(self) -> None:
        """End the body."""
        await self.socket.send_all(b"0\r\n\r\n")

    async def line(self) -> Document:
        """Return the next line of the answer."""
        with trio.fail_after(10):
            while True:
                for row in self.received.split(b"\r\n"):
                    if row.startswith(b"{") and row.endswith(b"\n"):
                        self.received = self.received.replace(row, b"", 1)
                        found: Document = json.loads(row)
                        return found
                data = await self.socket.receive_some()
                assert data, self.received
                self.received += data

    async def wait_end(self) -> None:
        """Wait until the answer has ended as it should, with an empty chunk."""
        with trio.fail_after(10):
            while not self.received.endswith(b"\r\n0\r\n\r\n"):
                data = await self.socket.receive_some()
                assert data, self.received
                self.received += data


@asynccontextmanager
async def open_stream(port: int, run_id: str) -> AsyncIterator[OpenStream]:
    """Begin a streamed append to the runtime on this port."""
    socket = await trio.open_tcp_stream("127.0.0.1", port)
    async with socket:
        await socket.send_all(
            f"POST /v1/runs/{run_id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user\r\n"
            f"Content-Type: {NDJSON}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        yield OpenStream(socket)
