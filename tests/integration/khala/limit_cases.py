"""Every limit that a client of a node can meet, at N and one beyond, through a real socket.

A case is named by the limits that it tests; `test_limits.py` compares the names with the fields of NodeLimits, so
that a limit without a case, and without a test elsewhere, fails.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from khala_contracts.codec import (
    ClientHeartbeat,
    CursorStart,
    ErrorMessage,
    FramesMessage,
    ReplayComplete,
    ServerHeartbeat,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Welcome,
    encode_client_message,
)
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import hello_with
from tests.integration.khala.rig import UPGRADE_REQUEST, BareClient
from tests.topic_log import LINEAGE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


from tests.integration.khala.limit_engine import (
    BEAT,
    DEADLINE_S,
    FOLLOW,
    FOREIGN,
    TOPICS,
    Engine,
    closed,
    framed,
    open_engine,
    padded_unsubscribe,
    until,
)

CASES: Final[dict[str, Callable[[], Awaitable[None]]]] = {}


def case(*limits: str) -> Callable[[Callable[[], Awaitable[None]]], Callable[[], Awaitable[None]]]:
    """Register a case under the names of the limits that it tests."""

    def register(run: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        for limit in limits:
            assert limit not in CASES, limit
            CASES[limit] = run
        return run

    return register


# -- what a client says ---------------------------------------------------------------------------


@case("inbound_message_max_bytes")
async def size_of_a_message() -> None:
    """N bytes are read and answered; N + 1 close with 1009, and the answer to the first came before."""
    async with open_engine(inbound_message_max_bytes=300) as engine:
        client = await engine.connect()
        await client.stream.send_all(framed(padded_unsubscribe(300)))
        await client.wait(lambda: client.of(ErrorMessage), within_s=DEADLINE_S)
        assert client.of(ErrorMessage)[-1].code == "topic_invalid"
        await client.stream.send_all(framed(padded_unsubscribe(301)))
        await closed(client, 1009)
        await engine.audited("inbound_message_max_bytes")


@case("client_messages_burst", "client_messages_per_s")
async def rate_of_messages() -> None:
    """The burst at once, hello included; one more closes. A second connection earns one at the rate."""
    async with open_engine(client_messages_burst=5, client_messages_per_s=4.0) as engine:
        client = await engine.connect()
        await client.stream.send_all(BEAT * 4)
        await trio.sleep(0.3)
        assert not client.is_over
        await client.stream.send_all(BEAT * 3)
        error = await engine.refused(client, "client_messages_per_s", close_code=4003)
        assert error.retry_after_ms == 1_250


@case("subscriptions_max")
async def number_of_subscriptions() -> None:
    """N topics are followed; the next is refused by itself, and has room once another was left."""
    async with open_engine(subscriptions_max=2) as engine:
        client = await engine.connect()
        await client.subscribe(*TOPICS[:2])
        await client.wait(lambda: len(client.of(Subscribed)) == 2)
        await client.subscribe(TOPICS[2])
        error = await engine.refused(client, "subscriptions_max")
        assert error.topic == TOPICS[2].name
        await client.say(Unsubscribe((TOPICS[0].name,)))
        await client.subscribe(TOPICS[2])
        await client.wait(lambda: len(client.of(Subscribed)) == 3)


@case("topics_per_subscribe_max")
async def topics_of_one_message() -> None:
    """N topics in a subscribe are answered, N + 1 close."""
    async with open_engine(topics_per_subscribe_max=3) as engine:
        client = await engine.connect()
        await client.subscribe(*TOPICS[:3])
        await client.wait(lambda: len(client.of(Subscribed)) == 3)
        await client.subscribe(*TOPICS)
        await engine.refused(client, "topics_per_subscribe_max", close_code=4505)


@case("denied_subscribes_max", "denied_subscribes_window_s")
async def denied_subscribes() -> None:
    """N - 1 within the window, again and again: nothing. The N-th within it closes."""
    async with open_engine(denied_subscribes_max=3, denied_subscribes_window_s=0.5) as engine:
        client = await engine.connect()
        for _ in range(2):
            await client.subscribe(FOREIGN, FOREIGN)
            await trio.sleep(0.6)
        assert len(client.of(ErrorMessage)) == 4
        assert not client.is_over
        await client.subscribe(FOREIGN, FOREIGN, FOREIGN)
        error = await engine.refused(client, "denied_subscribes_max", close_code=4003)
        assert error.retry_after_ms == 500


# -- what a client does not do ----------------------------------------------------------------------


@case("hello_timeout_s")
async def time_to_hello() -> None:
    """In time: welcome for good. Later: told hello_timeout. Silent, or dripping its request: dropped as well."""
    async with open_engine(hello_timeout_s=0.6) as engine:
        began_at = trio.current_time()
        punctual = await engine.connect()
        late = await engine.upgrade()
        silent = await trio.open_tcp_stream("127.0.0.1", engine.port)
        dripping = await trio.open_tcp_stream("127.0.0.1", engine.port)
        async with trio.open_nursery() as slowly, silent, dripping:
            slowly.start_soon(_drip, dripping)
            with trio.fail_after(DEADLINE_S), suppress(trio.BrokenResourceError):
                assert await silent.receive_some(1) == b""
            assert trio.current_time() - began_at >= 0.6
            await until(lambda: engine.counters.closes["hello_timeout"] == 3)
            slowly.cancel_scope.cancel()
        error = late.of(ErrorMessage)[0]
        assert (error.code, error.details) == ("hello_timeout", {"limit": "hello_timeout_s", "max": "0.6"})
        await closed(late, 4007)
        await engine.audited("hello_timeout_s", count=3)
        assert engine.counters.handshakes_open == 0
        assert not punctual.is_over


async def _drip(stream: trio.SocketStream) -> None:
    """Send a request that never ends, a byte at a time."""
    request = b"GET /sync/v1/ws HTTP/1.1\r\n" + b"X-Slow: loris\r\n" * 1_000
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for byte in request:
            await stream.send_all(bytes((byte,)))
            await trio.sleep(0.02)


@case("sweep_interval_s")
async def exactness_of_deadlines() -> None:
    """A deadline is acted on at the next sweep: not before, and then."""
    async with open_engine(hello_timeout_s=0.05, sweep_interval_s=0.8) as engine:
        began_at = trio.current_time()
        late = await engine.upgrade()
        await closed(late, 4007)
        assert trio.current_time() - began_at > 0.3


@case("dead_after_s")
async def silence() -> None:
    """Whoever says something more often than N stays; who is silent for N is closed, and not before."""
    async with open_engine(dead_after_s=0.8, heartbeat_interval_s=0.2) as engine:
        silent, talking = await engine.connect(), await engine.connect()
        began_at = trio.current_time()
        while not silent.is_over:
            await talking.say(ClientHeartbeat())
            await trio.sleep(0.05)
            assert trio.current_time() - began_at < DEADLINE_S
        assert trio.current_time() - began_at >= 0.7
        assert not talking.is_over
        await engine.refused(silent, "dead_after_s", close_code=4002)


@case("heartbeat_interval_s")
async def heartbeats() -> None:
    """They come N apart."""
    async with open_engine(heartbeat_interval_s=0.3) as engine:
        began_at = trio.current_time()
        client = await engine.connect()
        assert client.of(Welcome)[0].heartbeat_interval_ms == 300
        await client.wait(lambda: len(client.of(ServerHeartbeat)) >= 3, within_s=DEADLINE_S)
        assert trio.current_time() - began_at >= 0.9


@case("write_stall_timeout_s")
async def taking_nothing() -> None:
    """A client that takes no byte for N is closed, not before; one that takes something more often stays."""
    async with open_engine(write_stall_timeout_s=1.0, send_buffer_bytes=16 * 1024) as engine:
        stalled, slow = [await _follower(engine) for _ in range(2)]
        await engine.commit(TOPICS[0], 60, payload=bytes(60_000))
        began_at = trio.current_time()
        with trio.fail_after(DEADLINE_S):
            while engine.counters.closes["slow_consumer"] == 0:
                await slow.receive_some(40_000)
                await trio.sleep(0.05)
        assert trio.current_time() - began_at >= 0.9
        assert engine.counters.closes == {"slow_consumer": 1}
        await engine.audited("write_stall_timeout_s")
        for stream in (stalled, slow):
            await trio.aclose_forcefully(stream)


async def _follower(engine: Engine) -> trio.SocketStream:
    """Follow the first topic over a socket with a small buffer; whoever has it reads when it likes."""
    stream = await trio.open_tcp_stream("127.0.0.1", engine.port)
    stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 8 * 1024)
    before = engine.counters.subscriptions_open
    await stream.send_all(UPGRADE_REQUEST.format("khala.v1").encode())
    await stream.send_all(framed(encode_client_message(hello_with(engine.grant()))))
    await stream.send_all(framed(encode_client_message(FOLLOW)))
    await until(lambda: engine.counters.subscriptions_open > before)
    return stream


@case("close_timeout_s")
async def answering_the_close() -> None:
    """Who does not answer the close is dropped after N, and not before."""
    async with open_engine(close_timeout_s=0.5, topics_per_subscribe_max=1) as engine:
        client = await engine.connect()
        await client.subscribe(*TOPICS[:2])
        await until(lambda: client.transcript.closed_with == 4505)
        told_at = trio.current_time()
        assert not client.is_over
        await until(lambda: client.is_over)
        assert trio.current_time() - told_at >= 0.4


# -- what a node holds -------------------------------------------------------------------------------


@case("chunk_max_bytes")
async def bytes_of_one_write() -> None:
    """Frames of N bytes together travel in one message, of N + 1 in two."""
    sizes = {}
    for less in (0, 1):
        probe = log_of(TOPICS[0], 4, payload=bytes(500))
        chunk = sum(map(len, probe.entries)) - less
        async with open_engine(chunk_max_bytes=chunk, drr_quantum_bytes=chunk) as engine:
            engine.logs[TOPICS[0].name].append(4, payload=bytes(500))
            client = await engine.connect()
            await client.subscribe(TOPICS[0])
            await _replayed(client)
            sizes[less] = [len(message.frames) for message in client.of(FramesMessage)]
    assert sizes == {0: [4], 1: [3, 1]}, sizes


async def _replayed(client: BareClient) -> None:
    await client.wait(lambda: client.of(ReplayComplete), within_s=DEADLINE_S)


@case("window_max_frames", "window_max_bytes")
async def frames_in_memory() -> None:
    """N frames behind the head are sent from memory; N + 1 need a read of the journal. Bytes likewise."""
    entry = len(log_of(TOPICS[0], 1).entries[0])
    for limits in ({"window_max_frames": 6}, {"window_max_bytes": 6 * entry}):
        async with open_engine(**limits) as engine:
            live = await engine.connect()
            await live.subscribe(TOPICS[0])
            await _replayed(live)
            for _ in range(7):
                await engine.commit(TOPICS[0])
            await live.wait_at(TOPICS[0], 7)
            reads = []
            for seq in (1, 0):
                late = await engine.connect()
                log = engine.logs[TOPICS[0].name]
                await late.subscribe(TOPICS[0], start=CursorStart(seq, LINEAGE, log.chains[seq]))
                await late.wait_at(TOPICS[0], 7, within_s=DEADLINE_S)
                reads.append(engine.counters.pages_read)
            assert reads == [0, 1], limits


@case("topic_linger_s")
async def topics_without_subscribers() -> None:
    """A topic outlives its last subscriber for N, and no longer."""
    async with open_engine(topic_linger_s=0.5) as engine:
        client = await engine.connect()
        await client.subscribe(TOPICS[0])
        await client.wait(lambda: client.of(Subscribed))
        await client.say(Unsubscribe((TOPICS[0].name,)))
        await client.wait(lambda: client.of(Unsubscribed))
        left_at = trio.current_time()
        assert engine.counters.topics_live == 1
        await until(lambda: engine.counters.topics_live == 0)
        assert trio.current_time() - left_at >= 0.4


# -- who may enter -------------------------------------------------------------------------------------


@case("admission_burst", "admission_per_s")
async def connections_per_second() -> None:
    """N at once; the next is told rate_limited and when; its token is unspent and opens it a door at that time."""
    async with open_engine(admission_burst=3, admission_per_s=2.0) as engine:
        for _ in range(3):
            await engine.connect()
        token = engine.grant()
        turned_away = await engine.upgrade()
        await turned_away.say(hello_with(token))
        error = await engine.refused(turned_away, "admission_per_s", close_code=4003)
        assert 0 < error.retry_after_ms <= 500
        assert not turned_away.of(Welcome)
        await trio.sleep(error.retry_after_ms / 1000 + 0.01)
        returned = await engine.upgrade()
        await returned.say(hello_with(token))
        await returned.wait(lambda: returned.of(Welcome), within_s=DEADLINE_S)
        assert engine.control.spent[token] == returned.of(Welcome)[0].connection_id


@case("handshakes_max")
async def handshakes_at_once() -> None:
    """N sockets that have not said hello; the next is told to come back, and a hello makes room."""
    async with open_engine(handshakes_max=2) as engine:
        waiting = [await engine.upgrade() for _ in range(2)]
        await until(lambda: engine.counters.handshakes_open == 2)
        turned_away = await engine.upgrade()
        await engine.refused(turned_away, "handshakes_max", close_code=4003)
        await waiting[0].say(hello_with(engine.grant()))
        await waiting[0].wait(lambda: waiting[0].of(Welcome))
        await engine.connect()
