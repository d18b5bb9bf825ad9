"""How connections end: always with a reason, never with a frame after it, and nothing is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from khala.actors.connection import COMMANDS_MAX
from khala.core.limits import NodeLimits
from khala.core.protocol import Phase
from khala_contracts import reason_codes
from khala_contracts.codec import (
    ClientHeartbeat,
    ErrorMessage,
    FramesMessage,
    encode_client_message,
    encode_varint,
)
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import hello_with, open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.actors.khala.node_under_test import ClientUnderTest, NodeUnderTest

TOPIC, OTHER_TOPIC = run_topic(1), run_topic(2)


def up_to(seq: int) -> list[int]:
    """Seqs ``1 .. seq``."""
    return list(range(1, seq + 1))


def assert_nothing_is_left(node: NodeUnderTest, client: ClientUnderTest) -> None:
    """No subscription, byte, page or task of this connection is left, and it ended once."""
    assert not client.is_served
    assert client.transport.is_aborted
    assert client.connection.subscriptions == {}
    assert node.counters.subscriptions_open == 0
    assert node.counters.handshakes_open == 0
    assert not client.connection.outbound.waiting_bytes
    assert client.connection.outbound.waiting_topics == 0
    assert node.pages.held_bytes == 0
    assert all(not topic.subscriptions for topic in node.registry._topics.values())
    assert sum(node.counters.closes.values()) == 1


# -- what the client does wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (encode_client_message(hello_with("t")), "protocol_error"),
        (encode_varint(15 << 3 | 2) + b"\x03abc", "authority_write_forbidden"),
        (b"\xff\xff\xff", "malformed_message"),
        ("text", "malformed_message"),
    ],
)
async def test_misuse(autojump_clock: MockClock, data: bytes | str, code: str) -> None:
    """Hello twice, a command, rubbish, the wrong kind: the error, then close 4500, then nothing."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        client.peer.say(data)
        await node.settle()
        assert client.take(ErrorMessage).code == code
        assert client.close_code == 4500
        await node.commit(log)
        await trio.sleep(3)
        assert_nothing_is_left(node, client)


@pytest.mark.parametrize("count", [600, 601])
async def test_too_many_messages(autojump_clock: MockClock, count: int) -> None:
    """A burst of 600 client messages is taken (the hello is one of them), 601 are rate_limited."""
    async with open_node() as node:
        client = await node.connect()
        for number in range(count - 1):
            if number % 2:
                client.peer.ping()
            else:
                client.say(ClientHeartbeat())
        await node.settle()
        assert client.close_code == (None if count == 600 else 4003)
        # The time in which the rate regains the burst.
        waits = [error.retry_after_ms for error in client.take_all(ErrorMessage)]
        assert waits == ([] if count == 600 else [6_000])


async def test_first_message_is_no_hello(autojump_clock: MockClock) -> None:
    """Anything before the hello is protocol_error; the topic it named is never asked about."""
    async with open_node(log_of(TOPIC, 1)) as node:
        client = node.open_client()
        client.subscribe(TOPIC)
        await node.settle()
        assert (client.take(ErrorMessage).code, client.close_code) == ("protocol_error", 4500)
        assert node.journal.reads["observe"] == 0
        await node.settle()
        assert_nothing_is_left(node, client)


# -- clients that take nothing ---------------------------------------------------------------------------


async def test_a_stalled_client_is_closed(autojump_clock: MockClock) -> None:
    """KH-18: the kernel takes nothing for 10 s: slow_consumer, once; nobody else notices."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        transport = SimulatedTransport()
        stalled = await node.follow(TOPIC, transport=transport)
        other = await node.follow(TOPIC)
        stalled.read()
        transport.stall()
        await node.commit(log)
        began = trio.current_time()
        for _ in range(9):
            await trio.sleep(1)
            await node.commit(log)
        await trio.sleep(0.9)
        assert stalled.connection.closed_with is None
        await trio.sleep(0.4)
        assert stalled.connection.closed_with is reason_codes.SLOW_CONSUMER
        assert trio.current_time() - began < 10.5
        assert node.counters.subscriptions_open == 1
        assert other.seqs(TOPIC) == up_to(13)
        await trio.sleep(2.5)
        assert not stalled.is_served
        assert node.counters.slow_consumer_actions == {"throttle": 1, "disconnect": 1}
        assert node.counters.closes == {"slow_consumer": 1}
        # The node has kept nothing for it but the one remainder that it could not send.
        other.unsubscribe(TOPIC)
        await node.settle()
        assert_nothing_is_left(node, stalled)


async def test_a_client_that_takes_a_little_is_not_stalled(autojump_clock: MockClock) -> None:
    """Progress, however small, is no stall: one byte in 9 s keeps the connection."""
    log = log_of(TOPIC, 50, payload=bytes(1_000))
    async with open_node(log) as node:
        client = await node.follow(TOPIC, transport=SimulatedTransport(buffer_bytes=100))
        for _ in range(20):
            client.peer.ping()
            await trio.sleep(9)
            client.read(1)
        assert client.close_code is None
        assert client.is_served


async def test_a_client_with_nothing_to_take_is_not_stalled(autojump_clock: MockClock) -> None:
    """An idle connection whose kernel would take nothing has no stall."""
    async with open_node(log_of(TOPIC, 3)) as node:
        transport = SimulatedTransport()
        client = await node.follow(TOPIC, transport=transport)
        client.read()
        transport.stall()
        await trio.sleep(14)
        assert client.connection.closed_with is None


async def test_the_close_reaches_a_client_that_recovers(autojump_clock: MockClock) -> None:
    """After the verdict the error and the close are sent if the client reads within close_timeout_s."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        transport = SimulatedTransport()
        client = await node.follow(TOPIC, transport=transport)
        transport.stall()
        await node.commit(log)
        await trio.sleep(10.3)
        transport.resume()
        await trio.sleep(0.1)
        assert client.seqs(TOPIC) == up_to(4)
        assert (client.take(ErrorMessage).code, client.close_code) == ("slow_consumer", 4001)
        assert_nothing_is_left(node, client)


