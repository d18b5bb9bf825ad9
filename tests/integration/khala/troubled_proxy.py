"""A TCP proxy before PostgreSQL that swallows, refuses or resets, as a test says."""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit, urlunsplit

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# passes: as if it were not there. swallows: connections stay and are accepted, no byte passes.
# refuses: nobody listens behind the port.
Mood = Literal["passes", "swallows", "refuses"]
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


@attrs.define(eq=False)
class TroubledProxy:
    """Passes bytes between clients and one server.

    Attributes:
        resets_left: So many times, a connection is reset when the server has sent some bytes over it.
        reset_between_bytes: How many, from and to; drawn for each connection.
    """

    upstream_port: int
    port: int = 0
    mood: Mood = "passes"
    connections: int = 0
    resets: int = 0
    resets_left: int = 0
    reset_between_bytes: tuple[int, int] = (1, 2)
    rng: Random = attrs.field(factory=lambda: Random(1))
    _changed: trio.Event = attrs.field(factory=trio.Event)
    _open: set[trio.SocketStream] = attrs.field(factory=set)

    def dsn(self, direct: str) -> str:
        """Return the URL that goes through this proxy."""
        parts = urlsplit(direct)
        credentials = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{self.port}"))

    def become(self, mood: Mood) -> None:
        """Change; what was swallowed on open connections passes when it passes again."""
        self.mood = mood
        self._changed.set()
        self._changed = trio.Event()

    def reset_all(self) -> None:
        """Reset every connection that is open."""
        for stream in tuple(self._open):
            self._reset(stream)

    def _reset(self, stream: trio.SocketStream) -> None:
        self.resets += 1
        with suppress(*_BROKEN):
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        stream.socket.close()
        self._open.discard(stream)

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Accept until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            task_status.started()
            await trio.serve_listeners(self._connection, listeners, handler_nursery=nursery)

    async def _connection(self, client: trio.SocketStream) -> None:
        self.connections += 1
        self._open.add(client)
        try:
            await self._wait_passing()
            if self.mood == "refuses":
                self._reset(client)
                return
            server = await trio.open_tcp_stream("127.0.0.1", self.upstream_port)
        except OSError:
            self._reset(client)
            return
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(self._pass, client, server, nursery.cancel_scope, False)
            nursery.start_soon(self._pass, server, client, nursery.cancel_scope, True)
        self._open.discard(client)

    async def _wait_passing(self) -> None:
        while self.mood == "swallows":
            await self._changed.wait()

    async def _pass(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope, is_answer: bool
    ) -> None:
        passed, reset_at = 0, self.rng.randrange(*self.reset_between_bytes)
        with suppress(*_BROKEN):
            while data := await source.receive_some():
                await self._wait_passing()
                passed += len(data)
                if is_answer and self.resets_left and passed >= reset_at:
                    # In the middle of an answer: one that has arrived whole interrupts nobody.
                    self.resets_left -= 1
                    await sink.send_all(data[: len(data) // 2])
                    self._reset(sink)
                    break
                await sink.send_all(data)
        scope.cancel()


@asynccontextmanager
async def troubled_proxy(upstream_dsn: str) -> AsyncIterator[TroubledProxy]:
    """Serve a proxy before the server of this URL."""
    proxy = TroubledProxy(urlsplit(upstream_dsn).port or 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        yield proxy
        nursery.cancel_scope.cancel()
