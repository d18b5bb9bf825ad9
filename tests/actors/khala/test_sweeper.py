"""Deadlines and heartbeats of connections, at their exact times and on both sides of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala.actors.sweeper import Sweeper
from khala.core.limits import NodeLimits
from khala_contracts.codec import (
    ClientHeartbeat,
    ErrorMessage,
    Renew,
    ServerHeartbeat,
    SubscribeFrom,
)
from khala_contracts.sync_claims import GrantBasis
from khala_contracts.topics import parse_topic
from khala_service.live_limits import take_over
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import ORG, WALL_S, claims_for, run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.actors.khala.node_under_test import ClientUnderTest, NodeUnderTest

TOPIC, OTHER_TOPIC = run_topic(1), run_topic(2)


async def _live_until(client: ClientUnderTest, until_s: float) -> None:
    """Let time pass while the client sends a heartbeat every 10 s."""
    while trio.current_time() < until_s:
        client.say(ClientHeartbeat())
        await trio.sleep(min(10, until_s - trio.current_time()))


# -- dead peers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", ["ping", "heartbeat", "none"])
async def test_a_silent_client_is_closed(autojump_clock: MockClock, sign: str) -> None:
    """Nothing heard for 45 s: heartbeat_timeout. Any message or ping starts the time anew."""
    async with open_node() as node:
        client = await node.connect()
        await trio.sleep(40)
        if sign == "ping":
            client.peer.ping()
        elif sign == "heartbeat":
            client.say(ClientHeartbeat())
        await trio.sleep(4.9)
        assert client.close_code is None
        await trio.sleep(0.5)
        if sign == "none":
            assert (client.take(ErrorMessage).code, client.close_code) == ("heartbeat_timeout", 4002)
            return
        await trio.sleep(39.4)
        assert client.close_code is None
        await trio.sleep(0.6)
        assert client.close_code == 4002


async def test_a_client_that_only_receives_is_dead_too(autojump_clock: MockClock) -> None:
    """Frames that we send say nothing about whether anybody is there."""
    log = log_of(TOPIC, 1)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        for _ in range(10):
            await trio.sleep(4.6)
            await node.commit(log)
            client.read()
        assert client.close_code == 4002


async def test_every_connection_is_looked_at(autojump_clock: MockClock) -> None:
    """However many there are, each has its deadline; the sweep only gives others a turn in between."""
    async with open_node() as node:
        clients = [node.open_client() for _ in range(501)]
        await trio.sleep(5.3)
        assert {client.close_code for client in clients} == {4007}


# -- tokens ---------------------------------------------------------------------------------------------


async def test_an_expired_token_ends_the_connection(autojump_clock: MockClock) -> None:
    """token_expired 30 s after the token's time, the leeway of all token times; not before."""
    async with open_node() as node:
        client = await node.connect()
        await _live_until(client, 329.7)
        assert client.close_code is None
        await _live_until(client, 330.3)
        assert (client.take(ErrorMessage).code, client.close_code) == ("token_expired", 4005)


async def test_a_renewed_token_moves_the_end(autojump_clock: MockClock) -> None:
    """What counts is the newest token."""
    async with open_node() as node:
        client = await node.connect()
        await _live_until(client, 200)
        client.say(Renew(node.grant()))
        await _live_until(client, 529.7)
        assert client.close_code is None
        await _live_until(client, 530.3)
        assert client.close_code == 4005


async def test_a_renewed_token_that_ends_sooner(autojump_clock: MockClock) -> None:
    """The newest token counts also if it ends before the one that it renews."""
    async with open_node() as node:
        client = await node.connect()
        await _live_until(client, 16)
        token = node.grant()
        node.tokens.claims[token] = attrs.evolve(node.tokens.claims[token], expires_at_s=WALL_S - 8)
        # Long enough that a sweep looks meanwhile, and goes by the token before it.
        node.control.delay_s = 1.0
        client.say(Renew(token))
        await _live_until(client, 21.7)
        assert client.close_code is None
        await _live_until(client, 22.3)
        assert client.close_code == 4005


# -- limits that change -----------------------------------------------------------------------------


async def test_a_deadline_that_a_reload_moves_up(autojump_clock: MockClock) -> None:
    """Limits that are read again count for connections that are there already, at the next sweep."""
    async with open_node() as node:
        client = await node.connect()
        await trio.sleep(20)
        assert client.close_code is None
        take_over(node.limits, attrs.evolve(node.limits, dead_after_s=18.0))
        await trio.sleep(0.3)
        assert client.close_code == 4002


# -- what a sweep costs ------------------------------------------------------------------------------


async def test_nobody_is_looked_at_before_something_is_due(autojump_clock: MockClock) -> None:
    """A connection at rest is looked at for its heartbeats only: 4 times a minute, not 240 times."""
    async with open_node(log_of(TOPIC, 3)) as node:
        clients = [await node.follow(TOPIC) for _ in range(50)]
        sweeper = Sweeper(node.connections, node.limits, node.counters, node.clock)
        await sweeper.sweep()
        began = sweeper.looks
        for _ in range(4):
            for client in clients:
                client.say(ClientHeartbeat())
            for _ in range(60):
                await sweeper.sweep()
                await trio.sleep(0.25)
        # The node's own sweeper looks too, at the same deadlines.
        assert sweeper.looks - began <= 50 * 5
        assert all(len(client.take_all(ServerHeartbeat)) >= 3 for client in clients)


