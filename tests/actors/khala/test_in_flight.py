"""What sockets have not taken is bounded for a whole node: replays wait for it, live delivery does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from khala.core.in_flight import WOKEN_PER_TURN
from khala.core.limits import NodeLimits
from khala_contracts.codec import FramesMessage, ReplayComplete
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.actors.khala.node_under_test import ClientUnderTest

KIB = 1024
TOPIC = run_topic(1)
LIVE_TOPIC = run_topic(2)
# Two remainders of one chunk each, less what the sockets below take of each.
LIMITS = NodeLimits(in_flight_max_bytes=100 * KIB)


def _slow() -> SimulatedTransport:
    return SimulatedTransport(buffer_bytes=4 * KIB)


def _frames(client: ClientUnderTest) -> int:
    return sum(len(message.frames) for message in client.take_all(FramesMessage))


async def test_the_newest_replay_waits_and_live_does_not(autojump_clock: MockClock) -> None:
    """INV-7: above in_flight_max_bytes no replay begins more, a live topic is served, and room is given by age."""
    log, live = log_of(TOPIC, 2_000, payload=bytes(1_000)), log_of(LIVE_TOPIC, 0)
    async with open_node(log, live, limits=LIMITS) as node:
        slow = [await node.follow(TOPIC, transport=_slow()) for _ in range(2)]
        await node.settle()
        assert node.in_flight.held_bytes > LIMITS.in_flight_max_bytes
        held = node.in_flight.held_bytes
        waiting = [await node.follow(TOPIC) for _ in range(2)]
        follower = await node.follow(LIVE_TOPIC)
        await node.settle()
        await node.commit(live, 3)
        await node.settle()
        assert [_frames(client) for client in waiting] == [0, 0]
        assert (len(node.in_flight), node.in_flight.held_bytes) == (2, held)
        assert _frames(follower) == 3
        # One of the two leaves: whoever waited longest goes on first.
        slow[0].transport.reset()
        await node.settle()
        assert [bool(client.take_all(ReplayComplete)) for client in waiting] == [True, True]
        assert [_frames(client) for client in waiting] == [2_000, 2_000]
        assert len(node.in_flight) == 0


async def test_whoever_ends_while_waiting_is_forgotten(autojump_clock: MockClock) -> None:
    """A replay that is unsubscribed while it waits is not brought back."""
    log = log_of(TOPIC, 2_000, payload=bytes(1_000))
    async with open_node(log, limits=LIMITS) as node:
        slow = [await node.follow(TOPIC, transport=_slow()) for _ in range(2)]
        waiting = await node.follow(TOPIC)
        await node.settle()
        assert len(node.in_flight) == 1
        waiting.unsubscribe(TOPIC)
        await node.settle()
        assert len(node.in_flight) == 0
        for client in slow:
            client.transport.reset()
        await node.settle()
        assert _frames(waiting) == 0
        assert node.in_flight.held_bytes == 0


async def test_what_is_taken_is_room(autojump_clock: MockClock) -> None:
    """Replays that are taken slowly go on by turns; nothing is held at the end."""
    log = log_of(TOPIC, 500, payload=bytes(1_000))
    async with open_node(log, limits=LIMITS) as node:
        clients = [await node.follow(TOPIC, transport=_slow()) for _ in range(4)]
        received = [0] * len(clients)
        while sum(received) < 4 * 500:
            await node.settle()
            for index, client in enumerate(clients):
                received[index] += _frames(client)
            assert node.in_flight.held_bytes <= LIMITS.in_flight_max_bytes + LIMITS.chunk_max_bytes
        await node.settle()
        assert received == [500] * 4
        assert node.in_flight.held_bytes == 0


async def test_whoever_is_woken_leaves_others_their_turn(autojump_clock: MockClock) -> None:
    """One client leaves, and hundreds of short replays may go on: some at a time, others between, and all of them."""
    short, log = log_of(LIVE_TOPIC, 0), log_of(TOPIC, 2_000, payload=bytes(1_000))
    async with open_node(log, short, limits=LIMITS) as node:
        # What they replay is in the window.
        await node.follow(LIVE_TOPIC)
        await node.commit(short, 3)
        slow = [await node.follow(TOPIC, transport=_slow()) for _ in range(2)]
        waiting = [await node.follow(LIVE_TOPIC) for _ in range(3 * WOKEN_PER_TURN)]
        assert len(node.in_flight) == len(waiting)
        slow[0].transport.reset()
        while len(node.in_flight) == len(waiting):
            await trio.lowlevel.checkpoint()
        assert len(node.in_flight) >= WOKEN_PER_TURN
        await node.settle()
        assert len(node.in_flight) == 0
        assert all(client.seqs(LIVE_TOPIC) == [1, 2, 3] for client in waiting)
