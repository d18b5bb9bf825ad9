"""Connecting when something else is there, or nothing."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio_websocket import wrap_server_stream

from khala_client.errors import KhalaError, Unavailable
from khala_client.trio.websocket import Pumps, SyncSocket, connect_sync_socket, hold_pumps
from khala_client.version import USER_AGENT

Handler = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[str]:
    """Serve TCP connections with ``handler``; give the URL."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/sync/v1/ws"
        nursery.cancel_scope.cancel()


async def failure_of(url: str) -> KhalaError:
    """Connect, and return how it failed."""
    failure: KhalaError | None = None
    async with trio.open_nursery() as nursery:
        pumps: Pumps = await nursery.start(hold_pumps)
        try:
            await connect_sync_socket(pumps, url)
        except KhalaError as error:
            failure = error
        finally:
            pumps.stop()
    assert failure is not None
    return failure


async def answer(text: str, stream: trio.SocketStream) -> None:
    """Read the request, send a fixed answer, close."""
    async with stream:
        await stream.receive_some()
        await stream.send_all(text.encode())


@pytest.mark.parametrize(
    ("status", "code"),
    [("403 Forbidden", "origin_forbidden"), ("404 Not Found", "not_found"), ("503 Busy", "unavailable")],
)
async def test_a_refused_upgrade(status: str, code: str) -> None:
    """403 and 404 are final; anything else is trouble."""
    handler = partial(answer, f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    async with served(handler) as url:
        error = await failure_of(url)
    assert (error.code, error.details["status"]) == (code, status[:3])
    assert error.retryable == (code == "unavailable")


@pytest.mark.parametrize("text", ["", "this is not HTTP\r\n\r\n"])
async def test_something_else_listens_there(text: str) -> None:
    """It closes before the upgrade: known at once, not after the time-out."""
    async with served(partial(answer, text)) as url:
        with trio.fail_after(5):
            error = await failure_of(url)
    assert isinstance(error, Unavailable)


async def test_nobody_answers(autojump_clock: trio.testing.MockClock) -> None:
    """Ten seconds for everything together."""

    async def be_silent(stream: trio.SocketStream) -> None:
        async with stream:
            await trio.sleep_forever()

    async with served(be_silent) as url:
        error = await failure_of(url)
        assert trio.current_time() == 10
    assert error.message == "the node did not answer in time"


async def test_nobody_listens() -> None:
    """Refused by the kernel."""
    assert isinstance(await failure_of("ws://127.0.0.1:1/sync/v1/ws"), Unavailable)


async def test_a_certificate_that_is_not_trusted() -> None:
    """TLS is checked against the system's authorities; a plain server is none."""
    async with served(partial(answer, "plain text")) as url:
        assert isinstance(await failure_of(url.replace("ws:", "wss:")), Unavailable)
    assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED


class Peer:
    """The server's end of one WebSocket."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.subprotocols: tuple[str, ...] = ()
        self.close_code: int | None = None
        self.closed = trio.Event()
        self.text: str | None = None

    async def handle(self, stream: trio.SocketStream) -> None:
        """Accept, say something, wait for the end."""
        async with stream, trio.open_nursery() as pumps:
            request = await wrap_server_stream(pumps, stream)
            self.headers = {name.decode().lower(): value.decode() for name, value in request.headers}
            self.subprotocols = tuple(request.proposed_subprotocols)
            connection = await request.accept(subprotocol="khala.v1")
            if self.text is not None:
                await connection.send_message(self.text)
            while connection.closed is None:
                await trio.sleep(0.001)
            self.close_code = connection.closed.code
            self.closed.set()


async def test_closing_is_orderly_also_when_cancelled() -> None:
    """The peer gets our close frame; we do not wait for a time-out to see its answer."""
    peer = Peer()
    async with served(peer.handle) as url:
        with trio.move_on_after(0.05):
            async with trio.open_nursery() as nursery:
                pumps: Pumps = await nursery.start(hold_pumps)
                socket = await connect_sync_socket(pumps, url)
                try:
                    await trio.sleep_forever()
                finally:
                    started_s = trio.current_time()
                    with trio.CancelScope(shield=True):
                        await socket.close(1000, "é" * 100)
                    took_s = trio.current_time() - started_s
                    pumps.stop()
        with trio.fail_after(2):
            await peer.closed.wait()
    assert took_s < 0.9
    assert peer.close_code == 1000
    assert peer.headers["user-agent"] == USER_AGENT
    assert peer.subprotocols == ("khala.v1",)


async def test_a_closed_socket_says_so() -> None:
    """Each call in its own way; a text message is given as bytes that are no ServerMessage."""
    peer = Peer()
    peer.text = "hello"
    async with served(peer.handle) as url, trio.open_nursery() as nursery:
        pumps: Pumps = await nursery.start(hold_pumps)
        socket: SyncSocket = await connect_sync_socket(pumps, url)
        assert await socket.receive() == b"hello"
        assert socket.close_code is None
        await socket.close(1000, "")
        with pytest.raises(trio.EndOfChannel):
            await socket.receive()
        with pytest.raises(trio.BrokenResourceError):
            await socket.send(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await socket.ping()
        pumps.stop()
