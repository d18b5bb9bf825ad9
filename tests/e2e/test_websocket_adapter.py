"""The second WebSocket adapter, chosen by configuration: a whole system as a user starts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.e2e.history import begin_history
from tests.e2e.system import System, running_system
from tests.e2e.wire import (
    BEGINNING,
    BINARY,
    TEXT,
    open_api,
    open_welcomed,
    open_wire,
    read_through,
    subscribe,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


async def _does_date_its_answer(system: System) -> bool:
    """Return whether the node's answer to an upgrade has a date, by which one knows the default adapter."""
    async with open_wire(system) as wire:
        return b"date" in {name.lower() for name, _ in wire.socket.handshake_headers}


async def test_a_system_on_the_second_adapter(tmp_path: Path) -> None:
    """Signed in, subscribed in both subprotocols, replayed to the head; the library is the one that was named."""
    with running_system(tmp_path, KHALA_NODE_WEBSOCKET_ADAPTER="trio_websocket") as system:
        async with open_api(system) as api:
            ann = await api.sign_in()
            history = await begin_history(api, ann, events=300)
            for subprotocol in (BINARY, TEXT):
                async with open_welcomed(system, api, ann, history.topic, subprotocol=subprotocol) as wire:
                    follower = await subscribe(wire, history.topic, BEGINNING)
                    with trio.fail_after(20):
                        await read_through(wire, follower, history.head.seq)
            assert not await _does_date_its_answer(system)