async def test_whoever_has_bytes_waiting_is_looked_at_each_time(autojump_clock: MockClock) -> None:
    """While the kernel takes nothing, and once more when it has: then nothing of it is remembered."""
    log = log_of(TOPIC, 3)
    async with open_node(log) as node:
        transport = SimulatedTransport()
        client = await node.follow(TOPIC, transport=transport)
        await trio.sleep(1)
        assert client.connection.look_at > trio.current_time()
        transport.stall()
        await node.commit(log)
        for _ in range(8):
            assert client.connection.look_at <= trio.current_time()
            await trio.sleep(0.25)
        assert client.connection.slow_consumers
        transport.resume()
        client.read()
        await trio.sleep(0.6)
        assert not client.connection.slow_consumers
        assert client.connection.look_at > trio.current_time()


async def test_others_have_turns_during_a_sweep(autojump_clock: MockClock) -> None:
    """200 heartbeats that fall due at once are sent in pieces, each of them less than a millisecond."""
    async with open_node(log_of(TOPIC, 3)) as node:
        clients = [await node.follow(TOPIC) for _ in range(200)]
        for client in clients:
            client.connection.look_at = client.connection.next_heartbeat_at = 0.0
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_turns)
            await Sweeper(node.connections, node.limits, node.counters, node.clock).sweep()
            nursery.cancel_scope.cancel()
        assert turns >= 2
        assert all(len(client.take_all(ServerHeartbeat)) == 1 for client in clients)


# -- heartbeats ------------------------------------------------------------------------------------------


async def _heartbeats(client: ClientUnderTest, until_s: float) -> list[list[tuple[str, int]]]:
    await _live_until(client, until_s)
    return [
        [(topic.topic, topic.head_seq) for topic in heartbeat.topics]
        for heartbeat in client.take_all(ServerHeartbeat)
    ]


async def test_heartbeats_name_what_has_moved(autojump_clock: MockClock) -> None:
    """Every 15 s: topics whose head has moved, twice; every fourth time all of them."""
    log, other = log_of(TOPIC, 3), log_of(OTHER_TOPIC, 7)
    async with open_node(log, other) as node:
        client = await node.follow(TOPIC, OTHER_TOPIC)
        one, two = (TOPIC.name, 3), (OTHER_TOPIC.name, 7)
        assert await _heartbeats(client, 14.9) == []
        assert await _heartbeats(client, 15.3) == [[one, two]]
        assert await _heartbeats(client, 30.6) == [[one, two]]
        await node.commit(log)
        assert await _heartbeats(client, 45.9) == [[(TOPIC.name, 4)]]
        assert await _heartbeats(client, 61.2) == [[(TOPIC.name, 4), two]]
        assert await _heartbeats(client, 76.5) == [[]]
        await node.commit(other)
        assert await _heartbeats(client, 91.8) == [[(OTHER_TOPIC.name, 8)]]
        assert await _heartbeats(client, 107.1) == [[(OTHER_TOPIC.name, 8)]]


async def test_a_heartbeat_proves_where_the_topic_stands(autojump_clock: MockClock) -> None:
    """It carries head, chain at head, headroom and the server's time; without topics it is a sign of life."""
    log = log_of(TOPIC, 5)
    async with open_node(log) as node:
        client = await node.follow(TOPIC)
        await trio.sleep(15.3)
        heartbeat = client.take(ServerHeartbeat)
        (topic,) = heartbeat.topics
        assert (topic.head_seq, topic.chain) == (5, log.chains[5])
        assert topic.headroom_frames == TOPIC.topic_class.replay_budget_events
        assert topic.headroom_ms == TOPIC.topic_class.retention_s * 1000
        assert heartbeat.server_time_ms == pytest.approx((WALL_S + 15) * 1000, abs=300)


async def test_headroom_shrinks_with_the_distance(autojump_clock: MockClock) -> None:
    """A client behind learns by how many frames it may fall further, and when what it needs next expires."""
    log = log_of(TOPIC, 0)
    limits = NodeLimits(write_stall_timeout_s=1_000)
    async with open_node(log, limits=limits) as node:
        transport = SimulatedTransport()
        client = await node.follow(TOPIC, transport=transport)
        transport.stall()
        for _ in range(4):
            await node.commit(log, 100)
        await trio.sleep(15.3)
        transport.resume()
        await node.settle()
        (topic,) = client.take(ServerHeartbeat).topics
        # The first 100 are in the remainder, so 300 are still to be sent.
        assert topic.headroom_frames == TOPIC.topic_class.replay_budget_events - 300
        # Frame 101 came 15 s ago.
        assert topic.headroom_ms == pytest.approx((TOPIC.topic_class.retention_s - 15) * 1000, abs=300)


