"""A TCP proxy before PostgreSQL that cuts the connection around COMMIT, or lets nothing through any more."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit, urlunsplit

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# What a writer's connection sends when it is opened; projectors commit on others.
_WRITER = b"transaction_timeout"
# The whole text of the simple query that ends a transaction (BEGIN says READ COMMITTED).
_COMMIT = b"COMMIT\x00"


@attrs.define
class CuttingProxy:
    """Passes everything on, except as a test says.

    Attributes:
        cut: What to do at the next COMMITs: cut before the server sees it, or after the server has
            answered and before the client sees the answer; or let nothing through from that answer on.
        cuts_left: At how many.
        writers_only: Leave the connections of projectors alone.
        closes: With the cut, cut everything else too and refuse new connections.
        is_closed: Refuse new connections.
        connections: How many were accepted.
    """

    upstream_port: int
    cut: Literal["before", "after", "swallow"] = "before"
    cuts_left: int = 0
    writers_only: bool = False
    closes: bool = False
    is_closed: bool = False
    connections: int = 0
    _scopes: set[trio.CancelScope] = attrs.field(factory=set)
    port: int = 0
    # While set: not one byte passes, and new connections are accepted and left alone.
    _hole: trio.Event | None = None

    def swallow(self) -> None:
        """Let nothing through: the network has gone, and no packet says so."""
        self._hole = self._hole or trio.Event()

    def pass_on(self) -> None:
        """Let everything through again, also what was sent meanwhile."""
        if self._hole is not None:
            self._hole.set()
        self._hole = None

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Accept until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            task_status.started()
            await trio.serve_listeners(self._connection, listeners, handler_nursery=nursery)

    def dsn(self, direct: str) -> str:
        """Return the URL that goes through this proxy."""
        parts = urlsplit(direct)
        credentials = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{self.port}"))

    async def _connection(self, client: trio.SocketStream) -> None:
        self.connections += 1
        if self.is_closed:
            await client.aclose()
            return
        server = await trio.open_tcp_stream("127.0.0.1", self.upstream_port)
        async with client, server, trio.open_nursery() as nursery:
            scope, holds = nursery.cancel_scope, trio.Event()
            self._scopes.add(scope)
            nursery.start_soon(partial(self._to_server, client, server, holds, scope))
            nursery.start_soon(partial(self._to_client, server, client, holds, scope))
        self._scopes.discard(scope)

    async def _to_server(
        self, client: trio.SocketStream, server: trio.SocketStream, holds: trio.Event, scope: trio.CancelScope
    ) -> None:
        is_writer = False
        try:
            while data := await client.receive_some():
                is_writer = is_writer or _WRITER in data
                is_meant = is_writer or not self.writers_only
                if is_meant and data[:1] == b"Q" and _COMMIT in data and self.cuts_left:
                    self.cuts_left -= 1
                    if self.cut == "before":
                        self._cut()
                        break
                    holds.set()
                await self._wait_passing()
                await server.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    async def _to_client(
        self, server: trio.SocketStream, client: trio.SocketStream, holds: trio.Event, scope: trio.CancelScope
    ) -> None:
        try:
            while data := await server.receive_some():
                if holds.is_set() and self.cut == "swallow":
                    self.swallow()
                elif holds.is_set():
                    # The answer to COMMIT: the server has done it, the client will never know.
                    self._cut()
                    break
                await self._wait_passing()
                await client.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    async def _wait_passing(self) -> None:
        while self._hole is not None:
            await self._hole.wait()

    def _cut(self) -> None:
        if self.closes:
            self.is_closed = True
            for scope in self._scopes:
                scope.cancel()


@asynccontextmanager
async def cutting_proxy(upstream_dsn: str) -> AsyncIterator[CuttingProxy]:
    """Serve a proxy before the server of this URL."""
    proxy = CuttingProxy(urlsplit(upstream_dsn).port or 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        yield proxy
        nursery.cancel_scope.cancel()
