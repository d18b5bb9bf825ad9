"""The WebSocket of the trio front: the only module that knows trio-websocket.

Binary messages of subprotocol khala.v1. No token is ever put into the URL. Endings come back as a
close code, None where no close frame arrived; everything else that goes wrong is Unavailable.
"""

from __future__ import annotations

import ssl
from typing import Final

import trio
import trio_websocket
from trio_websocket import ConnectionClosed, HandshakeError

from khala_client.errors import KhalaError, Unavailable, error_for
from khala_client.version import USER_AGENT

__all__ = ["SUBPROTOCOL", "SyncSocket", "connect_sync_socket"]

SUBPROTOCOL: Final = "khala.v1"
# Name resolution, TCP, TLS and upgrade together. Longer: a dead address is tried for long before
# the backoff takes over. Shorter: a slow mobile path never connects.
CONNECT_TIMEOUT_S: Final = 10.0
# Our close frame and the peer's; a peer that does not answer loses nothing by being cut.
CLOSE_TIMEOUT_S: Final = 1.0
# The node's hard cap of a chunk is 320 KiB, or one frame; more is not from a node.
MESSAGE_MAX_BYTES: Final = 1024 * 1024
# One read of the socket; the library's 4 KiB costs sixteen reads for one chunk of frames.
RECEIVE_BYTES: Final = 64 * 1024
_NO_STATUS: Final = 1005
_ABNORMAL: Final = 1006


class SyncSocket:
    """One open WebSocket."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self._connection = connection

    async def receive(self) -> bytes:
        """Return the next binary message.

        Raises:
            trio.EndOfChannel: the connection ended; ``close_code`` says how.

        Cancellation: safe; no message is lost.
        """
        try:
            message = await self._connection.get_message()
        except ConnectionClosed as error:
            raise trio.EndOfChannel from error
        if isinstance(message, str):
            # khala.v1 has binary messages only. Decoding refuses it: no text is a ServerMessage.
            return message.encode()
        return message

    async def send(self, data: bytes) -> None:
        """Send one binary message.

        Raises:
            trio.BrokenResourceError: the connection ended.
        """
        try:
            await self._connection.send_message(data)
        except ConnectionClosed as error:
            raise trio.BrokenResourceError from error

    async def ping(self) -> None:
        """Send a ping and wait for its pong; BrokenResourceError if the connection ends first."""
        try:
            await self._connection.ping()
        except ConnectionClosed as error:
            raise trio.BrokenResourceError from error

    async def close(self, code: int, reason: str) -> None:
        """Close, waiting CLOSE_TIMEOUT_S at most for the peer. Runs also under cancellation."""
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            # A close frame carries at most 123 bytes of reason.
            await self._connection.aclose(code, reason.encode()[:123].decode(errors="ignore"))

    @property
    def close_code(self) -> int | None:
        """Code of the close frame; None while open, and if there was none."""
        closed = self._connection.closed
        if closed is None or closed.code in {_NO_STATUS, _ABNORMAL}:
            return None
        return int(closed.code)


async def connect_sync_socket(
    pumps: trio.Nursery, url: str, *, ssl_context: ssl.SSLContext | None = None
) -> SyncSocket:
    """Connect to a node; the caller closes the socket before it leaves ``pumps``.

    Raises:
        Unavailable: no node there, or it did not answer in CONNECT_TIMEOUT_S.
        KhalaError: the upgrade was refused for good (an Origin that is not allowed, another path).

    Cancellation: the TCP connection is dropped.
    """
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            connection = await trio_websocket.connect_websocket_url(
                pumps,
                url,
                ssl_context,
                subprotocols=[SUBPROTOCOL],
                extra_headers=[(b"User-Agent", USER_AGENT.encode())],
                message_queue_size=4,
                max_message_size=MESSAGE_MAX_BYTES,
                receive_buffer_size=RECEIVE_BYTES,
            )
    except trio.TooSlowError as error:
        raise Unavailable("the node did not answer in time") from error
    except HandshakeError as error:
        raise _upgrade_refused(error) from error
    except (OSError, trio.BrokenResourceError, ssl.SSLError) as error:
        raise Unavailable(f"{type(error).__name__} while connecting to the node") from error
    return SyncSocket(connection)


def _upgrade_refused(error: HandshakeError) -> KhalaError:
    status = getattr(error, "status_code", None)
    details = {"status": str(status)} if status is not None else {}
    if status == 403:
        return error_for("origin_forbidden", details=details)
    if status == 404:
        return error_for("not_found", "no sync endpoint at this URL", details=details)
    return Unavailable("the upgrade to WebSocket was refused", details=details)