async def test_headroom_counts_bytes_too(autojump_clock: MockClock) -> None:
    """KH-37: large frames reach the budget in bytes long before the one in frames."""
    log = log_of(TOPIC, 10, payload=bytes(100_000))
    async with open_node(log) as node:
        client = await node.follow(TOPIC, start=SubscribeFrom.NOW)
        await trio.sleep(15.3)
        (topic,) = client.take(ServerHeartbeat).topics
        assert topic.headroom_frames == TOPIC.topic_class.replay_budget_bytes // len(log.entries[-1])
        assert topic.headroom_frames < 336


async def test_headroom_is_gone_once_the_floor_has_passed(autojump_clock: MockClock) -> None:
    """Its window still serves it; a resume from where it stands would be stale, and it is told so."""
    log = log_of(TOPIC, 0)
    limits = NodeLimits(write_stall_timeout_s=1_000)
    async with open_node(log, limits=limits) as node:
        transport = SimulatedTransport()
        client = await node.follow(TOPIC, transport=transport)
        transport.stall()
        for _ in range(4):
            await node.commit(log, 100)
        log.floor_seq = 102
        await trio.sleep(15.3)
        transport.resume()
        await node.settle()
        (topic,) = client.take(ServerHeartbeat).topics
        assert (topic.headroom_frames, topic.headroom_ms) == (0, 0)
        assert client.seqs(TOPIC) == list(range(1, 401))


@pytest.mark.parametrize("is_text", [False, True])
async def test_heartbeats_are_encoded_once(autojump_clock: MockClock, is_text: bool) -> None:
    """KH-37: a thousand followers at the head cost one encoding for each head that is stated."""
    log = log_of(TOPIC, 5)
    async with open_node(log) as node:
        clients = [await node.follow(TOPIC, is_text=is_text) for _ in range(40)]
        heartbeats = node.registry._topics[TOPIC.name].heartbeats
        await trio.sleep(15.3)
        first = heartbeats._shared[is_text]
        assert all(client.take(ServerHeartbeat).topics[0].head_seq == 5 for client in clients)
        await node.commit(log)
        await trio.sleep(15.3)
        assert heartbeats._shared.keys() == {is_text}
        assert heartbeats._shared[is_text] is not first
        said = {client.take(ServerHeartbeat).topics for client in clients}
        assert len(said) == 1
        ((topic,),) = said
        assert (topic.head_seq, topic.chain) == (6, log.chains[6])


async def test_an_idle_client_gets_heartbeats_only(autojump_clock: MockClock) -> None:
    """Nothing subscribed: empty heartbeats at the announced interval."""
    async with open_node() as node:
        client = await node.connect()
        assert await _heartbeats(client, 60.5) == [[]] * 4


async def _with_many_topics(
    node: NodeUnderTest, *, is_text: bool, transport: SimulatedTransport
) -> ClientUnderTest:
    topics = [parse_topic(f"app:{ORG}:{'n' * 59}-{number:03d}") for number in range(256)]
    for topic in topics:
        node.journal.logs[topic.name] = log_of(topic, 1)
    claims = claims_for(*topics, basis=GrantBasis.ORG_MEMBER)
    client = await node.connect(claims=claims, is_text=is_text, transport=transport)
    for first in range(0, 256, 64):
        client.subscribe(*topics[first : first + 64], start=SubscribeFrom.NOW)
    await node.settle()
    client.read()
    assert len(client.transcript.topics) == 256
    return client


@pytest.mark.parametrize("is_text", [False, True])
async def test_all_topics_are_stated_in_pieces(autojump_clock: MockClock, is_text: bool) -> None:
    """256 subscriptions with long names: 64 to a heartbeat, all in the same second."""
    async with open_node() as node:
        client = await _with_many_topics(node, is_text=is_text, transport=SimulatedTransport())
        await trio.sleep(15.3)
        heartbeats = client.take_all(ServerHeartbeat)
        assert [len(heartbeat.topics) for heartbeat in heartbeats] == [64] * 4
        stated = {topic.topic for heartbeat in heartbeats for topic in heartbeat.topics}
        assert stated == set(client.transcript.topics)


@pytest.mark.parametrize("is_text", [False, True])
async def test_heartbeats_do_not_crowd_out_a_client_that_is_behind(
    autojump_clock: MockClock, is_text: bool
) -> None:
    """With a full socket heartbeats wait for room: being behind is no fault; later all are stated."""
    limits = NodeLimits(write_stall_timeout_s=1_000, dead_after_s=1_000)
    async with open_node(limits=limits) as node:
        transport = SimulatedTransport()
        client = await _with_many_topics(node, is_text=is_text, transport=transport)
        transport.stall()
        await trio.sleep(61)  # two rounds that state all of them, and two that state nothing
        assert client.connection.closed_with is None
        transport.resume()
        await trio.sleep(60)
        beats = client.take_all(ServerHeartbeat)
        assert len(beats[0].topics) == 64
        stated = {topic.topic for beat in beats for topic in beat.topics}
        assert stated == set(client.transcript.topics)
