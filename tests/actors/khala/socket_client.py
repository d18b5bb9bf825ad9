"""A client whose every word is a byte on the simulated socket, before a real WebSocket adapter.

client = open_socket_client(node, adapter)
client.say(...)             a masked frame, like the helpers of ClientUnderTest
client.send(...)            any bytes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs

from khala.actors.connection import Connection
from khala.adapters.websocket_adapters import make_peer
from khala.core.origin_policy import ExactOrigins
from khala_contracts import codec
from tests.actors.khala.node_under_test import ClientUnderTest, hello_with
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.actors.khala.wire_transcript import WireTranscript
from tests.client_frames import BINARY, TEXT, client_frame, upgrade_request

if TYPE_CHECKING:
    from khala.adapters.websocket_adapters import WebSocketAdapter
    from khala_contracts.codec import ClientMessage
    from khala_contracts.topics import ParsedTopic
    from tests.actors.khala.node_under_test import NodeUnderTest
    from tests.actors.khala.scripted_peer import ScriptedPeer


@attrs.define(eq=False)
class SocketClient(ClientUnderTest):
    """Speaks WebSocket itself; ``peer`` is the node's, and nobody else's business."""

    # Everything that was read, in bytes.
    wire: bytearray = attrs.field(factory=bytearray)

    def say(self, message: ClientMessage) -> None:
        """Send one message in this client's subprotocol."""
        if self.transcript.is_text:
            self.send(client_frame(TEXT, codec.encode_client_message_json(message).encode()))
        else:
            self.send(client_frame(BINARY, codec.encode_client_message(message)))

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.transport.feed(data)

    def read(self, max_bytes: int | None = None) -> list[object]:
        """Take bytes from the socket; return the messages that they complete."""
        taken = self.transport.take(max_bytes)
        self.wire += taken
        messages: list[object] = list(self.transcript.feed(taken))
        self.received += messages
        return messages


def open_socket_client(
    node: NodeUnderTest,
    adapter: WebSocketAdapter,
    *,
    transport: SimulatedTransport | None = None,
    is_text: bool = False,
    request: bytes | None = None,
) -> SocketClient:
    """Connect and ask for the upgrade, with other bytes if ``request`` says so."""
    transport = transport or SimulatedTransport()
    connection = Connection(
        node.ids.new("con"),
        transport=transport,
        limits=node.limits,
        counters=node.counters,
        commands=node.commands,
        origin_policy=ExactOrigins(frozenset()),
        supervisor=node.supervisor,
        in_flight=node.in_flight,
        audit=node.audit,
    )
    peer = make_peer(adapter, transport, connection, message_max_bytes=node.limits.inbound_message_max_bytes)
    client = SocketClient(connection, transport, cast("ScriptedPeer", peer), WireTranscript(is_text=is_text))
    node.connections.add(connection)

    async def serve() -> None:
        try:
            await connection.serve(peer)
        finally:
            client.is_served = False
            node.connections.discard(connection)

    node.nursery.start_soon(serve)
    subprotocol = "khala.v1.json" if is_text else "khala.v1"
    client.send(upgrade_request(subprotocol=subprotocol) if request is None else request)
    return client


async def follow_by_socket(
    node: NodeUnderTest,
    adapter: WebSocketAdapter,
    *topics: ParsedTopic,
    transport: SimulatedTransport | None = None,
    is_text: bool = False,
) -> SocketClient:
    """Connect, say hello with a token for these topics, and subscribe to them, if there are any."""
    client = open_socket_client(node, adapter, transport=transport, is_text=is_text)
    client.say(hello_with(node.grant(*topics)))
    if topics:
        client.subscribe(*topics)
    await node.settle()
    return client
