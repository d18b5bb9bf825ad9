"""Slow consumers on a whole node in virtual time: told, served at their pace, released, never lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala.core.limits import NodeLimits
from khala_contracts.codec import (
    CursorStart,
    ErrorMessage,
    FramesMessage,
    Lagging,
    Subscribed,
    SubscribeFrom,
    Unsubscribed,
    UnsubscribedReason,
)
from khala_contracts.sync_claims import GrantBasis
from khala_contracts.topics import format_worker_events, parse_topic
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import LINEAGE, claims_for, run_topic

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from khala_contracts.topics import ParsedTopic
    from tests.actors.khala.node_under_test import ClientUnderTest, NodeUnderTest
    from tests.topic_log import TopicLog

TOPIC, OTHER_TOPIC = run_topic(1), run_topic(2)
# Whoever takes a byte now and then is heard as rarely.
LIMITS = NodeLimits(dead_after_s=10_000)
PAYLOAD = bytes(1_000)


def up_to(seq: int) -> list[int]:
    """Seqs ``1 .. seq``."""
    return list(range(1, seq + 1))


async def slow_client(
    node: NodeUnderTest,
    *topics: ParsedTopic,
    buffer_bytes: int = 4_096,
    is_text: bool = False,
) -> ClientUnderTest:
    """Return a live client whose kernel holds little."""
    transport = SimulatedTransport()
    client = await node.follow(*topics, transport=transport, is_text=is_text)
    client.read()
    transport.buffer_bytes = buffer_bytes
    return client


async def live_on(
    node: NodeUnderTest,
    log: TopicLog,
    client: ClientUnderTest,
    *,
    seconds: int,
    bytes_per_s: int,
    until: Callable[[], bool] = lambda: False,
) -> float:
    """Commit a frame each second while the client reads so many bytes; return how long it took."""
    began = trio.current_time()
    for _ in range(seconds):
        await node.commit(log, payload=PAYLOAD)
        client.read(bytes_per_s)
        await trio.sleep(1)
        if until():
            break
    return trio.current_time() - began


def is_released(client: ClientUnderTest) -> bool:
    """Whether the node has ended the client's subscription to the topic."""
    return TOPIC.name not in client.connection.subscriptions


# -- being told -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_text", [False, True])
async def test_told_once_after_two_seconds(autojump_clock: MockClock, is_text: bool) -> None:
    """Warm: the first unsent frame is older than 2 s: one notice, naming it and the head."""
    log = log_of(TOPIC, 0)
    async with open_node(log, limits=LIMITS) as node:
        client = await slow_client(node, TOPIC, buffer_bytes=40, is_text=is_text)
        await node.commit(log, 3)
        await trio.sleep(1.9)
        await node.commit(log, 2)
        assert node.counters.slow_consumer_actions == {}
        await trio.sleep(0.5)
        assert node.counters.slow_consumer_actions == {"throttle": 1}
        await trio.sleep(6)
        client.transport.buffer_bytes = None
        client.transport.resume()
        client.read()
        await node.settle()
        assert client.take(Lagging) == Lagging(TOPIC.name, from_seq=1, head_seq=5)
        assert client.seqs(TOPIC) == up_to(5)


async def test_nobody_is_told_who_takes_it_all(autojump_clock: MockClock) -> None:
    """A large replay at once, and silence after it: nothing lags."""
    log = log_of(TOPIC, 5_000, payload=PAYLOAD)
    async with open_node(log, limits=LIMITS) as node:
        client = await node.follow(TOPIC)
        await trio.sleep(200)
        assert client.seqs(TOPIC) == up_to(5_000)
        assert node.counters.slow_consumer_actions == {}
        assert client.connection.slow_consumers == {}


@pytest.mark.parametrize("pause_s", [0.0, 0.5])
async def test_draining_begins_anew(autojump_clock: MockClock, pause_s: float) -> None:
    """Who has taken everything is told again the next time, also if no sweep saw it in between."""
    log = log_of(TOPIC, 0)
    async with open_node(log, limits=LIMITS) as node:
        client = await slow_client(node, TOPIC, buffer_bytes=100)
        for round_number in (1, 2):
            await node.commit(log, 3)
            await trio.sleep(3)
            assert node.counters.slow_consumer_actions == {"throttle": round_number}
            for _ in range(20):
                client.read()
                await node.settle()
            await trio.sleep(pause_s)
        await trio.sleep(0.5)
        assert client.connection.slow_consumers == {}


