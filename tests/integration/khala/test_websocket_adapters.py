"""Each WebSocket adapter over real sockets: the engine of a node on a journal in memory, bare clients in bytes."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, get_args

import attrs
import pytest
import trio

from fanout_drivers.memory import MemoryDriver
from khala.adapters.websocket_adapters import WebSocketAdapter
from khala.app import NodeParts, serve_engine
from khala.core.counters import NodeCounters
from khala.core.limits import NodeLimits
from khala_contracts.codec import (
    ErrorMessage,
    FromStart,
    Subscribe,
    SubscribeFrom,
    TopicStart,
    encode_client_message,
)
from khala_contracts.fanout_records import RecordSigner
from tests.actors.khala.fake_control import FakeClock, FakeControl, FakeTokens
from tests.actors.khala.fake_journal import FakeJournal, log_of
from tests.actors.khala.node_under_test import KEY, KEY_ID, hello_with
from tests.actors.khala.wire_transcript import Pong, WireTranscript
from tests.client_frames import BINARY, PING, TEXT, client_frame, upgrade_request
from tests.topic_log import claims_for, run_topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.topic_log import TopicLog

pytestmark = pytest.mark.slow

both_adapters = pytest.mark.parametrize("adapter", get_args(WebSocketAdapter))
TOPIC = run_topic(1)
# For the kernel: what a client that reads nothing can take all the same.
SMALL_BUFFER_BYTES = 4_096
DEADLINE_S = 30.0


@attrs.define(eq=False)
class Client:
    """Bytes on a socket, judged by the transcript."""

    stream: trio.SocketStream
    transcript: WireTranscript = attrs.field(factory=WireTranscript)
    received: list[object] = attrs.field(factory=list)

    async def send(self, data: bytes) -> None:
        """Send bytes, as far as the node takes them."""
        with suppress(trio.BrokenResourceError):
            await self.stream.send_all(data)

    async def read(self, is_met: Callable[[], bool]) -> None:
        """Read until the condition holds."""
        with trio.fail_after(DEADLINE_S):
            while not is_met():
                data = await self.stream.receive_some(65_536)
                assert data, f"closed with {self.transcript.closed_with}"
                self.received += self.transcript.feed(data)

    async def read_to_the_end(self) -> None:
        """Read until the node is gone."""
        with trio.fail_after(DEADLINE_S):
            while data := await self.stream.receive_some(65_536):
                self.received += self.transcript.feed(data)

    @property
    def pongs(self) -> list[bytes]:
        """What has been answered."""
        return [message.payload for message in self.received if isinstance(message, Pong)]

    @property
    def seqs(self) -> list[int]:
        """What has come of the topic."""
        followed = self.transcript.topics.get(TOPIC.name)
        return [] if followed is None else followed.seqs


@attrs.define(eq=False)
class Engine:
    """A running engine, and the hands of the authority."""

    port: int
    log: TopicLog
    driver: MemoryDriver
    tokens: FakeTokens
    counters: NodeCounters
    clients: list[Client] = attrs.field(factory=list)

    async def commit(self, payload: bytes = b"x") -> None:
        """Append a frame and tell the node."""
        record = self.log.append(1, payload=payload)
        await self.driver.publish(record.topic, RecordSigner(KEY_ID, KEY).seal(record))

    async def connect(self, *, receive_buffer_bytes: int = 0) -> Client:
        """Connect and ask for the upgrade."""
        plain = trio.socket.socket()
        if receive_buffer_bytes:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        await plain.connect(("127.0.0.1", self.port))
        client = Client(trio.SocketStream(plain))
        self.clients.append(client)
        await client.send(upgrade_request())
        return client

    async def follow(self, *, receive_buffer_bytes: int = 0) -> Client:
        """Connect, say hello, subscribe from the beginning."""
        client = await self.connect(receive_buffer_bytes=receive_buffer_bytes)
        token = f"token-{len(self.tokens.claims) + 1}"
        self.tokens.claims[token] = attrs.evolve(claims_for(TOPIC), jti=token)
        subscribe = Subscribe((TopicStart(TOPIC.name, FromStart(SubscribeFrom.BEGINNING)),))
        for message in (hello_with(token), subscribe):
            await client.send(client_frame(BINARY, encode_client_message(message)))
        return client


@asynccontextmanager
async def open_engine(
    adapter: WebSocketAdapter, log: TopicLog, limits: NodeLimits | None = None
) -> AsyncIterator[Engine]:
    """Serve one node on a free port."""
    driver, tokens, counters = MemoryDriver(), FakeTokens(), NodeCounters()
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
                node_id="node",
                host="127.0.0.1",
                port=0,
                limits=limits or NodeLimits(),
                cors_origins=(),
                counters=counters,
                drain=trio.Event(),
                websocket_adapter=adapter,
            )
        )
        engine = Engine(port, log, driver, tokens, counters)
        try:
            yield engine
        finally:
            for client in engine.clients:
                await trio.aclose_forcefully(client.stream)
        nursery.cancel_scope.cancel()
    assert not counters.task_restarts


@both_adapters
async def test_replay_and_live(adapter: WebSocketAdapter) -> None:
    """A replay through the kernel's real buffers, then live frames, with pings among them."""
    async with open_engine(adapter, log_of(TOPIC, 3_000, payload=bytes(500))) as engine:
        client = await engine.follow()
        for number in range(20):
            await client.send(client_frame(PING, b"%d" % number))
        await client.read(lambda: len(client.seqs) == 3_000)
        await engine.commit()
        await client.read(lambda: len(client.seqs) == 3_001 and len(client.pongs) == 20)
        assert client.pongs == [b"%d" % number for number in range(20)]


