"""Receives request bodies no faster than routes read them, and ends connections cleanly.

Replaces quart-trio's connection class, whose body buffer grows as fast as the sender sends.
Invariants:
1. At most BODY_BUFFER_BYTES of a body (and the server's own queue of ten pieces) are in memory,
   however large it is and whether or not the route reads it.
2. Once the last part of the response is on its way, the rest of the body is thrown away: the server
   must be able to tell us that the stream has ended.
3. The end of the stream does not cancel the response that caused it.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, TypeAlias

import trio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers.request import TrioBody, TrioRequest

# ASGI scopes and events are dictionaries by specification; libraries type them each in their own way.
Scope: TypeAlias = Any
Event: TypeAlias = Any
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]

# More than one TCP window of a fast sender; small enough for thousands of requests at once.
BODY_BUFFER_BYTES: Final = 256 * 1024


class BoundedBody(TrioBody):
    """A request body that makes the sender wait while nobody reads."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, max_content_length)
        self._room = trio.Event()
        self.is_discarded = False

    def append(self, data: bytes) -> None:
        """Add what has arrived."""
        if not self.is_discarded:
            super().append(data)

    def discard_rest(self) -> None:
        """Throw away what is unread and what is still to come."""
        self.is_discarded = True
        self.clear()
        self._room.set()

    async def wait_room(self) -> None:
        """Block until fewer than BODY_BUFFER_BYTES are unread.

        No time-out: the request's own nursery ends it when the route returns.
        """
        while len(self._data) >= BODY_BUFFER_BYTES:
            await self._room.wait()

    async def __anext__(self) -> bytes:
        data = await super().__anext__()
        self._room.set()
        self._room = trio.Event()
        return data

    def __await__(self) -> Generator[Any, None, Any]:
        # Waiting for the end without taking would wait for ever once the buffer is full.
        raise RuntimeError("read a body with read_body(), read_bytes() or `async for`")


class BoundedRequest(TrioRequest):
    """The request class of our applications."""

    body_class = BoundedBody


class BoundedConnection(TrioASGIHTTPConnection):
    """One HTTP request on its connection."""

    async def __call__(self, receive: Receive, send: Send) -> None:
        """Serve the request. Cancellation: ends the route; whatever it awaits is cancelled."""
        request = self._create_request_from_scope(send)
        body = request.body
        assert isinstance(body, BoundedBody)
        answered = trio.Event()

        async def send_response(event: Event) -> None:
            is_last = event["type"] == "http.response.body" and not event.get("more_body", False)
            if is_last:
                body.discard_rest()
            await send(event)
            if is_last:
                answered.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_receive_body, nursery, body, receive, answered)
            nursery.start_soon(self.handle_request, nursery, request, send_response)


async def _receive_body(
    nursery: trio.Nursery, body: BoundedBody, receive: Receive, answered: trio.Event
) -> None:
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            break
        body.append(event.get("body", b""))
        if not event.get("more_body", False):
            body.set_complete()
        await body.wait_room()
    if body.is_discarded:
        # Race: the disconnect is the server's own, told to us from inside our last send.
        #   route:    send(last part) ............................ close the socket
        #   receiver:                     disconnect -> cancel the route
        # Without this wait the cancellation hits the close: the client never sees the end.
        await answered.wait()
    nursery.cancel_scope.cancel()
