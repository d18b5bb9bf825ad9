"""One connection at the socket: the handshake, the hello, and the order of bytes."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from khala.core.limits import NodeLimits
from khala.core.origin_policy import UpgradeRequest
from khala_contracts import reason_codes
from khala_contracts.codec import (
    ClientHeartbeat,
    ErrorMessage,
    FramesMessage,
    Hello,
    ReplayComplete,
    Subscribed,
    Unsubscribed,
    VersionRange,
    Welcome,
)
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import hello_with, open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.actors.khala.wire_transcript import Pong
from tests.topic_log import WALL_S, claims_for, run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

TOPIC, OTHER_TOPIC = run_topic(1), run_topic(2)
# Unsubscribed last by tests that want to know when all before it has been answered.
MARKER = run_topic(99)
ORIGIN = "https://app.example"


def up_to(seq: int) -> list[int]:
    """Seqs ``1 .. seq``."""
    return list(range(1, seq + 1))


# -- the handshake ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "accepted"),
    [
        (("khala.v1",), "khala.v1"),
        (("khala.v1.json",), "khala.v1.json"),
        (("khala.v1.json", "khala.v1"), "khala.v1"),
        (("other", "khala.v1.json"), "khala.v1.json"),
    ],
)
async def test_subprotocols(autojump_clock: MockClock, offered: tuple[str, ...], accepted: str) -> None:
    """Binary is preferred to JSON; what is not ours is passed over."""
    async with open_node() as node:
        client = node.open_client(peer_request=UpgradeRequest("/sync/v1/ws", "", ORIGIN, offered))
        await node.settle()
        assert client.peer.accepted == accepted
        assert client.connection.is_text is (accepted == "khala.v1.json")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (UpgradeRequest("/other", "", None, ("khala.v1",)), 404),
        (UpgradeRequest("/sync/v1/ws", "token=t", None, ("khala.v1",)), 400),
        (UpgradeRequest("/sync/v1/ws", "", "https://evil.example", ("khala.v1",)), 403),
        (UpgradeRequest("/sync/v1/ws", "", ORIGIN, ()), 400),
        (UpgradeRequest("/sync/v1/ws", "", ORIGIN, ("khala.v2",)), 400),
    ],
)
async def test_refused_before_the_upgrade(
    autojump_clock: MockClock, request_: UpgradeRequest, status: int
) -> None:
    """A refusal is an HTTP answer, then the end; no WebSocket is opened for it."""
    async with open_node() as node:
        client = node.open_client(peer_request=request_)
        await node.settle()
        assert client.peer.rejected is not None
        assert client.peer.rejected[0] == status
        assert client.peer.accepted is None
        client.read()
        assert client.transcript.http_head == b"HTTP/1.1 %d Refused" % status
        assert not client.is_served
        assert client.transport.is_aborted
        assert node.counters.handshakes_rejected == {str(status): 1}
        assert node.counters.handshakes_open == 0


async def test_no_upgrade_request_in_time(autojump_clock: MockClock) -> None:
    """Who opens the port without speaking is dropped after hello_timeout_s, without a WebSocket byte."""
    async with open_node() as node:
        client = node.open_client(peer_request=None)
        await trio.sleep(4.9)
        assert client.is_served
        await trio.sleep(0.5)
        assert not client.is_served
        assert client.transport.take() == b""
        assert node.counters.handshakes_open == 0


async def test_closed_before_the_upgrade(autojump_clock: MockClock) -> None:
    """A node that drains during the HTTP phase drops the socket: a close frame would be no HTTP."""
    async with open_node() as node:
        client = node.open_client(peer_request=None)
        await node.settle()
        client.connection.close(reason_codes.DRAINING)
        await node.settle()
        assert not client.is_served
        assert client.transport.take() == b""


# -- the hello ------------------------------------------------------------------------------------


async def test_welcome(autojump_clock: MockClock) -> None:
    """The welcome states the node, the limits and how long authority lasts."""
    async with open_node() as node:
        client = node.open_client()
        client.say(hello_with(node.grant()))
        await node.settle()
        welcome = client.take(Welcome)
        assert (welcome.connection_id, welcome.node_id) == ("con_1", "node-1")
        assert (welcome.protocol, welcome.schema) == (1, 1)
        assert welcome.token_expires_at_ms == (WALL_S + 300) * 1000
        assert welcome.server_time_ms == WALL_S * 1000
        assert welcome.heartbeat_interval_ms == 15_000
        assert attrs.asdict(welcome.limits) == {
            "inbound_message_max_bytes": 65_536,
            "client_messages_per_s": 100,
            "client_messages_burst": 600,
            "subscriptions_max": 256,
            "topics_per_subscribe_max": 64,
            "dead_after_ms": 45_000,
        }
        assert node.counters.welcomes == 1
        assert node.counters.handshakes_open == 0


async def test_commands_may_follow_the_hello_at_once(autojump_clock: MockClock) -> None:
    """A client need not wait for the welcome to send its subscribes; answers keep the order."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        node.control.delay_s = 0.5
        client = node.open_client()
        client.say(hello_with(node.grant(TOPIC)))
        client.subscribe(TOPIC)
        client.say(ClientHeartbeat())
        await trio.sleep(0.51)
        assert [type(message) for message in client.read()] == [
            Welcome,
            Subscribed,
            FramesMessage,
            ReplayComplete,
        ]


