"""The server's end of a WebSocket, on either event loop: a sans-IO protocol over one anyio stream."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from anyio.abc import SocketAttribute
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.abc import ByteStream, SocketStream

__all__ = ["PeerGone", "ServerSocket", "serve_streams"]

RECEIVE_BYTES = 64 * 1024


@asynccontextmanager
async def serve_streams(handler: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """Serve TCP connections with ``handler`` inside the block; give the port."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handler)
        yield listener.extra(SocketAttribute.local_port)  # noqa: S610 - not Django's
        tasks.cancel_scope.cancel()


class PeerGone(Exception):
    """The client has closed, or its connection has ended."""


class ServerSocket:
    """One accepted WebSocket; answers pings and closes while somebody receives."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._protocol = ServerProtocol(subprotocols=[Subprotocol("khala.v1")])
        # Several tasks send; the stream takes one at a time.
        self._sending = anyio.Lock()
        self._frames: list[Frame] = []
        self.request: Request | None = None

    @property
    def close_code(self) -> int | None:
        """Code of the client's close frame, None if there was none yet."""
        received = self._protocol.close_rcvd
        return received.code if received is not None else None

    async def accept(self) -> Request:
        """Read the request and upgrade."""
        while self.request is None:
            await self._receive()
        self._protocol.send_response(self._protocol.accept(self.request))
        await self._flush()
        return self.request

    async def get_message(self) -> bytes:
        """Return the next message. Raises PeerGone."""
        while True:
            while self._frames:
                frame = self._frames.pop(0)
                if frame.opcode in {Opcode.BINARY, Opcode.TEXT}:
                    assert frame.fin, "our clients do not fragment"
                    return bytes(frame.data)
            if self._protocol.state is not OPEN:
                raise PeerGone
            await self._receive()

    async def send_message(self, data: bytes | str) -> None:
        """Send one message. Raises PeerGone."""
        try:
            if isinstance(data, str):
                self._protocol.send_text(data.encode())
            else:
                self._protocol.send_binary(data)
        except InvalidState as error:
            raise PeerGone from error
        await self._flush()

    async def aclose(self, code: int, reason: str) -> None:
        """Send a close frame; whoever receives sees the answer."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)
            await self._flush()

    async def reset(self) -> None:
        """Drop TCP without a close frame."""
        await self._stream.aclose()

    async def _receive(self) -> None:
        try:
            self._protocol.receive_data(await self._stream.receive(RECEIVE_BYTES))
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._protocol.receive_eof()
            raise PeerGone from None
        finally:
            await self._flush()
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self.request = event
            elif isinstance(event, Frame):
                self._frames.append(event)

    async def _flush(self) -> None:
        wires = [wire for wire in self._protocol.data_to_send() if wire]
        try:
            async with self._sending:
                for wire in wires:
                    await self._stream.send(wire)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the receiver sees the end
