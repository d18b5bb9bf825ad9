"""Which library speaks WebSocket for a node: chosen by configuration, one port for the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from khala.adapters.websocket_sansio import NO_PROXIES, SansIoPeer
from khala.adapters.websocket_trio import TrioWebSocketPeer

if TYPE_CHECKING:
    from khala.actors.connection import Connection
    from khala.ports import ByteTransport, WebSocketPeer
    from khala_service.client_address import TrustedProxies

__all__ = ["DESCRIPTION", "WebSocketAdapter", "make_peer"]

WebSocketAdapter = Literal["websockets", "trio_websocket"]
DESCRIPTION: Final = "Library behind the WebSocket port: websockets, or trio_websocket, which takes more memory per connection."


def make_peer(
    adapter: WebSocketAdapter,
    transport: ByteTransport,
    connection: Connection,
    *,
    message_max_bytes: int,
    proxies: TrustedProxies = NO_PROXIES,
) -> WebSocketPeer:
    """Return the server side of one connection's WebSocket; see WebSocketPeer."""
    if adapter == "trio_websocket":
        return TrioWebSocketPeer(
            transport,
            connection.emit,
            connection.start,
            message_max_bytes=message_max_bytes,
            proxies=proxies,
        )
    return SansIoPeer(transport, connection.emit, message_max_bytes=message_max_bytes, proxies=proxies)
