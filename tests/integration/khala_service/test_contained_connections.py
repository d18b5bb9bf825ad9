"""What one HTTP client does wrong ends its connection, never the server: at the socket, byte by byte."""

from __future__ import annotations

import base64
import json
import socket
import struct
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from khala_contracts import http_messages as m
from khala_contracts import reason_codes
from khala_service.http_edge import HttpProblem, make_app, read_body, respond, serve
from khala_service.metrics import MetricsRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from quart import Response

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, DATA, HEADERS, GO_AWAY = 4, 0, 1, 7
END_HEADERS, END_STREAM = 4, 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def post_headers(path: bytes) -> bytes:
    """Return the header block of a POST: literals without an index, no Huffman."""
    pairs = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x")]
    return b"".join(b"\x00" + bytes([len(n)]) + n + bytes([len(v)]) + v for n, v in pairs)


HTTP2_START = PREFACE + frame(SETTINGS, 0, 0)
HOSTILE = {
    "nothing but NUL": bytes(4_096),
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00",
    "no such version": b"GET / HTTP/9.9\r\n\r\n",
    "negative length": b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "broken chunk": b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "endless header": b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000,
    "preface and noise": PREFACE + b"\xff" * 64,
    "first frame on no stream": HTTP2_START + frame(HEADERS, END_HEADERS, 0, post_headers(b"/")),
    "broken header block": HTTP2_START + frame(HEADERS, END_HEADERS, 1, b"\xff" * 16),
    "no path": HTTP2_START + frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x00\x01a\x01b"),
    "data before headers": HTTP2_START + frame(DATA, 0, 1, b"x"),
    "endless frame": HTTP2_START + struct.pack(">I", 2**24 - 1)[1:] + b"\x00\x00\x00\x00\x00\x01",
    "upgrade with noise for settings": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: !!!\r\n\r\n"
    ),
    "upgrade with impossible settings": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: " + base64.urlsafe_b64encode(b"\x00\x02" + b"\xff" * 4) + b"\r\n\r\n"
    ),
    "upgrade to WebSocket": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n\r\n\xff\xff\xff\xff"
    ),
}


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    """A server with a route that reads its body and one that refuses before; yields its port."""
    app = make_app("t", metrics=MetricsRegistry("t", process_metrics=False), ready_checks={})

    @app.post("/refuse")
    async def refuse() -> Response:
        raise HttpProblem(reason_codes.UNAUTHENTICATED)

    @app.post("/read")
    async def read() -> Response:
        return respond(await read_body(m.LogoutRequest))

    async with trio.open_nursery() as nursery:
        bound = partial(serve, app, host="127.0.0.1", port=0, shutdown=trio.Event())
        yield await nursery.start(bound)
        nursery.cancel_scope.cancel()


async def check_alive(port: int) -> None:
    """The server answers, in both versions of HTTP."""
    for is_http2 in (False, True):
        async with httpx.AsyncClient(http1=not is_http2, http2=is_http2, trust_env=False, timeout=5) as http:
            assert (await http.get(f"http://127.0.0.1:{port}/healthz")).json() == {"status": "ok"}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_bytes_end_their_connection_only(name: str) -> None:
    """Whatever comes in: others are served, before, meanwhile and after."""
    async with serving() as port:
        await check_alive(port)
        for is_reset in (False, True):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                try:
                    await stream.send_all(HOSTILE[name])
                    with trio.move_on_after(0.2):
                        while await stream.receive_some():
                            pass
                except trio.BrokenResourceError:
                    pass  # the server was quicker to hang up
                if is_reset:
                    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await check_alive(port)


async def test_a_body_that_comes_after_its_answer_is_dropped() -> None:
    """HTTP/2: refused before the body, which the client goes on to send; the connection serves on."""
    async with serving() as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(HTTP2_START + frame(HEADERS, END_HEADERS, 1, post_headers(b"/refuse")))
        received = await read_until(stream, b"unauthenticated")
        body = frame(DATA, 0, 1, b"x" * 10_000) * 3 + frame(DATA, END_STREAM, 1, b"x")
        next_request = frame(HEADERS, END_HEADERS | END_STREAM, 3, post_headers(b"/read"))
        await stream.send_all(body + next_request)
        received += await read_until(stream, b"{}")
        assert not any(kind == GO_AWAY for kind in frame_kinds(received))
        await check_alive(port)


async def test_who_has_left_is_forgotten() -> None:
    """Clients that close between two requests, or before the first, leave no task until the keep-alive time-out."""
    async with serving() as port:
        await check_alive(port)
        tasks = trio.lowlevel.current_statistics().tasks_living
        for request in (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"", HTTP2_START):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(request)
                if request:
                    assert await stream.receive_some()
        with trio.fail_after(5):
            while trio.lowlevel.current_statistics().tasks_living > tasks:
                await trio.sleep(0.01)


async def read_until(stream: trio.SocketStream, words: bytes) -> bytes:
    """Read until these bytes came."""
    received = b""
    with trio.fail_after(5):
        while words not in received:
            piece = bytes(await stream.receive_some())
            assert piece, received
            received += piece
    return received


def frame_kinds(data: bytes) -> list[int]:
    """Return the types of HTTP/2 frames."""
    kinds = []
    while len(data) >= 9:
        kinds.append(data[3])
        data = data[9 + int.from_bytes(data[:3], "big") :]
    return kinds


async def test_many_refused_bodies_on_one_connection() -> None:
    """A hundred requests that are refused before their bodies arrive are a hundred answers."""
    async with (
        serving() as port,
        httpx.AsyncClient(http1=False, http2=True, trust_env=False, timeout=10) as http,
        trio.open_nursery() as nursery,
    ):
        statuses: list[int] = []

        async def post() -> None:
            answer = await http.post(f"http://127.0.0.1:{port}/refuse", content=b"x" * 1_000)
            assert json.loads(answer.content)["code"] == "unauthenticated"
            statuses.append(answer.status_code)

        for _ in range(100):
            nursery.start_soon(post)
    assert statuses == [401] * 100
