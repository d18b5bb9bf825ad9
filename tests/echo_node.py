"""The node's frame layer with an echo behind it: what exists in tests only, to judge framing by itself.

Handshake, WebSocket adapter, control lane, writer and socket are the node's; instead of speaking Khala's
protocol a connection sends each message back as it came.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from khala.actors.connection import Connection
from khala.actors.supervision import Supervisor
from khala.adapters.sockets import open_acceptor
from khala.adapters.websocket_adapters import make_peer
from khala.core.counters import NodeCounters
from khala.core.in_flight import InFlight
from khala.core.limits import NodeLimits
from khala.core.origin_policy import ExactOrigins
from khala.core.websocket_frames import frame_message
from tests.actors.khala.node_under_test import CrashLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from khala.adapters.websocket_adapters import WebSocketAdapter
    from khala.core.protocol import Command
    from khala.ports import ByteTransport, WebSocketPeer


class _NoCommands:
    async def run(self, connection: Connection, command: Command) -> None:
        raise AssertionError(f"{connection.connection_id} runs {command}")


class EchoConnection(Connection):
    """Sends back what it receives, and stops reading while that is not taken."""

    async def _read(self, peer: WebSocketPeer) -> None:
        while True:
            message = await peer.receive_message()
            if message is not None:
                is_text = isinstance(message, str)
                body = message.encode() if isinstance(message, str) else message
                self.outbound.push_last(frame_message(body, is_text=is_text))
                self.outbound.ensure_sending()
            if not self._has_reading_room():
                await self._hold_reading()


@attrs.define(eq=False)
class EchoNode:
    """Serves connections through one adapter; what crashes fails the test that looks at ``crash_log``."""

    adapter: WebSocketAdapter
    limits: NodeLimits = attrs.field(factory=NodeLimits)
    counters: NodeCounters = attrs.field(factory=NodeCounters)
    crash_log: CrashLog = attrs.field(factory=CrashLog)

    async def serve(self, transport: ByteTransport) -> None:
        """Serve one client to its end."""
        connection = EchoConnection(
            "con_echo",
            transport=transport,
            limits=self.limits,
            counters=self.counters,
            commands=_NoCommands(),
            origin_policy=ExactOrigins(frozenset()),
            supervisor=Supervisor(self.counters, self.crash_log),
            in_flight=InFlight(self.limits),
        )
        peer = make_peer(
            self.adapter, transport, connection, message_max_bytes=self.limits.inbound_message_max_bytes
        )
        await connection.serve(peer)


@asynccontextmanager
async def open_echo_node(node: EchoNode, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Serve real sockets; yields the port."""
    acceptor = open_acceptor(host, port, send_buffer_bytes=node.limits.send_buffer_bytes)

    async def accept() -> None:
        async with trio.open_nursery() as connections:
            while True:
                connections.start_soon(node.serve, await acceptor.accept())

    try:
        async with trio.open_nursery() as serving:
            serving.start_soon(accept)
            yield acceptor.port
            serving.cancel_scope.cancel()
    finally:
        acceptor.close()