async def test_a_full_control_lane(autojump_clock: MockClock) -> None:
    """INV-7: answers that pile up beyond the lane end the connection as slow_consumer."""
    limits = NodeLimits(control_lane_max_messages=8, write_stall_timeout_s=1_000)
    logs = [log_of(run_topic(number), 0) for number in range(16)]
    async with open_node(*logs, limits=limits) as node:
        transport = SimulatedTransport()
        client = await node.connect(*(log.topic for log in logs), transport=transport)
        transport.stall()
        client.subscribe(*(log.topic for log in logs))
        await node.settle()
        assert client.connection.closed_with is reason_codes.SLOW_CONSUMER
        assert node.counters.slow_consumer_actions == {"disconnect": 1}
        assert node.counters.subscriptions_open == 0
        transport.resume()
        await node.settle()
        assert client.close_code == 4001
        assert_nothing_is_left(node, client)


async def test_a_stalled_client_costs_constant_memory(autojump_clock: MockClock) -> None:
    """INV-7: while it stalls, what is held for it alone does not grow with what it misses."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        transport = SimulatedTransport()
        client = await node.follow(TOPIC, transport=transport)
        transport.stall()
        await node.commit(log, payload=bytes(1_000))
        held = client.connection.outbound.waiting_bytes
        for _ in range(500):
            await node.commit(log, payload=bytes(1_000))
        assert client.connection.outbound.waiting_bytes == held
        transport.resume()
        await node.settle()
        assert client.seqs(TOPIC) == up_to(504)


# -- clients that leave ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1007, 1009])
async def test_the_client_closes(autojump_clock: MockClock, code: int) -> None:
    """A close, or broken framing: answered once, nothing after it, nothing left."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        client.peer.leave(code)
        await node.settle()
        await node.commit(log)
        assert client.close_code == code
        assert node.counters.closes == {str(code): 1}
        assert_nothing_is_left(node, client)


async def test_the_client_closes_during_a_replay(autojump_clock: MockClock) -> None:
    """With a full socket: the begun chunk ends, the close follows, and no further frame is begun."""
    log = log_of(TOPIC, 2_000, payload=bytes(1_000))
    async with open_node(log) as node:
        client = await node.follow(TOPIC, transport=SimulatedTransport(buffer_bytes=10_000))
        client.peer.leave(1000)
        for _ in range(30):
            await node.settle()
            client.read()
        assert client.close_code == 1000
        assert not client.transcript.has_partial_frame
        frames = sum(len(message.frames) for message in client.take_all(FramesMessage))
        assert frames < 200
        assert_nothing_is_left(node, client)


async def test_the_client_closes_and_takes_nothing_more(autojump_clock: MockClock) -> None:
    """Its answer cannot be sent: dropped after close_timeout_s, without a crash."""
    log = log_of(TOPIC, 2_000, payload=bytes(1_000))
    async with open_node(log) as node:
        client = await node.follow(TOPIC, transport=SimulatedTransport(buffer_bytes=10_000))
        client.peer.leave(1000)
        await trio.sleep(1.9)
        assert client.is_served
        await trio.sleep(0.2)
        assert_nothing_is_left(node, client)


async def test_a_close_that_the_client_does_not_answer(autojump_clock: MockClock) -> None:
    """The closing handshake has close_timeout_s; then the socket is dropped."""
    async with open_node() as node:
        client = await node.connect()
        client.peer.answers_close = False
        client.peer.say(b"\xff")
        await node.settle()
        assert client.close_code == 4500
        await trio.sleep(1.9)
        assert client.is_served
        await trio.sleep(0.2)
        assert_nothing_is_left(node, client)


