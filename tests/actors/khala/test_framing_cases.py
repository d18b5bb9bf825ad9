"""The node's frame layer, through each WebSocket adapter, against what RFC 6455 lets clients send and forbids them."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from khala.adapters.websocket_adapters import WebSocketAdapter
from tests.actors.khala.framing_cases import CASES, FramingCase
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.client_frames import CLOSE, split_server_bytes, upgrade_request
from tests.echo_node import EchoNode

if TYPE_CHECKING:
    from trio.testing import MockClock

# One read of the server brings at most so many bytes.
OCTETS, ALL_AT_ONCE = 1, 1 << 20
OCTETS_MAX_BYTES = 300


@attrs.define(eq=False)
class ChoppingTransport(SimulatedTransport):
    """Bytes arrive in small pieces."""

    piece_bytes: int = ALL_AT_ONCE

    async def receive_some(self, max_bytes: int) -> bytes:
        """Wait for bytes of the client."""
        return await super().receive_some(min(max_bytes, self.piece_bytes))


@pytest.mark.parametrize("adapter", get_args(WebSocketAdapter))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_every_case(autojump_clock: MockClock, case: FramingCase, adapter: WebSocketAdapter) -> None:
    """Each message comes back as it was, each breach ends with its code; nothing follows a close, nothing crashes."""
    for piece_bytes in (ALL_AT_ONCE, OCTETS):
        if piece_bytes == OCTETS and len(case.sent) > OCTETS_MAX_BYTES:
            continue
        node = EchoNode(adapter)
        transport = ChoppingTransport(piece_bytes=piece_bytes)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.serve, transport)
            transport.feed(upgrade_request())
            await wait_all_tasks_blocked()
            transport.feed(case.sent)
            await wait_all_tasks_blocked()
            assert transport.is_aborted, "the connection goes on"
        _, frames = split_server_bytes(transport.take())
        *echoed, close = frames
        assert tuple(echoed) == case.echoed
        assert (close.opcode, close.close_code) == (CLOSE, case.code)
        assert node.crash_log.crashes == []
