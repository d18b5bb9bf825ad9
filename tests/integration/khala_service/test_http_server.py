"""The edge behind real sockets: ports, draining, clients that leave, bodies that are not read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import httpx
import pytest
import trio
from quart import Response, request
from quart_trio import QuartTrio

from khala_service.http_connection import BODY_BUFFER_BYTES
from khala_service.http_edge import make_app, serve
from khala_service.metrics import MetricsRegistry


@attrs.define
class Served:
    """A running application and what its routes have seen."""

    port: int
    shutdown: trio.Event
    metrics: MetricsRegistry
    started: trio.Event
    finish: trio.Event
    was_cancelled: trio.Event

    @property
    def url(self) -> str:
        """Address of the application."""
        return f"http://127.0.0.1:{self.port}"


def _add_routes(app: QuartTrio, served: Served) -> None:
    @app.post("/slow")
    async def slow() -> Response:
        served.started.set()
        try:
            await served.finish.wait()
        except trio.Cancelled:
            served.was_cancelled.set()
            raise
        return Response("done")

    @app.post("/stream")
    async def stream() -> Response:
        served.started.set()
        await served.finish.wait()
        total = 0
        async for piece in request.body:
            total += len(piece)
        return Response(str(total))


@asynccontextmanager
async def _serving(graceful_timeout_s: float = 5) -> AsyncIterator[Served]:
    metrics = MetricsRegistry("t", process_metrics=False)
    app = make_app("t", metrics=metrics, ready_checks={})
    served = Served(0, trio.Event(), metrics, trio.Event(), trio.Event(), trio.Event())
    _add_routes(app, served)
    async with trio.open_nursery() as nursery:
        served.port = await nursery.start(
            partial(
                serve,
                app,
                host="127.0.0.1",
                port=0,
                shutdown=served.shutdown,
                graceful_timeout_s=graceful_timeout_s,
            )
        )
        yield served
        served.shutdown.set()


async def test_port_zero_and_keep_alive() -> None:
    """The bound port is told; one connection carries many requests; nothing names the server."""
    async with _serving() as served, httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
        for _ in range(3):
            response = await client.get("/healthz")
            assert response.status_code == 200
        assert "server" not in response.headers


async def test_a_taken_port_is_an_error() -> None:
    """Two services on one port must not both believe that they serve."""
    async with _serving() as served:
        app = make_app("t", metrics=MetricsRegistry("t", process_metrics=False), ready_checks={})
        with pytest.raises(OSError, match="Address already in use"):
            await serve(app, host="127.0.0.1", port=served.port, shutdown=trio.Event())


async def test_requests_in_flight_finish_after_shutdown() -> None:
    """Draining: no new connection, the old request gets its answer, then `serve` returns."""
    answers: list[httpx.Response] = []

    async def ask(url: str) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            answers.append(await client.post(url))

    with trio.fail_after(10):
        async with _serving() as served, trio.open_nursery() as nursery:
            nursery.start_soon(ask, served.url + "/slow")
            await served.started.wait()
            served.shutdown.set()
            await trio.sleep(0.2)
            with pytest.raises(OSError, match="connect"):
                await trio.open_tcp_stream("127.0.0.1", served.port)
            served.finish.set()
    assert [answer.text for answer in answers] == ["done"]


async def test_draining_ends() -> None:
    """A request that does not finish is cut after the graceful time-out; idle ones at once."""
    with trio.fail_after(10):
        async with httpx.AsyncClient(trust_env=False) as idle, _serving(0.3) as served:
            await idle.get(served.url + "/healthz")
            stream = await trio.open_tcp_stream("127.0.0.1", served.port)
            await stream.send_all(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            await served.started.wait()
            started = trio.current_time()
            served.shutdown.set()
        assert trio.current_time() - started < 3
        assert served.was_cancelled.is_set()
        await stream.aclose()


async def test_a_client_that_leaves_cancels_its_request() -> None:
    """The route stops; the request is counted as 499."""
    async with _serving() as served:
        stream = await trio.open_tcp_stream("127.0.0.1", served.port)
        await stream.send_all(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await served.started.wait()
        await stream.aclose()
        with trio.fail_after(5):
            await served.was_cancelled.wait()
        labels = {"route": "/slow", "method": "POST", "status": "499"}
        with trio.fail_after(5):
            while served.metrics.sample("khala_http_requests_total", labels) != 1:  # a counter sets no event
                await trio.sleep(0.01)


async def test_an_unread_body_makes_the_sender_wait() -> None:
    """CARD-03: 32 MiB sent to a route that does not read them do not arrive in our memory."""
    size = 32 * 1024 * 1024
    sent = 0

    async def send(stream: trio.SocketStream) -> None:
        nonlocal sent
        head = f"POST /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
        await stream.send_all(head.encode())
        while sent < size:
            await stream.send_all(bytes(BODY_BUFFER_BYTES))
            sent += BODY_BUFFER_BYTES

    async with _serving() as served, trio.open_nursery() as nursery:
        stream = await trio.open_tcp_stream("127.0.0.1", served.port)
        nursery.start_soon(send, stream)
        await served.started.wait()
        await trio.sleep(0.5)
        # What fits into the kernel's buffers of both ends, hypercorn's queue and our buffer.
        assert sent < size / 2
        served.finish.set()
        answer = b""
        with trio.fail_after(20):
            async for piece in stream:
                answer += piece
        assert answer.endswith(str(size).encode())
        await stream.aclose()


async def test_connection_close_closes() -> None:
    """A client that waits for the end of the connection gets it."""
    async with _serving() as served:
        stream = await trio.open_tcp_stream("127.0.0.1", served.port)
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        with trio.fail_after(5):
            async for piece in stream:
                answer += piece
        assert answer.startswith(b"HTTP/1.1 200")
        await stream.aclose()


@pytest.mark.parametrize("path", ["/nowhere", "/slow"])
async def test_an_answer_before_the_end_of_the_body_ends_the_connection(path: str) -> None:
    """Invariant 2: a sender that is refused, or not read, holds neither route nor connection."""
    async with _serving() as served, trio.open_nursery() as nursery:
        stream = await trio.open_tcp_stream("127.0.0.1", served.port)

        async def flood() -> None:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 30}\r\n\r\n"
            await stream.send_all(head.encode())
            while True:
                await stream.send_all(bytes(BODY_BUFFER_BYTES))

        async def flood_until_refused() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await flood()

        nursery.start_soon(flood_until_refused)
        await trio.sleep(0.3)
        served.finish.set()
        with trio.fail_after(5):
            assert await stream.receive_some(12) in {b"HTTP/1.1 404", b"HTTP/1.1 200"}
    await stream.aclose()


async def test_oversized_headers_are_refused() -> None:
    """Headers are bounded too."""
    async with _serving() as served, httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(served.url + "/healthz", headers={"X-Big": "x" * 200_000})
        assert response.status_code in {400, 431}
