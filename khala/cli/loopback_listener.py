"""The port to which a browser brings the code of a sign-in (RFC 8252): one page, a minute or two of life.

Bound to 127.0.0.1 on a port that the kernel chooses. Whoever else connects there (another program, a page that
guesses) gets an answer and changes nothing: what it brings is refused by control, and the wait goes on.
"""

from __future__ import annotations

import html
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

import h11
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ["CALLBACK_PATH", "HOST", "open_loopback_listener"]

HOST: Final = "127.0.0.1"
CALLBACK_PATH: Final = "/callback"
# A browser sends its request at once. Longer: whoever connects and says nothing holds a task.
REQUEST_TIMEOUT_S: Final = 10.0
REQUEST_MAX_BYTES: Final = 16 * 1024
CONNECTIONS_MAX: Final = 16
_PAGE: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Khala</title>
<meta name="viewport" content="width=device-width, initial-scale=1"></head>
<body style="font: 1.1rem system-ui; margin: 4rem auto; max-width: 32rem"><p>{text}</p></body></html>"""


@asynccontextmanager
async def open_loopback_listener(answer: Callable[[str], Awaitable[str | None]]) -> AsyncIterator[int]:
    """Listen inside the block; yields the port.

    Args:
        answer: Called with each code that is brought; returns what the browser then shows, None if the code
            was not the right one.
    """
    listeners = await trio.open_tcp_listeners(0, host=HOST)
    port: int = listeners[0].socket.getsockname()[1]
    limiter = trio.CapacityLimiter(CONNECTIONS_MAX)

    async def serve(stream: trio.SocketStream) -> None:
        async with limiter:
            with trio.move_on_after(REQUEST_TIMEOUT_S) as reading:
                code = await _read_code(stream)
            if reading.cancelled_caught:
                return
            text = await answer(code) if code else None
            with trio.move_on_after(REQUEST_TIMEOUT_S):
                await _send_page(stream, text)

    async def serve_one(stream: trio.SocketStream) -> None:
        # It left, or it does not speak HTTP: nothing of ours.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
            await serve(stream)

    async with trio.open_nursery() as serving:
        await serving.start(trio.serve_listeners, serve_one, listeners)
        yield port
        serving.cancel_scope.cancel()


async def _read_code(stream: trio.SocketStream) -> str:
    """Return the code that a request brings, empty if it brings none."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_MAX_BYTES)
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await stream.receive_some(REQUEST_MAX_BYTES)
            connection.receive_data(data)
            if not data:
                return ""
        elif isinstance(event, h11.Request):
            parts = urlsplit(event.target.decode("ascii", errors="replace"))
            codes = parse_qs(parts.query).get("code", [])
            is_ours = event.method == b"GET" and parts.path == CALLBACK_PATH and len(codes) == 1
            return codes[0] if is_ours else ""
        else:
            return ""


async def _send_page(stream: trio.SocketStream, text: str | None) -> None:
    said = text or "This is not the sign-in that the command waits for."
    body = _PAGE.format(text=html.escape(said)).encode()
    head = (
        f"HTTP/1.1 {'200 OK' if text else '404 Not Found'}\r\n"
        "Content-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n"
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n"
        "Connection: close\r\n\r\n"
    )
    await stream.send_all(head.encode("ascii") + body)