def _hello(**changes: Any) -> Hello:
    return attrs.evolve(hello_with("token-1"), **changes)


@pytest.mark.parametrize(
    ("hello", "code", "close_code"),
    [
        (_hello(token="unknown"), "token_invalid", 4502),
        (_hello(device_id="dev_00000009"), "token_invalid", 4502),
        (_hello(token=None, ticket="t"), "token_invalid", 4502),
        (_hello(protocol=VersionRange(2, 9)), "upgrade_required", 4504),
        (_hello(schema=VersionRange(2, 9)), "upgrade_required", 4504),
    ],
)
async def test_refused_hello(autojump_clock: MockClock, hello: Hello, code: str, close_code: int) -> None:
    """The error comes before the close; the token was not spent and opens a connection afterwards."""
    async with open_node() as node:
        token = node.grant()
        assert token == "token-1"
        client = node.open_client()
        client.say(hello)
        await node.settle()
        assert client.take(ErrorMessage).code == code
        assert client.close_code == close_code
        assert node.counters.hellos_refused == {code: 1}
        assert node.control.spent == {}
        await node.settle()
        assert not client.is_served
        again = node.open_client()
        again.say(hello_with(token))
        await node.settle()
        again.take(Welcome)


async def test_a_token_opens_one_connection(autojump_clock: MockClock) -> None:
    """The second use is token_replayed; the first connection stays."""
    async with open_node() as node:
        token = node.grant()
        first, second = node.open_client(), node.open_client()
        first.say(hello_with(token))
        await node.settle()
        second.say(hello_with(token))
        await node.settle()
        first.take(Welcome)
        assert (second.take(ErrorMessage).code, second.close_code) == ("token_replayed", 4502)
        assert first.close_code is None


async def test_a_revoked_session(autojump_clock: MockClock) -> None:
    """Control's refusal at redeem is what the client is told."""
    async with open_node() as node:
        node.control.revoked.add(claims_for().session_id)
        client = node.open_client()
        client.say(hello_with(node.grant()))
        await node.settle()
        assert (client.take(ErrorMessage).code, client.close_code) == ("reauth_required", 4501)


@pytest.mark.parametrize(("part", "after_ms"), [("tokens", 2000), ("control", 3000)])
async def test_control_is_down(autojump_clock: MockClock, part: str, after_ms: int) -> None:
    """Trouble is ``unavailable`` with a time, never a verdict about the token."""
    async with open_node() as node:
        {"tokens": node.tokens, "control": node.control}[part].is_down = True  # type: ignore[attr-defined]
        client = node.open_client()
        client.say(hello_with(node.grant()))
        await node.settle()
        error = client.take(ErrorMessage)
        assert (error.code, client.close_code) == ("unavailable", 4004)
        assert error.retryable
        assert error.retry_after_ms == after_ms
        assert node.control.spent == {}


@pytest.mark.parametrize("is_authenticating", [False, True])
async def test_no_welcome_in_time(autojump_clock: MockClock, is_authenticating: bool) -> None:
    """hello_timeout after 5 s, whether the client does not speak or control does not answer."""
    async with open_node() as node:
        node.control.delay_s = 100
        client = node.open_client()
        await node.settle()
        if is_authenticating:
            client.say(hello_with(node.grant()))
        await trio.sleep(4.9)
        assert client.close_code is None
        await trio.sleep(0.4)
        assert (client.take(ErrorMessage).code, client.close_code) == ("hello_timeout", 4007)
        await trio.sleep(2)
        assert not client.is_served


# -- the order of bytes ---------------------------------------------------------------------------------


async def test_remainder_then_control_then_topics(autojump_clock: MockClock) -> None:
    """With a full socket: the begun chunk ends first, then every control message, then frames."""
    log = log_of(TOPIC, 200, payload=bytes(1_000))
    async with open_node(log) as node:
        transport = SimulatedTransport(buffer_bytes=10_000)
        client = await node.follow(TOPIC, transport=transport)
        await trio.sleep(0.01)
        client.peer.ping(b"1")
        client.peer.ping(b"2")
        client.unsubscribe(OTHER_TOPIC)
        await node.settle()
        order: list[type] = []
        while len(order) < 6:
            order += [type(message) for message in client.read()]
            await node.settle()
        assert order[:6] == [Subscribed, FramesMessage, Pong, Pong, Unsubscribed, FramesMessage]


