"""The second WebSocket adapter: ``trio_websocket.wrap_server_stream`` over a stream of the node's own.

The library reads and parses in a task of its own, answers pings and the client's close. It is used through
its public API alone; what it does otherwise than the port wants is put right by the stream under it:

    it reads on by itself           the stream gives one frame for each ``receive_message``
    it reports no pings, pongs      the stream sees them pass
    and fragments
    it closes the stream without    the stream says the close: 1002 and 1007 with the library's code,
    a word on broken framing        1009 when a head announces too much
    its ``aclose`` waits            ``close`` says the close itself and lets the library read on
    it refuses to answer pings      it never learns of our close, and what it says after one is dropped
    after its own close
    it loses what was sent          the stream keeps it until the request was accepted
    behind the request
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

import trio
from trio_websocket import ConnectionClosed, wrap_server_stream

from khala.adapters.upgrade_requests import BAD_REQUEST, read_upgrade_request
from khala.adapters.websocket_stream import PeerStream
from khala.ports import PeerClosedError, TransportBrokenError
from khala_service.client_address import TrustedProxies

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_websocket import WebSocketConnection, WebSocketRequest

    from khala.core.origin_policy import UpgradeRequest
    from khala.ports import ByteTransport

__all__ = ["TrioWebSocketPeer"]

NO_PROXIES: Final = TrustedProxies()
_ABNORMAL_CLOSURE: Final = 1006
# Bytes of a Sec-WebSocket-Key, decoded (RFC 6455, 4.2.1).
_KEY_BYTES: Final = 16
_REFUSAL_HEADERS: Final = ((b"Connection", b"close"), (b"Content-Type", b"text/plain; charset=utf-8"))


class TrioWebSocketPeer:
    """The server side of one WebSocket; see WebSocketPeer."""

    def __init__(
        self,
        transport: ByteTransport,
        emit: Callable[[bytes], None],
        start: Callable[[Callable[[], Awaitable[None]]], None],
        *,
        message_max_bytes: int,
        proxies: TrustedProxies = NO_PROXIES,
    ) -> None:
        """Read from ``transport``; put what must be sent into ``emit``; run the library's task by ``start``.

        Args:
            transport: Of the connection.
            emit: Takes bytes for the control lane.
            start: Runs a task that is cancelled when the connection ends.
            message_max_bytes: Of one inbound message.
            proxies: Believed about clients.
        """
        self._transport = transport
        self._emit = emit
        self._start = start
        self._message_max_bytes = message_max_bytes
        self._proxies = proxies
        self._stream = PeerStream(
            transport,
            emit,
            message_max_bytes=message_max_bytes,
            heard_silent=self._end_wait,
            ended=self._note_end,
        )
        self._library_scope = trio.CancelScope()
        # The request is there, or the library will not find one.
        self._is_asked = trio.Event()
        self._request: WebSocketRequest | None = None
        self._connection: WebSocketConnection | None = None
        # Of the receive_message that waits.
        self._wait_scope: trio.CancelScope | None = None

    async def receive_request(self) -> UpgradeRequest:
        """Read the upgrade request; see WebSocketPeer."""
        self._start(self._run_library)
        await self._is_asked.wait()
        request = self._request
        if request is None:
            raise self._ending(_ABNORMAL_CLOSURE)

        return read_upgrade_request(
            request.path,
            request.proposed_subprotocols,
            self._values_of,
            remote_address=self._transport.remote_address,
            proxies=self._proxies,
        )

    async def _run_library(self) -> None:
        """Host the library's reader. Cancellation: safe; the connection is ending."""
        try:
            with self._library_scope:
                async with trio.open_nursery() as tasks:
                    self._request = await wrap_server_stream(
                        tasks,
                        self._stream,
                        message_queue_size=0,
                        max_message_size=self._message_max_bytes,
                    )
                    self._is_asked.set()
        except* UnicodeError:
            # It decodes what clients write into Host, Connection and the like without judging it.
            self._emit(BAD_REQUEST)
        finally:
            self._is_asked.set()

    def _note_end(self) -> None:
        """The stream is over, or the library is done with it."""
        if self._request is None:
            # Nobody else would wake who waits for the request.
            self._library_scope.cancel()

    def _values_of(self, name: str) -> list[str]:
        assert self._request is not None
        wanted = name.lower().encode()
        return [
            value.decode("ascii", "surrogateescape")
            for name_, value in self._request.headers
            if name_.lower() == wanted
        ]

    async def accept(self, subprotocol: str) -> None:
        """Upgrade with this subprotocol, or refuse what is no WebSocket request; see WebSocketPeer."""
        assert self._request is not None
        if not _is_key(self._values_of("Sec-WebSocket-Key")):
            await self.reject(400, "Sec-WebSocket-Key is not 16 bytes in base64")
            return
        if self._values_of("Content-Length") or self._values_of("Transfer-Encoding"):
            await self.reject(400, "an upgrade request has no body")
            return
        self._connection = await self._request.accept(subprotocol=subprotocol)

    async def reject(self, status: int, text: str) -> None:
        """Refuse the upgrade; see WebSocketPeer."""
        assert self._request is not None
        await self._request.reject(status, extra_headers=list(_REFUSAL_HEADERS), body=text.encode() + b"\n")

    async def receive_message(self) -> bytes | str | None:
        """Return the next message; see WebSocketPeer."""
        if self._connection is None:
            raise PeerClosedError(_ABNORMAL_CLOSURE)
        self._stream.want_frame()
        try:
            with trio.CancelScope() as self._wait_scope:
                return await self._connection.get_message()
        except ConnectionClosed as closed:
            code = closed.reason.code if closed.reason is not None else _ABNORMAL_CLOSURE
            # The library closes without a word where the framing broke.
            self._stream.fail(code)
            self._stream.say_last_words()
            raise self._ending(code) from None
        return None

    def _end_wait(self) -> None:
        """A ping, a pong or a fragment was all that came; no message can have been received meanwhile."""
        if self._wait_scope is not None:
            self._wait_scope.cancel()

    def _ending(self, code: int) -> PeerClosedError | TransportBrokenError:
        if self._stream.is_broken:
            return TransportBrokenError()
        return PeerClosedError(self._stream.failed_with or code)

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; see WebSocketPeer."""
        if self._connection is not None:
            self._stream.say_close(code, reason)


def _is_key(values: list[str]) -> bool:
    try:
        return len(values) == 1 and len(base64.b64decode(values[0], validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False