# -- being released ---------------------------------------------------------------------------------------


async def test_released_with_a_valid_cursor(autojump_clock: MockClock) -> None:
    """KH-18: told, then from the journal, then released after 120 s; resumed from its cursor it has it all."""
    log, other_log = log_of(TOPIC, 0), log_of(OTHER_TOPIC, 0)
    limits = attrs.evolve(LIMITS, window_max_frames=50)
    async with open_node(log, other_log, limits=limits) as node:
        client = await slow_client(node, TOPIC, OTHER_TOPIC)
        quick = await node.follow(TOPIC)
        took = await live_on(
            node, log, client, seconds=200, bytes_per_s=20, until=lambda: is_released(client)
        )
        # The kernel's buffer took the first few at once; the first that did not fit is released at 120 s.
        assert 121 <= took <= 145
        assert node.counters.slow_consumer_actions == {"throttle": 1, "catch_up": 1, "release": 1}
        assert quick.seqs(TOPIC) == up_to(log.head_seq)
        client.transport.buffer_bytes = None
        client.transport.resume()
        await node.settle()
        assert client.take(Unsubscribed).reason is UnsubscribedReason.SLOW_CONSUMER
        assert client.close_code is None
        received = [frame.seq for message in client.take_all(FramesMessage) for frame in message.frames]
        position = received[-1]
        assert received == up_to(position)
        assert 0 < position < log.head_seq
        # Its other topic goes on, and so does this one from where the client is.
        await node.commit(other_log)
        assert client.seqs(OTHER_TOPIC) == [1]
        cursor = CursorStart(position, LINEAGE, log.chains[position])
        client.subscribe(TOPIC, start=cursor)
        await node.settle()
        assert client.take_all(Subscribed)[-1].start_seq == position
        assert client.seqs(TOPIC) == list(range(position + 1, log.head_seq + 1))


@pytest.mark.parametrize("is_text", [False, True])
async def test_slow_but_steady_is_never_released(autojump_clock: MockClock, is_text: bool) -> None:
    """Far behind for minutes, one frame a second like the topic: no fault, also with half a chunk in hand."""
    log = log_of(TOPIC, 0)
    limits = attrs.evolve(LIMITS, release_after_warm_s=20)
    async with open_node(log, limits=limits) as node:
        client = await slow_client(node, TOPIC, is_text=is_text)
        await node.commit(log, 300, payload=PAYLOAD)
        per_frame = 1_600 if is_text else 1_150
        await live_on(node, log, client, seconds=250, bytes_per_s=per_frame)
        assert not is_released(client)
        assert node.counters.slow_consumer_actions["release"] == 0
        # It lags all the same, and a little slower would be released.
        assert client.connection.slow_consumers
        await live_on(
            node, log, client, seconds=60, bytes_per_s=per_frame // 2, until=lambda: is_released(client)
        )
        assert is_released(client)


async def test_an_idle_topic_releases_nobody(autojump_clock: MockClock) -> None:
    """Who takes a byte a second of a topic that has ended is behind, and not slower than it."""
    log = log_of(TOPIC, 0)
    limits = attrs.evolve(LIMITS, release_after_warm_s=20)
    async with open_node(log, limits=limits) as node:
        client = await slow_client(node, TOPIC)
        await node.commit(log, 100, payload=PAYLOAD)
        for _ in range(250):
            client.read(1)
            await trio.sleep(1)
        assert not is_released(client)


async def test_a_slow_replay_is_not_held_against_it(autojump_clock: MockClock) -> None:
    """While it replays, progress counts, though every frame is old; then it is judged like others."""
    log = log_of(TOPIC, 300, payload=PAYLOAD)
    limits = attrs.evolve(LIMITS, release_after_warm_s=20)
    async with open_node(log, limits=limits) as node:
        transport = SimulatedTransport(buffer_bytes=4_096)
        client = await node.follow(TOPIC, transport=transport)
        for _ in range(120):
            await node.commit(log, 2, payload=PAYLOAD)
            client.read(1_150)
            await trio.sleep(1)
        assert not is_released(client)
        assert client.connection.subscriptions[TOPIC.name].is_replaying
        # It stops, with a byte now and then so that the socket is not stalled.
        until = lambda: is_released(client)  # noqa: E731
        took = await live_on(node, log, client, seconds=60, bytes_per_s=1, until=until)
        assert is_released(client)
        assert took >= 20


