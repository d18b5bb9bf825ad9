"""The WebSocket of the asyncio front: the only module that knows ``websockets.asyncio``.

Binary messages of subprotocol khala.v1. No token is ever put into the URL. The library answers the
peer's pings and measures nothing by itself: heartbeats are the machine's.
"""

from __future__ import annotations

import logging
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

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
    from websockets.asyncio.client import ClientConnection

__all__ = ["AsyncioSocket", "connect_sync_socket"]

# What the library says of an ending without a close frame.
_ABNORMAL: Final = 1006
_NO_STATUS: Final = 1005
# Messages that wait for our reader; the library stops reading the socket beyond.
_WAITING_MAX: Final = 4
# At DEBUG the library logs what it sends and receives: tokens and payloads. An application that turns on all
# of its logging must not get those, so this one stays above.
_LOGGER: Final = logging.getLogger("khala_client.websocket")
_LOGGER.setLevel(logging.INFO)


class _ConnectDirectly(connect):
    """Goes where it was told to: a token is for that origin, not for where an answer points."""

    def process_redirect(self, exc: Exception) -> Exception:
        """Follow nothing."""
        return exc


class AsyncioSocket:
    """One open WebSocket; see SyncSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def receive(self) -> bytes:
        """See SyncSocket.receive."""
        try:
            # khala.v1 has binary messages only. Decoding refuses a text: none of them is a ServerMessage.
            return await self._connection.recv(decode=False)
        except ConnectionClosed as error:
            raise SocketEnded from error

    async def send(self, data: bytes) -> None:
        """See SyncSocket.send."""
        try:
            await self._connection.send(data)
        except ConnectionClosed as error:
            raise SocketEnded from error

    async def ping(self) -> None:
        """See SyncSocket.ping."""
        try:
            await (await self._connection.ping())
        except ConnectionClosed as error:
            raise SocketEnded from error

    async def close(self, code: int, reason: str) -> None:
        """See SyncSocket.close."""
        try:
            with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._discard)
                    # A close frame carries at most 123 bytes of reason.
                    await self._connection.close(code, reason.encode()[:123].decode(errors="ignore"))
                    tasks.cancel_scope.cancel()
        finally:
            self._connection.transport.abort()
            with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await self._connection.wait_closed()

    async def _discard(self) -> None:
        # The peer's close frame comes after what it has sent before; a full queue would hold it up.
        with suppress(ConnectionClosed):
            while True:
                await self._connection.recv(decode=False)

    @property
    def close_code(self) -> int | None:
        """See SyncSocket.close_code."""
        code = self._connection.close_code
        return None if code in {None, _NO_STATUS, _ABNORMAL} else code


async def connect_sync_socket(url: str, *, ssl_context: ssl.SSLContext | None = None) -> AsyncioSocket:
    """See EventLoop.connect."""
    context = (ssl_context or ssl.create_default_context()) if url.startswith("wss:") else None
    try:
        with anyio.fail_after(CONNECT_TIMEOUT_S):
            connection = await _ConnectDirectly(
                url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                user_agent_header=USER_AGENT,
                proxy=None,
                open_timeout=None,
                ping_interval=None,
                close_timeout=CLOSE_TIMEOUT_S,
                max_size=MESSAGE_MAX_BYTES,
                max_queue=_WAITING_MAX,
                logger=_LOGGER,
                ssl=context,
            )
    except TimeoutError as error:
        raise Unavailable("the node did not answer in time") from error
    except InvalidStatus as error:
        raise upgrade_refused(error.response.status_code, error.response.body) from error
    except (InvalidHandshake, ConnectionClosed, EOFError) as error:
        raise Unavailable("the connection ended before the upgrade to WebSocket") from error
    except OSError as error:
        # ssl.SSLError is an OSError, a certificate that is not trusted is one.
        raise Unavailable(f"{type(error).__name__} while connecting to the node") from error
    return AsyncioSocket(connection)
