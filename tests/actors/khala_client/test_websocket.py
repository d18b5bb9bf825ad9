"""The socket of each front: one suite. Connecting when something else is there, or nothing; endings."""

from __future__ import annotations

import logging
import ssl
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from khala_client.errors import KhalaError, Unavailable
from khala_client.ring.ports import SocketEnded
from khala_client.version import USER_AGENT
from tests.actors.khala_client.loops import LoopKind, on_both_loops
from tests.actors.khala_client.scripted_socket import PeerGone, ServerSocket, serve_streams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.abc import SocketStream

    from khala_client.ring.ports import SyncSocket


@asynccontextmanager
async def served(handler: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    """Serve TCP connections with ``handler``; give the URL."""
    async with serve_streams(handler) as port:
        yield f"ws://127.0.0.1:{port}/sync/v1/ws"


@asynccontextmanager
async def connected(loop: LoopKind, url: str) -> AsyncIterator[SyncSocket]:
    """Connect; whoever is inside closes."""
    async with anyio.create_task_group() as tasks:
        yield await loop.khala._loop.connect(tasks, url, ssl_context=None)


async def failure_of(loop: LoopKind, url: str) -> KhalaError:
    """Connect, and return how it failed."""
    failure: KhalaError | None = None
    async with anyio.create_task_group() as tasks:
        try:
            await loop.khala._loop.connect(tasks, url, ssl_context=None)
        except KhalaError as error:
            failure = error
    assert failure is not None
    return failure


async def answer(text: str, stream: SocketStream) -> None:
    """Read the request, send a fixed answer, close."""
    async with stream:
        await stream.receive()
        await stream.send(text.encode())


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("403 Forbidden", "origin_forbidden"),
        ("404 Not Found", "not_found"),
        ("503 Busy", "unavailable"),
        # A token is for the origin that was named; nothing is followed.
        ("307 Temporary Redirect\r\nLocation: /elsewhere", "unavailable"),
    ],
)
@on_both_loops
async def test_a_refused_upgrade(loop: LoopKind, status: str, code: str) -> None:
    """403 and 404 are final; anything else is trouble."""
    handler = partial(answer, f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    async with served(handler) as url:
        error = await failure_of(loop, url)
    assert (error.code, error.details["status"]) == (code, status[:3])
    assert error.retryable == (code == "unavailable")


@on_both_loops
async def test_a_node_that_turns_us_away(loop: LoopKind) -> None:
    """KH-12: 429 carries the time at which to return, to the millisecond."""
    body = '{"code":"rate_limited","retry_after_ms":1234}'
    head = f"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    async with served(partial(answer, head + body)) as url:
        error = await failure_of(loop, url)
    assert (error.code, error.retry_after_ms, error.retryable) == ("rate_limited", 1_234, True)


@pytest.mark.parametrize("text", ["", "this is not HTTP\r\n\r\n"])
@on_both_loops
async def test_something_else_listens_there(loop: LoopKind, text: str) -> None:
    """It closes before the upgrade: known at once, not after the time-out."""
    async with served(partial(answer, text)) as url:
        with anyio.fail_after(5):
            error = await failure_of(loop, url)
    assert isinstance(error, Unavailable)


@on_both_loops
async def test_nobody_answers(loop: LoopKind) -> None:
    """Ten seconds for everything together."""

    async def be_silent(stream: SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    async with served(be_silent) as url:
        error = await failure_of(loop, url)
        assert anyio.current_time() == pytest.approx(10)
    assert error.message == "the node did not answer in time"


@on_both_loops
async def test_nobody_listens(loop: LoopKind) -> None:
    """Refused by the kernel."""
    assert isinstance(await failure_of(loop, "ws://127.0.0.1:1/sync/v1/ws"), Unavailable)


@on_both_loops
async def test_a_certificate_that_is_not_trusted(loop: LoopKind) -> None:
    """TLS is checked against the system's authorities; a plain server is none."""
    async with served(partial(answer, "plain text")) as url:
        assert isinstance(await failure_of(loop, url.replace("ws:", "wss:")), Unavailable)
    assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED


class Peer:
    """The server's end of one WebSocket."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.close_code: int | None = None
        self.gone = anyio.Event()
        self.received: list[bytes] = []
        self.text: str | None = None
        self.copies = 1

    async def handle(self, stream: SocketStream) -> None:
        """Accept, say something, wait for the end."""
        async with stream:
            socket = ServerSocket(stream)
            request = await socket.accept()
            self.headers = {name.lower(): value for name, value in request.headers.raw_items()}
            try:
                for _ in range(self.copies if self.text is not None else 0):
                    await socket.send_message(self.text or "")
                while True:
                    self.received.append(await socket.get_message())
            except PeerGone:
                self.close_code = socket.close_code
                self.gone.set()


@on_both_loops
async def test_closing_is_orderly_also_when_cancelled(loop: LoopKind) -> None:
    """The peer gets our close frame; we do not wait for a time-out to see its answer."""
    peer = Peer()
    async with served(peer.handle) as url:
        with anyio.move_on_after(0.05):
            async with connected(loop, url) as socket:
                try:
                    await anyio.sleep_forever()
                finally:
                    started_s = anyio.current_time()
                    with anyio.CancelScope(shield=True):
                        await socket.close(1000, "é" * 100)
                    took_s = anyio.current_time() - started_s
        with anyio.fail_after(2):
            await peer.gone.wait()
    assert took_s < 0.9
    assert peer.close_code == 1000
    assert peer.headers["user-agent"] == USER_AGENT
    assert peer.headers["sec-websocket-protocol"] == "khala.v1"
    assert "authorization" not in peer.headers


@on_both_loops
async def test_a_peer_that_does_not_answer_the_close_is_cut(loop: LoopKind) -> None:
    """One second, then TCP is gone; nothing of ours is left."""
    upgraded = anyio.Event()

    async def fall_silent(stream: SocketStream) -> None:
        async with stream:
            await ServerSocket(stream).accept()
            upgraded.set()
            await anyio.sleep_forever()

    async with served(fall_silent) as url:
        async with connected(loop, url) as socket:
            await upgraded.wait()
            await socket.close(1000, "")
        assert anyio.current_time() <= 2.1


@on_both_loops
async def test_closing_does_not_wait_for_what_nobody_reads(loop: LoopKind) -> None:
    """The peer's close frame is behind more than we buffer: it is found at once."""
    peer = Peer()
    peer.text = "x" * 100_000
    peer.copies = 20
    async with served(peer.handle) as url, connected(loop, url) as socket:
        await socket.receive()
        await anyio.sleep(0.1)
        started_s = anyio.current_time()
        await socket.close(1000, "")
        assert anyio.current_time() - started_s < 0.9
        with anyio.fail_after(2):
            await peer.gone.wait()
    assert peer.close_code == 1000


@on_both_loops
async def test_a_closed_socket_says_so(loop: LoopKind) -> None:
    """Each call in its own way; a text message is given as bytes that are no ServerMessage."""
    peer = Peer()
    peer.text = "hello"
    async with served(peer.handle) as url, connected(loop, url) as socket:
        assert await socket.receive() == b"hello"
        assert socket.close_code is None
        await socket.send(b"\x01")
        await socket.ping()
        await socket.close(1000, "")
        for call in (socket.receive(), socket.send(b"x"), socket.ping()):
            with pytest.raises(SocketEnded):
                await call
    assert peer.received == [b"\x01"]


@on_both_loops
async def test_what_is_sent_is_not_logged(loop: LoopKind, caplog: pytest.LogCaptureFixture) -> None:
    """An application may log everything: the hello carries a token."""
    caplog.set_level(logging.DEBUG)
    peer = Peer()
    async with served(peer.handle) as url, connected(loop, url) as socket:
        caplog.clear()  # what the peer of this test says of itself
        await socket.send(b"a-secret")
        await socket.close(1000, "")
    assert peer.received == [b"a-secret"]
    own = [each.getMessage() for each in caplog.records if not each.name.startswith("websockets.server")]
    assert not [text for text in own if "a-secret" in text or b"a-secret".hex(" ") in text]


@on_both_loops
async def test_an_ending_without_a_close_frame_has_no_code(loop: LoopKind) -> None:
    """TCP ends under us: the machine must not take it for a decision of the node."""

    async def drop(stream: SocketStream) -> None:
        async with stream:
            await ServerSocket(stream).accept()

    async with served(drop) as url, connected(loop, url) as socket:
        with pytest.raises(SocketEnded):
            await socket.receive()
        assert socket.close_code is None
        await socket.close(1000, "")


@on_both_loops
async def test_a_cancelled_receive_loses_no_message(loop: LoopKind) -> None:
    """The next one gets it."""
    said = anyio.Event()

    async def speak(stream: SocketStream) -> None:
        async with stream:
            socket = ServerSocket(stream)
            await socket.accept()
            await said.wait()
            for number in range(3):
                await socket.send_message(bytes([number]))
            await anyio.sleep_forever()

    async with served(speak) as url, connected(loop, url) as socket:
        with anyio.move_on_after(1):
            await socket.receive()
        said.set()
        assert [await socket.receive() for _ in range(3)] == [b"\x00", b"\x01", b"\x02"]
        await socket.close(1000, "")
