"""KH-10, INV-36: a node that leaves tells everybody when to return, serves until then, flushes and closes 4000."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from khala.core.departures import Departure
from khala.core.limits import NodeLimits
from khala_contracts.codec import ClientHeartbeat, ErrorMessage, GoAway, encode_client_message
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.listener_under_test import open_listener
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.actors.khala.wire_transcript import WireTranscript
from tests.topic_log import run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from khala_contracts.codec import ServerMessage
    from tests.actors.khala.wire_transcript import Close, Pong

TOPIC = run_topic(1)


def heard(transport: SimulatedTransport) -> tuple[list[ServerMessage | Pong | Close], int | None]:
    """Return what a client was told since its upgrade, and the code of its close."""
    transcript = WireTranscript()
    return transcript.feed(transport.take()), transcript.closed_with


async def test_everybody_is_told_and_returns_at_a_turn(autojump_clock: MockClock) -> None:
    """Each is told its own time, is connected until then, and is closed with 4000 at that moment; then serving ends."""
    async with open_listener(NodeLimits(drain_return_per_s=2.0)) as under_test:
        clients = [await under_test.connect() for _ in range(3)]
        under_test.drain.set()
        await wait_all_tasks_blocked()
        for number, client in enumerate(clients):
            (go_away,), closed_with = heard(client)
            after_ms = 250 + 500 * number
            assert go_away == GoAway(after_ms, after_ms)
            assert closed_with is None
        for number, client in enumerate(clients):
            await trio.sleep_until(0.24 + 0.5 * number)
            assert client.take() == b""
            await trio.sleep_until(0.26 + 0.5 * number)
            (error,), closed_with = read_on(client)
            assert isinstance(error, ErrorMessage)
            assert (error.code, error.retry_after_ms, closed_with) == ("draining", 0, 4000)
            assert client.is_aborted
        assert under_test.has_returned
        assert under_test.counters.go_aways == 3
        assert under_test.counters.closes == {"draining": 3}
        # Nobody is accepted any more.
        assert (await under_test.connect()).take() == b""


def read_on(transport: SimulatedTransport) -> tuple[list[ServerMessage | Pong | Close], int | None]:
    """Read a client that has read its upgrade before."""
    transcript = WireTranscript(http_head=b"read before")
    messages = transcript.feed(transport.take())
    return [
        message for message in messages if isinstance(message, ErrorMessage | GoAway)
    ], transcript.closed_with


async def test_who_leaves_by_itself_is_not_waited_for(autojump_clock: MockClock) -> None:
    """The node is gone when its last client is, not when the last turn comes."""
    async with open_listener(NodeLimits(drain_return_per_s=0.1)) as under_test:
        clients = [await under_test.connect() for _ in range(3)]
        under_test.drain.set()
        await trio.sleep(1)
        for client in clients:
            under_test.peers[client].leave(1000)
        await wait_all_tasks_blocked()
        assert under_test.has_returned
        assert trio.current_time() == 1
        assert under_test.counters.closes == {"1000": 3}


async def test_a_node_without_clients_leaves_at_once(autojump_clock: MockClock) -> None:
    """There is nobody to wait for."""
    async with open_listener() as under_test:
        under_test.drain.set()
        await wait_all_tasks_blocked()
        assert under_test.has_returned
        assert trio.current_time() == 0


async def test_more_clients_than_the_drain_has_turns(autojump_clock: MockClock) -> None:
    """Whose turn lies behind the last call is closed at it, and told to come back at its turn all the same."""
    limits = NodeLimits(
        drain_return_per_s=1.0, drain_timeout_s=10.0, close_timeout_s=1.0, admission_burst=100
    )
    async with open_listener(limits) as under_test:
        clients = [await under_test.connect() for _ in range(20)]
        under_test.drain.set()
        await wait_all_tasks_blocked()
        told = [heard(client)[0][0] for client in clients]
        assert [go_away.reconnect_after_ms for go_away in told if isinstance(go_away, GoAway)] == [
            500 + 1_000 * number for number in range(20)
        ]
        assert [go_away.deadline_ms for go_away in told if isinstance(go_away, GoAway)] == [
            min(500 + 1_000 * number, 7_000) for number in range(20)
        ]
        await trio.sleep_until(7.1)
        assert under_test.has_returned
        (error,), closed_with = read_on(clients[-1])
        assert isinstance(error, ErrorMessage)
        assert (error.code, error.retry_after_ms, closed_with) == ("draining", 12_500, 4000)


async def test_accepted_but_not_begun(autojump_clock: MockClock) -> None:
    """Who was accepted in the step before the drain, or waits in the backlog, is told as soon as it can be."""
    async with open_listener(NodeLimits(admission_burst=1_000)) as under_test:
        await wait_all_tasks_blocked()
        early = [under_test.acceptor.connect() for _ in range(40)]
        # Some of them are accepted, and none served, when the drain begins.
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        late = [under_test.acceptor.connect() for _ in range(5)]
        under_test.drain.set()
        await trio.sleep(0.5)
        for client in (*early, *late):
            messages, closed_with = heard(client)
            assert isinstance(messages[0], ErrorMessage)
            assert (messages[0].code, closed_with) == ("draining", 4000)
        assert under_test.has_returned
        assert under_test.counters.hellos_refused == {"draining": 45}


async def test_who_has_not_said_hello_is_told_when(autojump_clock: MockClock) -> None:
    """Before the welcome only an error may come: it has the time, and the token is unspent."""
    async with open_listener(NodeLimits(drain_return_per_s=0.5)) as under_test:
        welcome = await under_test.connect()
        silent = await under_test.connect(says_hello=False)
        under_test.drain.set()
        await wait_all_tasks_blocked()
        (error, *_), closed_with = heard(silent)
        assert isinstance(error, ErrorMessage)
        assert (error.code, error.retry_after_ms, closed_with) == ("draining", 3_000, 4000)
        assert not welcome.is_aborted


async def test_who_never_asks_for_the_upgrade_is_dropped(autojump_clock: MockClock) -> None:
    """Nothing can be said to it in WebSocket frames: it holds the drain up for close_timeout_s."""
    async with open_listener(NodeLimits(close_timeout_s=2.0)) as under_test:
        transport = under_test.acceptor.connect()
        under_test.requests[0] = None
        await wait_all_tasks_blocked()
        under_test.drain.set()
        await trio.sleep(1.9)
        assert not under_test.has_returned
        await trio.sleep(0.2)
        assert transport.is_aborted
        assert under_test.has_returned


async def test_clients_that_do_not_leave(autojump_clock: MockClock) -> None:
    """Who neither reads nor answers holds the drain up for two close_timeout_s: the flush, and the handshake."""
    async with open_listener(NodeLimits(close_timeout_s=2.0)) as under_test:
        stubborn = await under_test.connect()
        stubborn.stall()
        under_test.peers[stubborn].answers_close = False
        under_test.drain.set()
        await trio.sleep(3.9)
        assert not under_test.has_returned
        await trio.sleep(0.2)
        assert under_test.has_returned
        assert stubborn.is_aborted


async def test_a_drain_has_a_deadline(autojump_clock: MockClock) -> None:
    """Whatever holds a connection, serving ends drain_timeout_s after the drain began."""
    limits = NodeLimits(drain_timeout_s=3.0, close_timeout_s=1_000.0)
    async with open_listener(limits) as under_test:
        stubborn = await under_test.connect()
        under_test.peers[stubborn].answers_close = False
        under_test.drain.set()
        await trio.sleep(2.9)
        assert not under_test.has_returned
        await trio.sleep(0.2)
        assert under_test.has_returned


async def test_a_flood_after_the_close_is_not_read(autojump_clock: MockClock) -> None:
    """INV-7: of a flood that answers the close a hundred bursts and a bounded rate are read, until the time is over."""
    limits = NodeLimits(client_messages_burst=10, client_messages_per_s=5.0, close_timeout_s=2.0)
    async with open_listener(limits) as under_test:
        flooding = await under_test.connect()
        peer = under_test.peers[flooding]
        peer.answers_close = False
        read_before = peer.messages_read
        under_test.drain.set()
        await trio.sleep(0.1)
        for _ in range(5_000):
            peer.say(encode_client_message(ClientHeartbeat()))
        await trio.sleep(5)
        assert under_test.has_returned
        # 1,000 at once, then 500 a second for less than 2 s; a pause comes after the first that was too many.
        assert 1_000 <= peer.messages_read - read_before <= 1_000 + 2 * 2 * 500


async def test_what_was_on_its_way_before_the_answer_is_read(autojump_clock: MockClock) -> None:
    """A burst that the client had sent before it read our close does not cost it the closing handshake."""
    limits = NodeLimits(client_messages_burst=50, client_messages_per_s=1.0)
    async with open_listener(limits) as under_test:
        busy = await under_test.connect()
        peer = under_test.peers[busy]
        peer.answers_close = False
        under_test.drain.set()
        await trio.sleep(0.1)
        for _ in range(49):
            peer.say(encode_client_message(ClientHeartbeat()))
        peer.leave(4000)
        await wait_all_tasks_blocked()
        assert under_test.has_returned
        assert trio.current_time() == pytest.approx(0.1)


async def test_the_last_frames_are_flushed(autojump_clock: MockClock) -> None:
    """What is in the window at its turn reaches a client that reads, in order, and nothing that comes after it."""
    log = log_of(TOPIC, 0)
    async with open_node(log, limits=NodeLimits(close_timeout_s=2.0)) as node:
        client = await node.follow(TOPIC, transport=SimulatedTransport(buffer_bytes=2_000))
        await node.commit(log, 100, payload=b"x" * 200)
        client.connection.go(Departure(returns_at=0.0, closes_at=0.0, flushed_by=20.0))
        await node.commit(log, 50, payload=b"late")
        for _ in range(40):
            # Slowly: 1,500 bytes a second, which takes longer than any single time-out.
            client.read(1_500)
            await trio.sleep(1)
        assert client.seqs(TOPIC) == list(range(1, 101))
        assert client.take(ErrorMessage).code == "draining"
        assert client.close_code == 4000
        assert not client.is_served


async def test_frames_of_the_same_step_are_flushed(autojump_clock: MockClock) -> None:
    """A record that has come, and that its topic has not fanned out yet, is not left behind by a turn."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        topic = node.registry.find(TOPIC.name)
        assert topic is not None
        topic.offer_record(log.append(1))
        topic._take_inbox()  # as its task does, in the step in which the turn comes
        client.connection.go(Departure(returns_at=0.0, closes_at=0.0, flushed_by=20.0))
        await node.settle()
        assert client.seqs(TOPIC) == [1, 2, 3, 4]
        assert client.close_code == 4000