async def test_a_pong_waits_for_one_chunk_at_most(autojump_clock: MockClock) -> None:
    """A ping during a long replay is answered after the chunk that has begun, not after the replay."""
    log = log_of(TOPIC, 2_000, payload=bytes(1_000))
    async with open_node(log) as node:
        client = await node.follow(TOPIC, transport=SimulatedTransport(buffer_bytes=10_000))
        await trio.sleep(0.01)
        client.peer.ping(b"p")
        await node.settle()
        taken = 0
        while not client.take_all(Pong):
            taken += 10_000
            await node.settle()
        assert taken <= 10_000 + node.limits.chunk_max_bytes + 10_000


async def test_chunks_are_bounded(autojump_clock: MockClock) -> None:
    """INV-7: a data message is at most one chunk, unless a single frame is larger."""
    log = log_of(TOPIC, 300, payload=bytes(1_000))
    log.append(1, payload=bytes(200 * 1024))
    log.append(10, payload=bytes(1_000))
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        await trio.sleep(0.1)
        messages = client.take_all(FramesMessage)
        sizes = [sum(len(frame.payload) for frame in message.frames) for message in messages]
        assert sum(sizes) == 310_000 + 200 * 1024
        assert [size for size in sizes if size > node.limits.chunk_max_bytes] == [200 * 1024]


async def test_a_quiet_topic_is_not_starved(autojump_clock: MockClock) -> None:
    """KH-17: one frame against 5,000 on the same connection comes within two rounds of quanta."""
    hot = log_of(TOPIC, 5_000, payload=bytes(200))
    quiet = log_of(OTHER_TOPIC, 0)
    async with open_node(hot, quiet) as node:
        client = await node.connect(TOPIC, OTHER_TOPIC, transport=SimulatedTransport(buffer_bytes=4_096))
        client.subscribe(OTHER_TOPIC)
        await node.settle()
        client.take(ReplayComplete)
        client.subscribe(TOPIC)
        await trio.sleep(0.01)
        client.read()
        await node.settle()
        await node.commit(quiet)
        hot_frames = 0
        while True:
            frames = [f for m in client.take_all(FramesMessage) for f in m.frames]
            hot_frames += sum(frame.topic == TOPIC.name for frame in frames)
            if any(frame.topic == OTHER_TOPIC.name for frame in frames):
                break
            await node.settle()
        # The chunk that had begun (64 KiB, alone until now), then at most one more turn.
        assert hot_frames * 200 <= 2 * node.limits.chunk_max_bytes


@pytest.mark.parametrize("is_text", [False, True])
@pytest.mark.parametrize("seed", range(6))
async def test_any_short_writes(autojump_clock: MockClock, seed: int, is_text: bool) -> None:
    """INV-3: whatever the kernel takes, and whenever the client reads, the stream is whole and in order.

    The transcript parses every byte: a pong inside a frame, a frame after ``unsubscribed`` or a gap
    would not pass. Large and small frames, pings, unsubscribes and stalls at random.
    """
    rng = random.Random(seed)
    topics = [run_topic(number) for number in range(1, 6)]
    logs = [log_of(topic, rng.choice((0, 10, 600)), payload=bytes(rng.choice((1, 300)))) for topic in topics]
    limits = NodeLimits(window_max_frames=64, client_messages_burst=10_000)
    async with open_node(*logs, limits=limits) as node:
        node.journal.page_max_frames = 100
        transport = SimulatedTransport(buffer_bytes=rng.choice((3_000, 70_000)), rng=rng)
        client = await node.connect(*topics, transport=transport, is_text=is_text)
        client.subscribe(*topics)
        pings = 0
        for _ in range(150):
            log = rng.choice(logs)
            await node.commit(log, rng.randint(1, 5), payload=bytes(rng.choice((1, 300, 40_000))))
            action = rng.random()
            if action < 0.1:
                client.peer.ping(b"%d" % pings)
                pings += 1
            elif action < 0.15:
                client.unsubscribe(log.topic)
            elif action < 0.25:
                client.subscribe(log.topic)
            elif action < 0.3:
                transport.stall()
            elif action < 0.4:
                transport.resume()
            client.read(rng.choice((0, 1, 1_000, 100_000)))
        transport.resume()
        client.subscribe(*topics)
        client.unsubscribe(MARKER)
        is_answered = False
        while not is_answered or any(client.position(log.topic) != log.head_seq for log in logs):
            await node.settle()
            if not client.read(100_000) and not client.transcript.has_partial_frame:
                await trio.sleep(0.05)
            is_answered |= any(ack.topic == MARKER.name for ack in client.take_all(Unsubscribed))
            assert trio.current_time() < 40
        for log in logs:
            followed = client.transcript.topics[log.topic.name]
            assert (followed.position, followed.chain) == (log.head_seq, log.chains[log.head_seq])
            assert client.is_live(log.topic)
        assert [pong.payload for pong in client.take_all(Pong)] == [b"%d" % n for n in range(pings)]


