"""A node through each WebSocket adapter: the same bytes, the same ends, and nothing that a client can spoil."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, get_args

import pytest
import trio

from khala.adapters.websocket_adapters import WebSocketAdapter
from khala.core.limits import NodeLimits
from khala_contracts import reason_codes
from khala_contracts.codec import ClientHeartbeat, ErrorMessage, ServerHeartbeat, Subscribed, Welcome
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import hello_with, open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.actors.khala.socket_client import follow_by_socket, open_socket_client
from tests.actors.khala.wire_transcript import Pong
from tests.client_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    client_frame,
    close_payload,
    upgrade_request,
)
from tests.topic_log import run_topic

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from tests.actors.khala.socket_client import SocketClient


ADAPTERS: tuple[WebSocketAdapter, ...] = get_args(WebSocketAdapter)
both_adapters = pytest.mark.parametrize("adapter", ADAPTERS)
TOPIC, OTHER_TOPIC = run_topic(1), run_topic(2)
# Enough for its pings to fill the control lane, were anybody to let it.
FLOOD = 1_500


# -- transcripts -----------------------------------------------------------------------------------


async def _transcript(adapter: WebSocketAdapter, *, is_text: bool) -> bytes:
    """Return what a client receives in a session with one of everything."""
    log, other = log_of(TOPIC, 700), log_of(OTHER_TOPIC, 3)
    async with open_node(log, other) as node:
        client = open_socket_client(node, adapter, is_text=is_text)
        malformed = client_frame(TEXT, b"{") if is_text else client_frame(BINARY, b"\xff\xff")
        # One after the other: which of two tasks runs first is nobody's promise.
        steps: tuple[Callable[[], None], ...] = (
            lambda: client.say(hello_with(node.grant(TOPIC, OTHER_TOPIC))),
            lambda: client.subscribe(TOPIC),
            lambda: client.send(client_frame(PING, b"are you there")),
            lambda: client.subscribe(OTHER_TOPIC),
            lambda: client.subscribe(OTHER_TOPIC),
            lambda: client.say(ClientHeartbeat()),
            lambda: client.unsubscribe(OTHER_TOPIC),
        )
        for step in steps:
            step()
            await node.settle()
            await node.commit(log, 2)
            await node.commit(other)
        await trio.sleep(20)
        client.send(malformed)
        await node.settle()
        client.send(client_frame(CLOSE, close_payload(4500)))
        await node.settle()
        assert not client.is_served
        client.read()
        assert client.take_all(Welcome)
        assert client.take_all(Subscribed)
        assert client.take_all(ServerHeartbeat)
        assert client.take_all(Pong) == [Pong(b"are you there")]
        assert client.close_code == 4500
        _, _, frames = bytes(client.wire).partition(b"\r\n\r\n")
        return frames


@pytest.mark.parametrize("is_text", [False, True])
async def test_one_transcript(autojump_clock: MockClock, is_text: bool) -> None:
    """Behind the HTTP answer a client cannot tell one adapter from the other by a single byte."""
    transcripts = [await _transcript(adapter, is_text=is_text) for adapter in ADAPTERS]
    assert transcripts[0] == transcripts[1]
    assert len(transcripts[0]) > 1_000


@both_adapters
@pytest.mark.parametrize("seed", range(5))
async def test_no_pong_inside_a_frame(
    autojump_clock: MockClock, adapter: WebSocketAdapter, seed: int
) -> None:
    """Whatever the kernel takes of each chunk, pongs stand between the frames of a replay, in their order."""
    rng = random.Random(seed)
    log = log_of(TOPIC, 400, payload=b"p" * 300)
    async with open_node(log) as node:
        transport = SimulatedTransport(buffer_bytes=2_000, rng=rng)
        client = await follow_by_socket(node, adapter, TOPIC, transport=transport)
        asked: list[bytes] = []
        while client.position(TOPIC) < log.head_seq:
            # Some 200 reads bring all of it; a pong inside a frame would make the rest unreadable for ever.
            assert len(asked) < 2_000, "the replay does not end"
            asked.append(b"%d" % len(asked))
            client.send(client_frame(PING, asked[-1]))
            client.read(rng.randint(1, 3_000))
            await node.settle()
        client.read()
        assert client.take_all(Pong) == [Pong(payload) for payload in asked]


# -- ends --------------------------------------------------------------------------------------------

BREACHES = {
    "unmasked": (client_frame(BINARY, b"x", mask=None), 1002),
    "reserved bit": (client_frame(BINARY, b"x", reserved=4), 1002),
    "compressed without agreement": (client_frame(BINARY, bytes(100), reserved=4), 1002),
    "reserved opcode": (client_frame(3, b"x"), 1002),
    "reserved control opcode": (client_frame(11), 1002),
    "continuation of nothing": (client_frame(CONTINUATION, b"x"), 1002),
    "fragmented ping": (client_frame(PING, b"x", is_final=False), 1002),
    "ping of 126": (client_frame(PING, bytes(126)), 1002),
    "close of one byte": (client_frame(CLOSE, b"\x03"), 1002),
    "close with a code of nobody": (client_frame(CLOSE, close_payload(1005)), 1002),
    "text that is no UTF-8": (client_frame(TEXT, b"\xff\xfe"), 1007),
    "close whose reason is no UTF-8": (client_frame(CLOSE, close_payload(1000, b"\xff")), 1007),
    "one byte too large": (client_frame(BINARY, bytes(65_537)), 1009),
    "announced too large": (client_frame(BINARY, length=1 << 62), 1009),
    "endless fragments": (
        client_frame(BINARY, bytes(1_000), is_final=False)
        + client_frame(CONTINUATION, bytes(1_000), is_final=False) * 65,
        1009,
    ),
}


@both_adapters
@pytest.mark.parametrize("is_subscribed", [True, False])
@pytest.mark.parametrize("breach", BREACHES)
async def test_broken_framing(
    autojump_clock: MockClock, adapter: WebSocketAdapter, breach: str, is_subscribed: bool
) -> None:
    """KH-21: the client is told the right code, and nothing after it; its neighbour misses nothing."""
    sent, code = BREACHES[breach]
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        neighbour = await follow_by_socket(node, adapter, TOPIC)
        if is_subscribed:
            client = await follow_by_socket(node, adapter, TOPIC)
        else:
            client = open_socket_client(node, adapter)
        client.send(sent)
        # While it leaves: the transcript of the client ends with the close nevertheless.
        await node.commit(log, 5)
        assert client.close_code == code
        assert not client.is_served
        assert client.transport.is_aborted
        assert node.counters.closes == {str(code): 1}
        assert neighbour.seqs(TOPIC) == list(range(1, 9))


@both_adapters
async def test_the_largest_message(autojump_clock: MockClock, adapter: WebSocketAdapter) -> None:
    """Exactly inbound_message_max_bytes is a message, however it is cut, and however many were before."""
    async with open_node() as node:
        client = await follow_by_socket(node, adapter)
        for parts in (1, 2, 64):
            size = 65_536 // parts
            for number in range(parts):
                opcode = BINARY if number == 0 else CONTINUATION
                client.send(client_frame(opcode, bytes(size), is_final=number == parts - 1))
                client.send(client_frame(PING))
            await node.settle()
            # Zeros are no message of ours: malformed, and not too large.
            assert client.close_code == reason_codes.MALFORMED_MESSAGE.close_code
            client = await follow_by_socket(node, adapter)


@both_adapters
async def test_our_close_waits_for_the_answer(autojump_clock: MockClock, adapter: WebSocketAdapter) -> None:
    """We say why and close; pings and messages until the client answers spoil nothing; its answer ends it."""
    log = log_of(TOPIC, 1)
    async with open_node(log) as node:
        client = await follow_by_socket(node, adapter, TOPIC)
        client.connection.close(reason_codes.DRAINING)
        client.send(client_frame(PING, b"late"))
        client.say(ClientHeartbeat())
        await node.settle()
        assert client.take(ErrorMessage).code == "draining"
        assert client.close_code == reason_codes.DRAINING.close_code
        assert client.is_served
        client.send(client_frame(CLOSE, close_payload(4000)))
        await node.settle()
        assert not client.is_served
        assert node.counters.closes == {"draining": 1}


@both_adapters
async def test_our_close_has_a_deadline(autojump_clock: MockClock, adapter: WebSocketAdapter) -> None:
    """A client that does not answer the close is dropped after close_timeout_s."""
    async with open_node() as node:
        client = await follow_by_socket(node, adapter)
        client.connection.close(reason_codes.DRAINING)
        await trio.sleep(node.limits.close_timeout_s - 0.1)
        assert client.is_served
        await trio.sleep(0.2)
        assert not client.is_served


@both_adapters
@pytest.mark.parametrize(
    "payload", [b"", close_payload(1000), close_payload(1001, b"going away"), close_payload(4321)]
)
async def test_the_client_closes(
    autojump_clock: MockClock, adapter: WebSocketAdapter, payload: bytes
) -> None:
    """Its close comes back as it was, behind the answers to all that it said before, and ends the connection."""
    async with open_node(log_of(TOPIC, 3)) as node:
        client = await follow_by_socket(node, adapter, TOPIC)
        client.send(client_frame(PING, b"1") + client_frame(PING, b"2") + client_frame(CLOSE, payload))
        await node.settle()
        assert not client.is_served
        client.read()
        assert client.take_all(Pong) == [Pong(b"1"), Pong(b"2")]
        # A close carries at least a code or nothing.
        assert bytes(client.wire).endswith(bytes((0x88, len(payload))) + payload)


@both_adapters
@pytest.mark.parametrize(
    "sent", [client_frame(CLOSE, close_payload(1000)), client_frame(BINARY, b"x", mask=None)]
)
async def test_nothing_is_said_behind_a_close(
    autojump_clock: MockClock, adapter: WebSocketAdapter, sent: bytes
) -> None:
    """However busy others are with this client at the moment of its end, the close is the last that it reads."""
    async with open_node() as node:
        client = await follow_by_socket(node, adapter)
        client.send(sent)
        for _ in range(50):
            client.connection.push_control(ErrorMessage.of(reason_codes.UNAVAILABLE))
            await trio.lowlevel.checkpoint()
        assert not client.is_served
        client.read()
        assert client.close_code is not None


@both_adapters
@pytest.mark.parametrize("how", ["eof", "reset"])
@pytest.mark.parametrize(
    "after", [b"", b"\x82", client_frame(TEXT, b"x", is_final=False), client_frame(BINARY, length=9)]
)
async def test_the_client_vanishes(
    autojump_clock: MockClock, adapter: WebSocketAdapter, after: bytes, how: str
) -> None:
    """Between frames, inside one or inside a message: counted as 1006, at once, without a word."""
    async with open_node() as node:
        client = await follow_by_socket(node, adapter)
        client.read()
        client.send(after)
        await node.settle()
        if how == "eof":
            client.transport.feed_eof()
        else:
            client.transport.reset()
        await node.settle()
        assert not client.is_served
        assert node.counters.closes == {"1006": 1}
        assert client.read() == []


# -- pings, pongs, and clients that do not read ------------------------------------------------------


SMALL_FRAMES = {
    "pings": [client_frame(PING)] * 11,
    "pongs": [client_frame(PONG)] * 11,
    "empty fragments": [
        client_frame(BINARY, is_final=False),
        *([client_frame(CONTINUATION, is_final=False)] * 10),
    ],
}


@both_adapters
@pytest.mark.parametrize("what", SMALL_FRAMES)
async def test_every_frame_keeps_a_client_alive_and_counts(
    autojump_clock: MockClock, adapter: WebSocketAdapter, what: str
) -> None:
    """Each is heard and counts as a message: at the burst all is well, one more is rate_limited."""
    limits = NodeLimits(client_messages_burst=10, client_messages_per_s=1)
    async with open_node(limits=limits) as node:
        client = open_socket_client(node, adapter)
        await node.settle()
        await trio.sleep(3)
        *most, last = SMALL_FRAMES[what]
        client.send(b"".join(most))
        await node.settle()
        assert client.is_served
        assert client.connection.heard_at == trio.current_time()
        client.send(last)
        await node.settle()
        assert client.take(ErrorMessage).code == "rate_limited"
        assert client.close_code == reason_codes.RATE_LIMITED.close_code


@both_adapters
async def test_a_flood_of_pings_that_reads_nothing(
    autojump_clock: MockClock, adapter: WebSocketAdapter
) -> None:
    """It fills a quarter of the control lane, then is not read; what it takes up later is what it asked for."""
    limits = NodeLimits(client_messages_burst=FLOOD * 2)
    log = log_of(TOPIC, 1)
    async with open_node(log, limits=limits) as node:
        client = await follow_by_socket(node, adapter, TOPIC)
        client.transport.stall()
        client.send(b"".join(client_frame(PING, b"%d" % number) for number in range(FLOOD)))
        await node.settle()
        assert client.connection.outbound.waiting_bytes < limits.control_lane_max_bytes // 2
        neighbour = await follow_by_socket(node, adapter, TOPIC)
        await node.commit(log)
        assert neighbour.seqs(TOPIC) == [1, 2]
        client.transport.resume()
        await node.settle()
        client.read()
        assert client.take_all(Pong) == [Pong(b"%d" % number) for number in range(FLOOD)]
        assert client.seqs(TOPIC) == [1, 2]


@both_adapters
async def test_a_stalled_reader_is_closed(autojump_clock: MockClock, adapter: WebSocketAdapter) -> None:
    """Whoever takes nothing for write_stall_s is a slow consumer, pings or not; if it recovers, it reads so."""
    log = log_of(TOPIC, 2_000, payload=b"p" * 1_000)
    async with open_node(log) as node:
        transport = SimulatedTransport(buffer_bytes=10_000)
        client = await follow_by_socket(node, adapter, TOPIC, transport=transport)
        for _ in range(11):
            client.send(client_frame(PING))
            await trio.sleep(1)
        for _ in range(200):
            client.read(10_000)
            await node.settle()
        assert client.take(ErrorMessage).code == "slow_consumer"
        assert client.close_code == reason_codes.SLOW_CONSUMER.close_code


@both_adapters
async def test_nothing_is_read_ahead(autojump_clock: MockClock, adapter: WebSocketAdapter) -> None:
    """While the node does not want to read, what a client sends stays in the socket, up to one read of it."""
    async with open_node(limits=NodeLimits(client_messages_burst=FLOOD * 2)) as node:
        client = await follow_by_socket(node, adapter)
        client.read()
        client.transport.stall()
        client.send(client_frame(PING, bytes(125)) * FLOOD)
        await node.settle()
        unread = len(client.transport._incoming)
        assert unread > FLOOD * 131 - 100_000


# -- the upgrade -------------------------------------------------------------------------------------


@both_adapters
async def test_a_request_in_any_pieces(autojump_clock: MockClock, adapter: WebSocketAdapter) -> None:
    """Cut anywhere; and what is sent right behind it, before the answer, is not lost."""
    log = log_of(TOPIC, 1)
    request = upgrade_request()
    for cut in (*range(1, len(request), 7), len(request) - 3, len(request) - 2, len(request) - 1):
        async with open_node(log) as node:
            client = open_socket_client(node, adapter, request=request[:cut])
            await node.settle()
            client.send(request[cut:])
            client.say(hello_with(node.grant(TOPIC)))
            client.subscribe(TOPIC)
            await node.settle()
            assert client.seqs(TOPIC) == [1]


BAD_REQUESTS = {
    "no key": upgrade_request("Sec-WebSocket-Key"),
    "short key": upgrade_request("Sec-WebSocket-Key: eHg="),
    "key that is no base64": upgrade_request("Sec-WebSocket-Key: \udcff"),
    "another version": upgrade_request("Sec-WebSocket-Version: 8"),
    "no version": upgrade_request("Sec-WebSocket-Version"),
    "no upgrade": upgrade_request("Upgrade"),
    "no connection": upgrade_request("Connection"),
    "no bytes of ASCII": upgrade_request("Connection: Upgrade, \udcff"),
    "a subprotocol that is no ASCII": upgrade_request("Sec-WebSocket-Protocol: khala.v1, \udcff"),
    "no subprotocol of ours": upgrade_request(subprotocol="chat"),
    "a body": upgrade_request("Content-Length: 5") + b"hello",
    "a body that does not come": upgrade_request("Content-Length: 5"),
    "chunks": upgrade_request("Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "another method": upgrade_request(line="POST /sync/v1/ws HTTP/1.1"),
    "another path": upgrade_request(line="GET / HTTP/1.1"),
    "a parameter": upgrade_request(line="GET /sync/v1/ws?token=t HTTP/1.1"),
    "an address without an end": upgrade_request(line="GET //[x HTTP/1.1"),
    "another origin": upgrade_request("Origin: https://evil.example"),
    "an origin that is no ASCII": upgrade_request("Origin: \udcff"),
    "any bytes": bytes(range(256)) + b"\r\n\r\n",
    "a TLS client hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\n\n" + bytes(100),
    "nothing": b"\r\n\r\n",
    "a head of 40 KB": upgrade_request("X: " + "y" * 40_000),
}


@both_adapters
@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_a_bad_request(autojump_clock: MockClock, adapter: WebSocketAdapter, name: str) -> None:
    """KH-21: an HTTP refusal, the end, and no crash; a neighbour misses nothing."""
    log = log_of(TOPIC, 1)
    async with open_node(log) as node:
        neighbour = await follow_by_socket(node, adapter, TOPIC)
        client = open_socket_client(node, adapter, request=BAD_REQUESTS[name])
        await node.settle()
        assert not client.is_served
        assert client.transport.take().startswith(b"HTTP/1.1 4")
        assert client.transport.is_aborted
        await node.commit(log)
        assert neighbour.seqs(TOPIC) == [1, 2]


@both_adapters
@pytest.mark.parametrize("said", [b"", b"GET /sync", upgrade_request()[:-2]])
async def test_an_end_before_the_request(
    autojump_clock: MockClock, adapter: WebSocketAdapter, said: bytes
) -> None:
    """The end of the stream ends the connection at once, not at the hello deadline."""
    async with open_node() as node:
        client = open_socket_client(node, adapter, request=said)
        client.transport.feed_eof()
        await node.settle()
        assert not client.is_served
        assert client.transport.take() == b""


@both_adapters
async def test_no_request_in_time(autojump_clock: MockClock, adapter: WebSocketAdapter) -> None:
    """Slowloris: a head that grows by a byte a second is dropped at hello_timeout_s."""
    async with open_node() as node:
        client = open_socket_client(node, adapter, request=b"G")
        for letter in b"ET /s":
            assert client.is_served
            client.send(bytes((letter,)))
            await trio.sleep(1)
        await trio.sleep(0.1)
        assert not client.is_served


@both_adapters
async def test_many_cycles_leave_nothing(autojump_clock: MockClock, adapter: WebSocketAdapter) -> None:
    """However connections end, no task of theirs outlives them."""
    endings: tuple[Callable[[SocketClient], None], ...] = (
        lambda client: client.send(client_frame(CLOSE, close_payload(1000))),
        lambda client: client.send(client_frame(BINARY, b"x", mask=None)),
        lambda client: client.transport.reset(),
        lambda client: client.transport.feed_eof(),
        lambda client: client.send(client_frame(BINARY, b"\xff\xff") + client_frame(CLOSE)),
    )
    async with open_node(log_of(TOPIC, 3)) as node:
        tasks = trio.lowlevel.current_statistics().tasks_living
        for number in range(50):
            client = await follow_by_socket(node, adapter, TOPIC)
            endings[number % len(endings)](client)
            await node.settle()
            assert not client.is_served
        await trio.sleep(node.limits.topic_linger_s + 1)
        assert trio.lowlevel.current_statistics().tasks_living <= tasks


async def test_tasks_of_an_idle_connection(autojump_clock: MockClock) -> None:
    """One with the default adapter; the other library has a reader of its own, and its host."""
    counts = {}
    for adapter in ADAPTERS:
        async with open_node() as node:
            before = trio.lowlevel.current_statistics().tasks_living
            await follow_by_socket(node, adapter)
            counts[adapter] = trio.lowlevel.current_statistics().tasks_living - before
    assert counts == {"websockets": 1, "trio_websocket": 3}


@both_adapters
@pytest.mark.parametrize(
    "leaving", [client_frame(CLOSE, close_payload(1001)), client_frame(BINARY, b"\xff\xff")]
)
async def test_a_client_that_leaves_during_its_hello(
    autojump_clock: MockClock, adapter: WebSocketAdapter, leaving: bytes
) -> None:
    """Closed, or refused, while control is asked: nobody is welcomed, and nothing crashes."""
    async with open_node() as node:
        node.control.delay_s = 0.5
        client = open_socket_client(node, adapter)
        client.say(hello_with(node.grant()))
        client.send(leaving)
        await trio.sleep(1)
        client.read()
        assert client.take_all(Welcome) == []
        assert client.close_code is not None
