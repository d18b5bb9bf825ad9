"""The WebSocket of the trio front: the only module that knows trio-websocket.

Binary messages of subprotocol khala.v1. No token is ever put into the URL. Endings come back as a
close code, None where no close frame arrived; everything else that goes wrong is Unavailable.

The stream below is opened and closed here, not by the library: it leaves TCP open where the peer
was the first to go, and waits for ever for an upgrade whose connection has ended.
"""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from khala_client.errors import KhalaError, Unavailable, error_for
from khala_client.version import USER_AGENT

__all__ = ["CLOSE_TIMEOUT_S", "SUBPROTOCOL", "Pumps", "SyncSocket", "connect_sync_socket", "hold_pumps"]

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


class _WatchedStream(trio.abc.Stream):
    """Passes everything on, and says when the peer's bytes have ended."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.ended = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self.ended.set()
            raise
        if not data:
            self.ended.set()
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


class Pumps:
    """Where the library reads, in a task of its own, and what that task ended with."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.ended = trio.Event()
        self.failure: Exception | None = None

    def stop(self) -> None:
        """End the reading; the socket has been closed."""
        self.nursery.cancel_scope.cancel()


async def hold_pumps(*, task_status: trio.TaskStatus[Pumps]) -> None:
    """Give Pumps that outlive the cancellation of their user, until ``stop``.

    The library reads in them, also the peer's answer to our close frame: were they cancelled
    together with us, every orderly end would wait for its time-out. It raises there what it cannot
    read: a refused upgrade, an answer that is not HTTP. That ends one connection, not its user.
    """
    pumps: Pumps | None = None
    with trio.CancelScope(shield=True):
        try:
            async with trio.open_nursery() as nursery:
                pumps = Pumps(nursery)
                task_status.started(pumps)
                await trio.sleep_forever()
        except* Exception as group:  # noqa: BLE001 - a library's reader; isolates one connection
            assert pumps is not None
            pumps.failure = group.exceptions[0]
        finally:
            if pumps is not None:
                pumps.ended.set()


class SyncSocket:
    """One open WebSocket."""

    def __init__(self, connection: WebSocketConnection, stream: trio.abc.Stream, pumps: Pumps) -> None:
        self._connection = connection
        self._stream = stream
        self._pumps = pumps

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
        # khala.v1 has binary messages only. Decoding refuses a text: none of them is a ServerMessage.
        return message.encode() if isinstance(message, str) else message

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
        """Send a ping and wait for its pong.

        Raises:
            trio.BrokenResourceError: the connection ended before the ping could be sent.

        No deadline: whoever pings is cancelled with the connection.
        """
        try:
            await self._connection.ping()
        except ConnectionClosed as error:
            raise trio.BrokenResourceError from error

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame, wait for the peer's, close TCP.

        Cancellation: TCP is closed all the same. Callers shield it with CLOSE_TIMEOUT_S.
        """
        try:
            if not self._pumps.ended.is_set():
                # A close frame carries at most 123 bytes of reason.
                await self._connection.aclose(code, reason.encode()[:123].decode(errors="ignore"))
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await trio.aclose_forcefully(self._stream)

    @property
    def close_code(self) -> int | None:
        """Code of the close frame; None while open, and if there was none."""
        closed = self._connection.closed
        if closed is None or closed.code in {_NO_STATUS, _ABNORMAL}:
            return None
        return int(closed.code)


async def connect_sync_socket(
    pumps: Pumps, url: str, *, ssl_context: ssl.SSLContext | None = None
) -> SyncSocket:
    """Connect to a node; the caller closes the socket.

    Raises:
        Unavailable: no node there, or it did not answer in CONNECT_TIMEOUT_S.
        KhalaError: the upgrade was refused for good (an Origin that is not allowed, another path).

    Cancellation: the TCP connection is dropped.
    """
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            stream = _WatchedStream(await _open_stream(url, ssl_context))
            try:
                return SyncSocket(await _upgrade(pumps, stream, url), stream, pumps)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
    except trio.TooSlowError as error:
        raise Unavailable("the node did not answer in time") from error
    except (OSError, trio.BrokenResourceError) as error:
        # ssl.SSLError is an OSError, a certificate that is not trusted is one.
        raise Unavailable(f"{type(error).__name__} while connecting to the node") from error


async def _open_stream(url: str, ssl_context: ssl.SSLContext | None) -> trio.abc.Stream:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "ws":
        return await trio.open_tcp_stream(host, parts.port or 80)
    context = ssl_context or ssl.create_default_context()
    stream = await trio.open_ssl_over_tcp_stream(
        host, parts.port or 443, ssl_context=context, https_compatible=True
    )
    try:
        # Now, so that a certificate that is not trusted is a failure to connect.
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _upgrade(pumps: Pumps, stream: _WatchedStream, url: str) -> WebSocketConnection:
    parts = urlsplit(url)
    connection: WebSocketConnection | None = None
    async with trio.open_nursery() as waiting:

        async def give_up_at(end: trio.Event) -> None:
            await end.wait()
            waiting.cancel_scope.cancel()

        waiting.start_soon(give_up_at, stream.ended)
        waiting.start_soon(give_up_at, pumps.ended)
        connection = await wrap_client_stream(
            pumps.nursery,
            stream,  # type: ignore[arg-type]  # "an arbitrary stream", says its text
            parts.netloc,
            parts.path,
            subprotocols=[SUBPROTOCOL],
            extra_headers=[(b"User-Agent", USER_AGENT.encode())],
            message_queue_size=4,
            max_message_size=MESSAGE_MAX_BYTES,
            receive_buffer_size=RECEIVE_BYTES,
        )
        waiting.cancel_scope.cancel()
    if connection is None:
        # The bytes ended; what the reader makes of the last of them decides.
        with trio.move_on_after(0.1):
            await pumps.ended.wait()
        if isinstance(pumps.failure, ConnectionRejected):
            raise _upgrade_refused(pumps.failure.status_code)
        raise Unavailable("the connection ended before the upgrade to WebSocket")
    return connection


def _upgrade_refused(status: int) -> KhalaError:
    details = {"status": str(status)}
    if status == 403:
        return error_for("origin_forbidden", details=details)
    if status == 404:
        return error_for("not_found", "no sync endpoint at this URL", details=details)
    return Unavailable("the upgrade to WebSocket was refused", details=details)