async def test_json_and_binary_receive_the_same(autojump_clock: MockClock) -> None:
    """Both subprotocols: the same frames, the same chain, from replay and live."""
    log = log_of(TOPIC, 10, payload=bytes(range(256)))
    async with open_node(log) as node:
        clients = [await node.follow(TOPIC, is_text=is_text) for is_text in (False, True, True)]
        await node.commit(log, 3, payload=b'\x00\xff"\\')
        for client in clients:
            assert client.seqs(TOPIC) == up_to(13)
            assert client.transcript.topics[TOPIC.name].chain == log.chains[13]


async def test_json_after_a_full_socket(autojump_clock: MockClock) -> None:
    """A text connection is never on the direct path, not even once its writer has drained."""
    log = log_of(TOPIC, 1)
    async with open_node(log) as node:
        transport = SimulatedTransport()
        client = await node.follow(TOPIC, transport=transport, is_text=True)
        for _ in range(3):
            transport.stall()
            await node.commit(log)
            transport.resume()
            await node.settle()
            await node.commit(log)
            assert client.connection.outbound.direct is None
        assert client.seqs(TOPIC) == up_to(7)


async def test_an_idle_connection_has_one_task(autojump_clock: MockClock) -> None:
    """No writer, no command runner and no timer for a connection that has nothing to do."""
    log = log_of(TOPIC, 10)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        await node.commit(log)
        nursery = client.connection._nursery
        assert nursery is not None
        assert len(nursery.child_tasks) == 0
        assert client.connection.outbound.direct is not None


# -- backpressure ------------------------------------------------------------------------------------------


async def test_the_reader_stops_while_its_answers_are_not_taken(autojump_clock: MockClock) -> None:
    """INV-7: pings of a client that does not read are not read either, beyond a quarter of the lane."""
    async with open_node() as node:
        transport = SimulatedTransport()
        client = await node.connect(transport=transport)
        transport.stall()
        for number in range(500):
            client.peer.ping(b"%03d" % number)
        await node.settle()
        assert client.peer.messages_read < 140
        transport.resume()
        await node.settle()
        assert [pong.payload for pong in client.take_all(Pong)] == [b"%03d" % n for n in range(500)]


async def test_the_reader_goes_on_during_a_long_replay(autojump_clock: MockClock) -> None:
    """Once the lane is taken the reader reads, though frames still wait; it does not wait for the end."""
    log = log_of(TOPIC, 5_000, payload=bytes(1_000))
    async with open_node(log) as node:
        transport = SimulatedTransport(buffer_bytes=8_192)
        client = await node.follow(TOPIC, transport=transport)
        await trio.sleep(0.01)
        for number in range(300):
            client.peer.ping(b"%03d" % number)
        await node.settle()
        taken = 0
        while client.peer.messages_read < 302 and taken < 400_000:
            taken += 8_192
            client.read()
            await node.settle()
        assert taken < 400_000
        assert not client.is_live(TOPIC)


@pytest.mark.parametrize("is_text", [False, True])
async def test_many_subscribes_of_a_client_that_reads_slowly(
    autojump_clock: MockClock, is_text: bool
) -> None:
    """256 subscribes sent at once over a slow link: the answers wait, nobody is a slow consumer."""
    topics = [run_topic(number) for number in range(256)]
    logs = [log_of(topic, 20, payload=bytes(300)) for topic in topics]
    async with open_node(*logs) as node:
        transport = SimulatedTransport(buffer_bytes=4_096)
        client = node.open_client(transport=transport, is_text=is_text)
        client.say(hello_with(node.grant(*topics)))
        await node.settle()
        for first in range(0, 256, 16):
            client.subscribe(*topics[first : first + 16])
        for _ in range(2_000):
            await node.settle()
            client.read()
            if len(client.transcript.topics) == 256 and all(map(client.is_live, topics)):
                break
            await trio.sleep(0.001)
        assert client.close_code is None
        assert all(client.seqs(topic) == up_to(20) for topic in topics)