@pytest.mark.parametrize("found_by", ["reader", "topic", "control"])
async def test_the_socket_breaks(autojump_clock: MockClock, found_by: str) -> None:
    """A reset is found by the reader or by the next send; the topic's other subscribers go on."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        broken, other = await node.follow(TOPIC), await node.follow(TOPIC)
        broken.transport.reset()
        if found_by == "topic":
            await node.commit(log)
        elif found_by == "control":
            broken.unsubscribe(OTHER_TOPIC)
        else:
            broken.peer.vanish()
        await node.settle()
        assert not broken.is_served
        assert node.counters.closes == {"1006": 1}
        await node.commit(log)
        assert other.seqs(TOPIC) == up_to(log.head_seq)
        assert node.counters.subscriptions_open == 1


async def test_the_socket_breaks_while_a_writer_waits(autojump_clock: MockClock) -> None:
    """The writer finds it, and the connection ends without a word."""
    log = log_of(TOPIC, 2_000, payload=bytes(1_000))
    async with open_node(log) as node:
        client = await node.follow(TOPIC, transport=SimulatedTransport(buffer_bytes=10_000))
        client.transport.reset()
        await node.settle()
        assert_nothing_is_left(node, client)


async def test_a_client_that_leaves_while_its_topic_fans_out(autojump_clock: MockClock) -> None:
    """A connection on its way out takes no part any more; a topic that finds it full does not crash.

    Race: the nursery of a connection closes one step before its task goes on.
      client:  vanishes ............ nursery closed ............. subscriptions end
      topic:                                        socket full -> start a writer
    Without leaving the topics first, the writer would be started in a closed nursery.
    """
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        clients = [await node.follow(TOPIC) for _ in range(20)]
        for step in range(20):
            client = clients[step]
            client.transport.stall()
            client.peer.vanish()
            for _ in range(step // 2):
                await trio.lowlevel.checkpoint()
            record = log.append(1)
            await node.driver.publish(TOPIC.name, node.signer.seal(record))
        await node.settle()
        assert node.counters.task_restarts == {}
        assert node.counters.subscriptions_open == 0


async def test_cancelled_from_outside(autojump_clock: MockClock) -> None:
    """A cancelled connection drops its socket and leaves its topics."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        assert client.connection._nursery is not None
        client.connection._nursery.cancel_scope.cancel()
        await node.settle()
        assert not client.is_served
        assert client.transport.is_aborted
        assert node.counters.subscriptions_open == 0


# -- ends while something is in flight ----------------------------------------------------------------------


async def test_closed_while_the_journal_is_asked(autojump_clock: MockClock) -> None:
    """A subscribe whose answer comes after the close starts nothing: no frame follows the close."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        client = await node.connect(TOPIC)
        node.journal.hold("observe")
        client.subscribe(TOPIC)
        await node.settle()
        client.peer.answers_close = False
        client.connection.close(reason_codes.DRAINING)
        node.journal.open_gate("observe")
        await node.settle()
        await node.commit(log)
        assert client.close_code == 4000
        assert node.counters.subscriptions_open == 0
        await trio.sleep(2.1)
        assert_nothing_is_left(node, client)


async def test_commands_behind_the_one_that_ends_it_are_not_run(autojump_clock: MockClock) -> None:
    """What was queued behind a refused hello is never asked of the journal."""
    async with open_node(log_of(TOPIC, 3)) as node:
        client = node.open_client()
        client.say(hello_with("unknown"))
        client.subscribe(TOPIC)
        client.subscribe(OTHER_TOPIC)
        await node.settle()
        assert client.close_code == 4502
        assert node.journal.reads["observe"] == 0


async def test_messages_during_the_close_are_ignored(autojump_clock: MockClock) -> None:
    """Between our close and the client's answer nothing that it says counts."""
    async with open_node(log_of(TOPIC, 3)) as node:
        client = await node.connect(TOPIC)
        client.peer.answers_close = False
        client.connection.close(reason_codes.DRAINING)
        client.subscribe(TOPIC)
        client.peer.say(b"\xff")
        await node.settle()
        assert client.connection.phase is Phase.CLOSING
        assert client.connection.closed_with is reason_codes.DRAINING
        assert node.journal.reads["observe"] == 0
        assert client.close_code == 4000


async def test_closing_twice_says_the_first_reason(autojump_clock: MockClock) -> None:
    """One error, one close; the first reason stands."""
    async with open_node() as node:
        client = await node.connect()
        client.connection.close(reason_codes.DRAINING)
        client.connection.close(reason_codes.INTERNAL)
        await node.settle()
        assert (client.take(ErrorMessage).code, client.close_code) == ("draining", 4000)
        assert_nothing_is_left(node, client)


async def test_we_do_not_read_and_it_is_not_dead(autojump_clock: MockClock) -> None:
    """A client whose commands wait for the journal is not read, and not taken for dead because of that."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        client = await node.connect(TOPIC)
        node.journal.hold("observe")
        for _ in range(COMMANDS_MAX + 2):
            client.subscribe(TOPIC)
        await node.settle()
        read = client.peer.messages_read
        for _ in range(12):
            client.say(ClientHeartbeat())
            await trio.sleep(10)
        assert client.peer.messages_read == read  # nothing of it was heard
        assert client.close_code is None
        node.journal.open_gate("observe")
        await node.settle()
        assert client.seqs(TOPIC) == [1, 2, 3]
        # From here on it counts again.
        await trio.sleep(44.5)
        assert client.close_code is None
        await trio.sleep(1)
        assert client.close_code == 4002