async def test_our_own_slowness_is_not_the_clients(autojump_clock: MockClock) -> None:
    """The journal does not answer for minutes: who waits for a page of it is not released for that."""
    log, other_log = log_of(TOPIC, 0), log_of(OTHER_TOPIC, 0)
    limits = attrs.evolve(LIMITS, release_after_warm_s=20, window_max_frames=200)
    async with open_node(log, other_log, limits=limits) as node:
        client = await slow_client(node, TOPIC, OTHER_TOPIC, buffer_bytes=8_192)
        node.journal.hold("read_page")
        # The other topic keeps the connection busy, at its own rate; this one has left the window.
        await node.commit(other_log, 150, payload=PAYLOAD)
        await node.commit(log, 250, payload=PAYLOAD)
        subscription = client.connection.subscriptions[TOPIC.name]
        for _ in range(200):
            await node.commit(log, payload=PAYLOAD)
            await node.commit(other_log, 4, payload=PAYLOAD)
            client.read(4_600)
            await trio.sleep(1)
            assert client.connection.outbound.backlogged_since == 0
        assert subscription.is_waiting_for_page
        assert set(client.connection.subscriptions) == {TOPIC.name, OTHER_TOPIC.name}
        node.journal.open_gate("read_page")


async def test_the_third_release_ends_the_connection(autojump_clock: MockClock) -> None:
    """Two releases within 5 min are obeyed by resuming; the third is a close with slow_consumer (4001)."""
    log = log_of(TOPIC, 0)
    limits = attrs.evolve(LIMITS, release_after_warm_s=20)
    async with open_node(log, limits=limits) as node:
        client = await slow_client(node, TOPIC)
        for release in (1, 2):
            await live_on(node, log, client, seconds=80, bytes_per_s=20, until=lambda: is_released(client))
            assert node.counters.slow_consumer_actions["release"] == release
            client.transport.buffer_bytes = None
            client.transport.resume()
            client.subscribe(TOPIC, start=SubscribeFrom.NOW)
            await node.settle()
            client.read()
            client.transport.buffer_bytes = 4_096
        await live_on(
            node,
            log,
            client,
            seconds=80,
            bytes_per_s=20,
            until=lambda: client.connection.closed_with is not None,
        )
        client.transport.buffer_bytes = None
        client.transport.resume()
        await node.settle()
        assert (client.take(ErrorMessage).code, client.close_code) == ("slow_consumer", 4001)
        counts = node.counters.slow_consumer_actions
        assert (counts["release"], counts["disconnect"]) == (2, 1)


async def test_releases_long_ago_do_not_count(autojump_clock: MockClock) -> None:
    """A release is forgiven after releases_window_s."""
    log = log_of(TOPIC, 0)
    limits = attrs.evolve(LIMITS, release_after_warm_s=20, releases_window_s=30, releases_max=2)
    async with open_node(log, limits=limits) as node:
        client = await slow_client(node, TOPIC)
        for _ in range(3):
            await live_on(node, log, client, seconds=80, bytes_per_s=20, until=lambda: is_released(client))
            client.transport.buffer_bytes = None
            client.transport.resume()
            client.subscribe(TOPIC, start=SubscribeFrom.NOW)
            await trio.sleep(10)
            client.read()
            client.transport.buffer_bytes = 4_096
        assert client.connection.closed_with is None
        assert node.counters.slow_consumer_actions["release"] == 3


# -- tiers ------------------------------------------------------------------------------------------------


async def test_a_tier_that_disconnects(autojump_clock: MockClock) -> None:
    """KH-44: a hot topic whose followers are to reconnect: told after 1 s, closed instead of released."""
    topic = parse_topic(format_worker_events(f"wrk_{1:026d}"))
    log = log_of(topic, 0)
    limits = attrs.evolve(LIMITS, release_after_hot_s=20, release_action_hot="disconnect")
    async with open_node(log, limits=limits) as node:
        transport = SimulatedTransport()
        client = await node.connect(transport=transport, claims=claims_for(topic, basis=GrantBasis.OWNER))
        client.subscribe(topic)
        await node.settle()
        client.read()
        transport.buffer_bytes = 4_096
        closed = lambda: client.connection.closed_with is not None  # noqa: E731
        await live_on(node, log, client, seconds=80, bytes_per_s=20, until=closed)
        assert node.counters.slow_consumer_actions["throttle"] == 1
        assert node.counters.slow_consumer_actions["release"] == 0
        assert node.counters.closes == {"slow_consumer": 1}
