"""The one origin over real sockets, before services that are scripted byte by byte."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from khala.adapters.one_origin import OneOrigin
from khala.adapters.origin_routes import OriginLimits, Route, RouteTable, origin_routes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    # Is given the service, its connection, the head of a request and what came after it.
    Script = Callable[["Service", trio.SocketStream, bytes, bytes], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
DEADLINE_S = 20.0
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: k")


@attrs.define(eq=False)
class Service:
    """Reads heads of requests and does as its script says; keeps what it was sent."""

    script: Script | None = None
    port: int = 0
    connections: int = 0
    heads: list[bytes] = attrs.field(factory=list)

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Accept for ever."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._serve_one, listeners)
            task_status.started()

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        data = b""
        try:
            async with stream:
                while True:
                    while b"\r\n\r\n" not in data:
                        piece = await stream.receive_some()
                        if not piece:
                            return
                        data += piece
                    head, _, data = data.partition(b"\r\n\r\n")
                    self.heads.append(head)
                    if self.script is not None:
                        await self.script(self, stream, head, data)
                        return
                    await stream.send_all(OK)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


@attrs.define(eq=False)
class OriginRig:
    """The router and what is behind it."""

    origin: OneOrigin
    port: int
    control: Service
    runtime: Service
    node: Service
    leaving: trio.Event

    async def connect(self) -> trio.SocketStream:
        """Open a connection as a client."""
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def ask(self, request: bytes) -> bytes:
        """Send a request and read until the connection ends."""
        async with await self.connect() as stream:
            await stream.send_all(request)
            return await read_all(stream)

    @property
    def heads(self) -> list[bytes]:
        """Everything that any service was asked."""
        return [*self.control.heads, *self.runtime.heads, *self.node.heads]


@asynccontextmanager
async def open_origin(
    limits: OriginLimits | None = None,
    *,
    nodes: tuple[int, ...] = (),
    table: Callable[[OriginRig], RouteTable] | None = None,
    **scripts: Script,
) -> AsyncIterator[OriginRig]:
    """Run the router before control, runtime and node.

    Args:
        limits: Of the router.
        nodes: Ports of more nodes, before the scripted one in turn.
        table: Makes another table of routes.
        scripts: By the name of the service.
    """
    services = [Service(scripts.get(name)) for name in ("control", "runtime", "node")]
    control, runtime, node = services
    async with trio.open_nursery() as nursery:
        for service in services:
            await nursery.start(service.serve)
        routes = origin_routes(control=control.port, runtime=runtime.port, nodes=(*nodes, node.port))
        leaving = trio.Event()
        origin = OneOrigin(routes, limits=limits, leaving=leaving)
        rig = OriginRig(origin, 0, control, runtime, node, leaving)
        if table is not None:
            rig.origin = OneOrigin(table(rig), limits=limits, leaving=leaving)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        rig.port = listeners[0].socket.getsockname()[1]
        await nursery.start(rig.origin.serve, listeners)
        with trio.fail_after(DEADLINE_S):
            yield rig
        nursery.cancel_scope.cancel()


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    """Return a request that is the last one of its connection, unless ``headers`` say otherwise."""
    has_connection = any(header.lower().startswith("connection:") for header in headers)
    end = () if has_connection else ("Connection: close",)
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *end, *headers, "", "")).encode()


async def read_all(stream: trio.SocketStream) -> bytes:
    """Read until the connection ends, in whichever way."""
    data = b""
    try:
        while piece := await stream.receive_some():
            data += piece
    except trio.BrokenResourceError:
        pass
    return data


async def read_until(stream: trio.SocketStream, end: bytes) -> bytes:
    """Read until what was read ends like this."""
    data = b""
    while not data.endswith(end):
        piece = await stream.receive_some()
        assert piece, data
        data += piece
    return data


async def read_body(stream: trio.SocketStream, head: bytes, rest: bytes) -> bytes:
    """Return a body that was announced by its length."""
    lines = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
    size = int(lines[b"content-length"])
    while len(rest) < size:
        piece = await stream.receive_some()
        if not piece:
            break
        rest += piece
    return rest


async def wait_for(is_true: Callable[[], bool]) -> None:
    """Return when it holds; the rig's deadline ends the wait."""
    while not is_true():
        await trio.sleep(0.005)


def only_route(port: int) -> RouteTable:
    """Return a table that sends everything to one port."""
    return RouteTable((Route("/", (port,), is_upgradable=True),))
