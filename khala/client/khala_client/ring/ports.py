"""What the ring needs of an event loop beyond anyio. Implemented by the trio and the asyncio front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskGroup

__all__ = [
    "CLOSE_TIMEOUT_S",
    "CONNECT_TIMEOUT_S",
    "MESSAGE_MAX_BYTES",
    "SUBPROTOCOL",
    "EventLoop",
    "SocketEnded",
    "SyncSocket",
]

SUBPROTOCOL: Final = "khala.v1"
# Name resolution, TCP, TLS and upgrade together. Longer: a dead address is tried for long before
# the backoff takes over. Shorter: a slow mobile path never connects.
CONNECT_TIMEOUT_S: Final = 10.0
# Our close frame and the peer's; a peer that does not answer loses nothing by being cut.
CLOSE_TIMEOUT_S: Final = 1.0
# The node's hard cap of a chunk is 320 KiB, or one frame; more is not from a node.
MESSAGE_MAX_BYTES: Final = 1024 * 1024


class SocketEnded(Exception):
    """The connection is over; ``close_code`` of the socket says how."""


class SyncSocket(Protocol):
    """One open WebSocket to a node, with binary messages of subprotocol khala.v1."""

    @property
    def close_code(self) -> int | None:
        """Code of the peer's close frame; None while open, and if there was none."""
        ...

    async def receive(self) -> bytes:
        """Return the next message.

        Raises:
            SocketEnded: there is no more.
        Cancellation: safe; no message is lost.
        """
        ...

    async def send(self, data: bytes) -> None:
        """Send one message. Raises SocketEnded."""
        ...

    async def ping(self) -> None:
        """Send a ping and wait for its pong. Raises SocketEnded if there is nobody to send it to.

        No deadline: whoever pings is cancelled with the connection.
        """
        ...

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame, wait CLOSE_TIMEOUT_S at most for the peer's, close TCP; nothing is left open.

        Cancellation: TCP is closed all the same.
        """
        ...


class EventLoop(Protocol):
    """Where trio and asyncio differ."""

    def hold_tasks(self) -> AbstractAsyncContextManager[TaskGroup]:
        """Give a group for the client's tasks; leaving the block cancels them and waits for their end.

        The block's own exception comes out as itself, not in a group.
        """
        ...

    async def finish(self, call: Callable[[], Awaitable[None]], *, within_s: float) -> None:
        """Await ``call`` to its end although the caller is being cancelled; give up after ``within_s``.

        The cancellation is raised afterwards.
        """
        ...

    async def connect(self, tasks: TaskGroup, url: str, *, ssl_context: ssl.SSLContext | None) -> SyncSocket:
        """Connect to a node; the caller closes the socket before ``tasks`` end.

        Args:
            tasks: Where the WebSocket library may keep a reader.
            url: ws(s) URL with its path.
            ssl_context: None takes the system's authorities.

        Raises:
            Unavailable: no node there, or it did not answer in CONNECT_TIMEOUT_S.
            KhalaError: the upgrade was refused for good (an Origin that is not allowed, another path).
        Cancellation: the TCP connection is dropped.
        """
        ...