async def test_a_client_that_takes_nothing_is_not_flushed_for_ever(autojump_clock: MockClock) -> None:
    """The flush ends close_timeout_s after the last byte that was taken."""
    log = log_of(TOPIC, 0)
    async with open_node(log, limits=NodeLimits(close_timeout_s=2.0)) as node:
        client = await node.follow(TOPIC, transport=SimulatedTransport(buffer_bytes=2_000))
        await node.commit(log, 100, payload=b"x" * 200)
        client.connection.go(Departure(returns_at=0.0, closes_at=0.0, flushed_by=20.0))
        await trio.sleep(1)
        client.read(1_500)
        await trio.sleep(1.9)
        assert client.connection.ended_as == ""
        await trio.sleep(0.3)
        assert client.connection.ended_as == "draining"


async def test_a_replay_from_the_journal_goes_on_elsewhere(autojump_clock: MockClock) -> None:
    """What the window does not hold is not read for a client that leaves: its cursor is valid on the next node."""
    log = log_of(TOPIC, 5_000)
    async with open_node(log, limits=NodeLimits(page_max_frames=100)) as node:
        client = await node.follow(TOPIC, transport=SimulatedTransport(buffer_bytes=2_000))
        assert client.connection.outbound.has_writer
        client.connection.go(Departure(returns_at=0.0, closes_at=0.0, flushed_by=20.0))
        for _ in range(60):
            client.read(2_000)
            await node.settle()
        seqs = client.seqs(TOPIC)
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(seqs) < 2_000
        assert client.close_code == 4000
        assert trio.current_time() < 1


@pytest.mark.parametrize("is_text", [False, True])
async def test_it_is_served_until_its_turn(autojump_clock: MockClock, is_text: bool) -> None:
    """Between go_away and its turn frames go on, in both subprotocols; no ticket is handed out."""
    log = log_of(TOPIC, 2)
    async with open_node(log) as node:
        client = await node.follow(TOPIC, is_text=is_text)
        client.connection.tell_to_go(Departure(returns_at=9.0, closes_at=5.0, flushed_by=20.0))
        await node.commit(log, 3)
        assert client.take(GoAway) == GoAway(9_000, 5_000, None)
        assert client.seqs(TOPIC) == [1, 2, 3, 4, 5]
        assert client.close_code is None