@both_adapters
async def test_close_codes_at_the_socket(adapter: WebSocketAdapter) -> None:
    """Each breach ends with its code although the client goes on sending; its neighbour misses nothing."""
    breaches = (
        (client_frame(BINARY, b"x", mask=None), 1002),
        (client_frame(3, b"x"), 1002),
        (client_frame(TEXT, b"\xff"), 1007),
        (client_frame(BINARY, length=1 << 40), 1009),
    )
    async with open_engine(adapter, log_of(TOPIC, 1)) as engine:
        neighbour = await engine.follow()
        for sent, code in breaches:
            client = await engine.follow()
            await client.read(lambda client=client: client.seqs == [1])  # type: ignore[misc]
            await client.send(sent + bytes(200_000))
            await client.read_to_the_end()
            assert client.transcript.closed_with == code
        await engine.commit()
        await neighbour.read(lambda: neighbour.seqs == [1, 2])


@both_adapters
async def test_a_stalled_client_under_its_own_flood(adapter: WebSocketAdapter) -> None:
    """It reads nothing and pings without end: constant memory, nobody else waits, and it is told why it ends."""
    limits = NodeLimits(write_stall_timeout_s=1.0, sweep_interval_s=0.2)
    async with open_engine(adapter, log_of(TOPIC, 500, payload=bytes(10_000)), limits) as engine:
        stalled = await engine.follow(receive_buffer_bytes=SMALL_BUFFER_BYTES)
        with trio.move_on_after(0.5):
            while True:
                await stalled.send(client_frame(PING, bytes(125)) * 100)
        neighbour = await engine.follow()
        await neighbour.read(lambda: len(neighbour.seqs) == 500)
        await engine.commit()
        await neighbour.read(lambda: len(neighbour.seqs) == 501)
        with trio.fail_after(DEADLINE_S):
            while not engine.counters.closes:
                await trio.sleep(0.05)
        assert set(engine.counters.closes) <= {"slow_consumer", "rate_limited"}
        await stalled.read_to_the_end()
        errors = [message.code for message in stalled.received if isinstance(message, ErrorMessage)]
        assert errors == list(engine.counters.closes)
