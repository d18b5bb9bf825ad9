"""KH-12: many clients that reconnect at once, over real sockets: spread by the times that they are told."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import trio

from khala_contracts.codec import (
    ErrorMessage,
    ReplayComplete,
    Welcome,
)
from tests.actors.khala.node_under_test import hello_with
from tests.actors.khala.wire_transcript import WireTranscript
from tests.integration.khala.limit_engine import DEADLINE_S, TOPICS, Engine, open_engine, until
from tests.integration.khala.rig import UPGRADE_REQUEST, BareClient

pytestmark = pytest.mark.slow


async def test_a_storm_of_reconnects() -> None:
    """120 at once at 60 a second: hardly anybody is refused twice, and all are in when the rate allows it, no token twice.

    Who was in before gets what is committed meanwhile.
    """
    async with open_engine(admission_burst=20, admission_per_s=60.0, handshakes_max=64) as engine:
        witness = await engine.connect()
        await witness.subscribe(TOPICS[0])
        await witness.wait(lambda: witness.of(ReplayComplete))
        refusals: list[int] = []
        welcomed: list[float] = []
        began_at = trio.current_time()
        async with trio.open_nursery() as storm:
            for _ in range(120):
                storm.start_soon(_return_until_welcome, engine, refusals, welcomed)
            for _ in range(20):
                await engine.commit(TOPICS[0])
                await trio.sleep(0.02)
        assert len(welcomed) == 120
        assert 0 < len(refusals) <= 150
        # 101 places are earned at 60 a second; turns begin a little later than the rate alone would have it.
        assert max(welcomed) - began_at >= 100 / 60
        assert max(refusals) <= 3_000
        assert engine.counters.welcomes == 121
        assert len(engine.control.spent) == 121
        await witness.wait_at(TOPICS[0], 20)


async def _return_until_welcome(engine: Engine, refusals: list[int], welcomed: list[float]) -> None:
    """Connect with one token until it is welcome, returning when told: in words, or by HTTP 429."""
    token = engine.grant()
    while True:
        told = await _knock(engine, token)
        if told is None:
            welcomed.append(trio.current_time())
            return
        refusals.append(told)
        await trio.sleep(told / 1000)


async def _knock(engine: Engine, token: str) -> int | None:
    """Ask for the upgrade and say hello; return None if it is welcome, else when to return, milliseconds."""
    stream = await trio.open_tcp_stream("127.0.0.1", engine.port)
    data = b""
    with suppress(trio.BrokenResourceError), trio.fail_after(DEADLINE_S):
        await stream.send_all(UPGRADE_REQUEST.format("khala.v1").encode())
        data = await stream.receive_some()
    if data.startswith(b"HTTP/1.1 429"):
        await trio.aclose_forcefully(stream)
        refusal = json.loads(data.partition(b"\r\n\r\n")[2])
        assert refusal["code"] == "rate_limited"
        return int(refusal["retry_after_ms"])
    client = BareClient(stream, WireTranscript())
    client.received += client.transcript.feed(data)
    engine.clients.start_soon(client.run)
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await client.say(hello_with(token))
    await until(lambda: bool(client.of(Welcome)) or client.is_over)
    return None if client.of(Welcome) else client.of(ErrorMessage)[0].retry_after_ms
