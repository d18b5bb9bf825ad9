"""Slow consumers over real sockets with small kernel buffers: the engine of a node, and nothing simulated below.

The limits are those of SPEC section 6 divided by a hundred, so that the test takes seconds; kernels
move bytes in lumps of tens of kilobytes, which is why each frame has ten.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from trio_websocket import wrap_client_stream

from chaos.checker import check_positions
from fanout_drivers.memory import MemoryDriver
from khala.app import NodeParts, serve_engine
from khala.core.counters import NodeCounters
from khala.core.limits import NodeLimits
from khala.core.origin_policy import SYNC_PATH
from khala.core.protocol import SUBPROTOCOL_BINARY
from khala_contracts import codec
from khala_contracts.codec import (
    FramesMessage,
    FromStart,
    Lagging,
    ReplayComplete,
    Subscribe,
    SubscribeFrom,
    TopicStart,
    Unsubscribed,
    UnsubscribedReason,
)
from khala_contracts.fanout_records import RecordSigner
from tests.actors.khala.fake_control import FakeClock, FakeControl, FakeTokens
from tests.actors.khala.fake_journal import FakeJournal, log_of
from tests.actors.khala.node_under_test import hello_with
from tests.topic_log import claims_for, run_topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_websocket import WebSocketConnection

    from tests.topic_log import TopicLog

pytestmark = pytest.mark.slow

TOPIC = run_topic(1)
KEY_ID, KEY = "key-1", bytes(range(32))
PAYLOAD = bytes(10_000)
COMMIT_EVERY_S = 0.05
LIMITS = NodeLimits(
    lagging_after_warm_s=0.3,
    release_after_warm_s=1.2,
    slow_rate_window_s=1.0,
    write_stall_timeout_s=60.0,
    # One frame is one message, so that reading one is taking one.
    chunk_max_bytes=12_000,
    drr_quantum_bytes=10_000,
)
DEADLINE_S = 30.0


@attrs.define
class Engine:
    """A running engine, and the hands of the authority."""

    port: int
    log: TopicLog
    driver: MemoryDriver
    tokens: FakeTokens
    counters: NodeCounters
    signer: RecordSigner = attrs.field(factory=lambda: RecordSigner(KEY_ID, KEY))

    async def commit(self, count: int = 1) -> None:
        """Append frames and tell the node."""
        record = self.log.append(count, payload=PAYLOAD)
        hint = record if count == 1 else self.log.hint(record.first_seq, record.last_seq)
        await self.driver.publish(TOPIC.name, self.signer.seal(hint))

    @asynccontextmanager
    async def client(
        self, name: str, *, receive_buffer_bytes: int | None
    ) -> AsyncIterator[WebSocketConnection]:
        """Connect, say hello and subscribe; whoever does not ask for messages reads no bytes either."""
        self.tokens.claims[name] = attrs.evolve(
            claims_for(TOPIC), jti=name, expires_at_s=round(FakeClock().now()) + 300
        )
        # The stream is ours: the library leaves it open where nobody said goodbye.
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream, trio.open_nursery() as pumps:
            if receive_buffer_bytes is not None:
                stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer_bytes)
            socket = await wrap_client_stream(
                pumps,
                stream,
                f"127.0.0.1:{self.port}",
                SYNC_PATH,
                subprotocols=[SUBPROTOCOL_BINARY],
                message_queue_size=1,
                max_message_size=1 << 20,
                receive_buffer_size=16 * 1024,
            )
            subscribe = Subscribe((TopicStart(TOPIC.name, FromStart(SubscribeFrom.BEGINNING)),))
            for message in (hello_with(name), subscribe):
                await socket.send_message(codec.encode_client_message(message))
            yield socket
            pumps.cancel_scope.cancel()


@asynccontextmanager
async def running_engine() -> AsyncIterator[Engine]:
    """Serve on a free port."""
    log, driver, tokens, counters = log_of(TOPIC, 0), MemoryDriver(), FakeTokens(), NodeCounters()
    parts = NodeParts(
        journal=FakeJournal.of([log]),
        tokens=tokens,
        control=FakeControl(),
        driver=driver,
        fanout_keys={KEY_ID: KEY},
        clock=FakeClock(),
    )
    async with trio.open_nursery() as nursery:
        port, _ = await nursery.start(
            partial(
                serve_engine,
                parts,
                node_id="node-1",
                host="127.0.0.1",
                port=0,
                limits=LIMITS,
                cors_origins=(),
                counters=counters,
                drain=trio.Event(),
            )
        )
        with trio.fail_after(DEADLINE_S):
            yield Engine(port, log, driver, tokens, counters)
        nursery.cancel_scope.cancel()


async def read(socket: WebSocketConnection) -> object:
    """Take one message."""
    data = await socket.get_message()
    assert isinstance(data, bytes)
    return codec.decode_server_message_untrusted(data)


async def test_a_stalled_reader_is_released_and_another_one_is_not_held_up() -> None:
    """Nothing is read: told, released, no gap; the connection and its cursor stay valid; the other has it all."""
    async with (
        running_engine() as engine,
        engine.client("stalled", receive_buffer_bytes=4_096) as stalled,
        engine.client("quick", receive_buffer_bytes=None) as quick,
    ):
        seqs: list[int] = []

        async def read_quickly() -> None:
            while True:
                message = await read(quick)
                if isinstance(message, FramesMessage):
                    seqs.extend(frame.seq for frame in message.frames)

        async with trio.open_nursery() as reading:
            reading.start_soon(read_quickly)
            while not engine.counters.slow_consumer_actions["release"]:
                await engine.commit()
                await trio.sleep(COMMIT_EVERY_S)
            while len(seqs) < engine.log.head_seq:
                await trio.sleep(0.01)
            reading.cancel_scope.cancel()
        head_seq = engine.log.head_seq
        assert check_positions(TOPIC.name, seqs, source="quick", head_seq=head_seq) == []
        assert engine.counters.slow_consumer_actions["throttle"] == 1
        assert engine.counters.closes == {}
        received: list[object] = [await read(stalled)]
        while not isinstance(received[-1], Unsubscribed):
            received.append(await read(stalled))
        assert received[-1] == Unsubscribed(TOPIC.name, UnsubscribedReason.SLOW_CONSUMER)
        assert any(isinstance(message, Lagging) for message in received)
        held = [frame.seq for each in received if isinstance(each, FramesMessage) for frame in each.frames]
        assert check_positions(TOPIC.name, held, source="stalled") == []
        assert len(held) < engine.log.head_seq


async def test_a_slow_but_steady_reader_is_never_released() -> None:
    """A hundred frames behind for seconds, never drained, faster than the topic: no fault."""
    async with (
        running_engine() as engine,
        engine.client("steady", receive_buffer_bytes=32 * 1024) as steady,
    ):
        while not isinstance(await read(steady), ReplayComplete):
            pass
        await engine.commit(300)
        position = 0
        for _ in range(round(4 * LIMITS.release_after_warm_s / COMMIT_EVERY_S)):
            await engine.commit()
            read_until = position + 2
            while position < read_until:
                message = await read(steady)
                if isinstance(message, FramesMessage):
                    position = message.frames[-1].seq
            # Otherwise it would drain, and be no slow reader any more.
            assert position < engine.log.head_seq - 50
            await trio.sleep(COMMIT_EVERY_S)
        assert engine.counters.slow_consumer_actions["throttle"] >= 1
        assert engine.counters.slow_consumer_actions["release"] == 0
        assert engine.counters.closes == {}
