"""The WebSocket of the trio front: the only module that knows trio-websocket.

Binary messages of subprotocol khala.v1. No token is ever put into the URL.

The stream below is opened and closed here, not by the library: it leaves TCP open where the peer
was the first to go, and waits for ever for an upgrade whose connection has ended.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from khala_client.errors import Unavailable
from khala_client.ring.ports import (
    CLOSE_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    MESSAGE_MAX_BYTES,
    SUBPROTOCOL,
    SocketEnded,
)
from khala_client.ring.upgrades import upgrade_refused
from khala_client.version import USER_AGENT

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["StreamOpener", "TrioSocket", "connect_sync_socket", "open_stream"]

# Opens the byte stream to a URL; raises OSError.
StreamOpener = Callable[[str, "ssl.SSLContext | None"], Awaitable[trio.abc.Stream]]

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


class _Pumps:
    """Where the library reads, in a task of its own that outlives the cancellation of its user.

    It reads also the peer's answer to our close frame: were it cancelled together with us, every orderly
    end would wait for its time-out. It raises there what it cannot read: a refused upgrade, an answer that
    is not HTTP. That ends one connection, not its user.
    """

    nursery: trio.Nursery

    def __init__(self) -> None:
        self._shield = trio.CancelScope(shield=True)
        self.opened = trio.Event()
        self.ended = trio.Event()
        self.failure: Exception | None = None

    async def run(self) -> None:
        """Hold the nursery until ``stop``."""
        try:
            with self._shield:
                async with trio.open_nursery() as self.nursery:
                    self.opened.set()
                    await trio.sleep_forever()
        except* Exception as group:  # noqa: BLE001 - a library's reader; isolates one connection
            self.failure = group.exceptions[0]
        finally:
            self.ended.set()

    def stop(self) -> None:
        """End the reading; the socket has been closed."""
        self._shield.cancel()


class TrioSocket:
    """One open WebSocket; see SyncSocket."""

    def __init__(self, connection: WebSocketConnection, stream: trio.abc.Stream, pumps: _Pumps) -> None:
        self._connection = connection
        self._stream = stream
        self._pumps = pumps

    async def receive(self) -> bytes:
        """See SyncSocket.receive."""
        try:
            message = await self._connection.get_message()
        except ConnectionClosed as error:
            raise SocketEnded from error
        # khala.v1 has binary messages only. Decoding refuses a text: none of them is a ServerMessage.
        return message.encode() if isinstance(message, str) else message

    async def send(self, data: bytes) -> None:
        """See SyncSocket.send."""
        try:
            await self._connection.send_message(data)
        except ConnectionClosed as error:
            raise SocketEnded from error

    async def ping(self) -> None:
        """See SyncSocket.ping."""
        try:
            await self._connection.ping()
        except ConnectionClosed as error:
            raise SocketEnded from error

    async def close(self, code: int, reason: str) -> None:
        """See SyncSocket.close."""
        try:
            if not self._pumps.ended.is_set():
                with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                    # A close frame carries at most 123 bytes of reason.
                    await self._connection.aclose(code, reason.encode()[:123].decode(errors="ignore"))
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await trio.aclose_forcefully(self._stream)
            self._pumps.stop()

    @property
    def close_code(self) -> int | None:
        """See SyncSocket.close_code."""
        closed = self._connection.closed
        if closed is None or closed.code in {_NO_STATUS, _ABNORMAL}:
            return None
        return int(closed.code)


async def open_stream(url: str, ssl_context: ssl.SSLContext | None) -> trio.abc.Stream:
    """Open the stream below a WebSocket: TCP, and TLS for ``wss``.

    Raises:
        OSError: no answer, or a certificate that is not trusted.
    """
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


async def connect_sync_socket(
    tasks: TaskGroup,
    url: str,
    *,
    ssl_context: ssl.SSLContext | None = None,
    opener: StreamOpener = open_stream,
) -> TrioSocket:
    """See EventLoop.connect; ``opener`` opens the stream below."""
    pumps = _Pumps()
    # Not ``tasks.start``: cancelled in there, it would wait for what is shielded.
    tasks.start_soon(pumps.run)
    try:
        await pumps.opened.wait()
        return await _connect(pumps, url, ssl_context, opener)
    except BaseException:
        pumps.stop()
        raise


async def _connect(
    pumps: _Pumps, url: str, ssl_context: ssl.SSLContext | None, opener: StreamOpener
) -> TrioSocket:
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            stream = _WatchedStream(await opener(url, ssl_context))
            try:
                return TrioSocket(await _upgrade(pumps, stream, url), stream, pumps)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
    except trio.TooSlowError as error:
        raise Unavailable("the node did not answer in time") from error
    except (OSError, trio.BrokenResourceError) as error:
        # ssl.SSLError is an OSError, a certificate that is not trusted is one.
        raise Unavailable(f"{type(error).__name__} while connecting to the node") from error


async def _upgrade(pumps: _Pumps, stream: _WatchedStream, url: str) -> WebSocketConnection:
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
            raise upgrade_refused(pumps.failure.status_code, pumps.failure.body)
        raise Unavailable("the connection ended before the upgrade to WebSocket")
    return connection
