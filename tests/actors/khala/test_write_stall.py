"""KH-36: a peer that takes no byte is found by the deadline of a send, however quiet its topics are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala.core.limits import NodeLimits
from khala_contracts import reason_codes
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.actors.khala.node_under_test import ClientUnderTest

TOPIC = run_topic(1)
LIMITS = NodeLimits()
# A sweep looks this often, so that each deadline is met at most so much later.
LATE_S = LIMITS.sweep_interval_s


async def seconds_until_closed(client: ClientUnderTest, *, at_most: float) -> float:
    """Return after how many seconds from now the node gives the client up."""
    began = trio.current_time()
    while client.connection.closed_with is None and trio.current_time() - began < at_most:
        await trio.sleep(0.05)
    assert client.connection.closed_with is reason_codes.SLOW_CONSUMER
    return trio.current_time() - began


@pytest.mark.parametrize("is_text", [False, True])
async def test_a_large_replay_of_a_quiet_topic(autojump_clock: MockClock, is_text: bool) -> None:
    """One frame a minute and 2 MB of replay pending: closed 10 s after the last byte was taken."""
    log = log_of(TOPIC, 2_000, payload=bytes(1_000))
    async with open_node(log) as node:
        transport = SimulatedTransport(buffer_bytes=64 * 1024)
        client = await node.follow(TOPIC, transport=transport, is_text=is_text)
        for _ in range(10):
            client.read(20_000)
            await trio.sleep(1)
        client.read(20_000)
        await node.settle()
        await node.commit(log)
        took = await seconds_until_closed(client, at_most=60)
        assert LIMITS.write_stall_timeout_s <= took <= LIMITS.write_stall_timeout_s + 2 * LATE_S
        assert node.counters.slow_consumer_actions["release"] == 0


async def test_a_peer_that_has_nothing_to_take(autojump_clock: MockClock) -> None:
    """Nothing is sent to it and it takes nothing: found within one heartbeat and the deadline."""
    log = log_of(TOPIC, 3)
    # Else its silence would end it first or at the same time.
    limits = attrs.evolve(LIMITS, dead_after_s=1_000)
    async with open_node(log, limits=limits) as node:
        transport = SimulatedTransport()
        client = await node.follow(TOPIC, transport=transport)
        client.read()
        transport.stall()
        took = await seconds_until_closed(client, at_most=60)
        deadline_s = LIMITS.heartbeat_interval_s + LIMITS.write_stall_timeout_s
        assert deadline_s <= took <= deadline_s + 3 * LATE_S


async def test_answers_alone_stall_too(autojump_clock: MockClock) -> None:
    """A peer that pings and takes none of the pongs, without any topic."""
    async with open_node(log_of(TOPIC, 0)) as node:
        transport = SimulatedTransport()
        client = await node.connect(TOPIC, transport=transport)
        transport.stall()
        client.peer.ping()
        await node.settle()
        took = await seconds_until_closed(client, at_most=14)
        assert LIMITS.write_stall_timeout_s <= took <= LIMITS.write_stall_timeout_s + 2 * LATE_S


async def test_each_byte_moves_the_deadline(autojump_clock: MockClock) -> None:
    """A byte taken just before it begins the ten seconds anew; nothing but a byte does."""
    log = log_of(TOPIC, 200, payload=bytes(1_000))
    async with open_node(log) as node:
        transport = SimulatedTransport(buffer_bytes=4_096)
        client = await node.follow(TOPIC, transport=transport)
        for _ in range(3):
            await trio.sleep(LIMITS.write_stall_timeout_s - 0.1)
            assert client.connection.closed_with is None
            client.read(1)
            await node.settle()
        for _ in range(4):
            client.peer.ping()
            await node.commit(log)
            await trio.sleep(2)
        took = await seconds_until_closed(client, at_most=14)
        assert took <= LIMITS.write_stall_timeout_s - 8 + 2 * LATE_S


async def test_waiting_for_our_journal_is_no_stall(autojump_clock: MockClock) -> None:
    """It took all that was offered and the next page does not come: not its fault, for however long."""
    log = log_of(TOPIC, 5_000, payload=bytes(500))
    async with open_node(log, limits=attrs.evolve(LIMITS, dead_after_s=1_000)) as node:
        transport = SimulatedTransport(buffer_bytes=64 * 1024)
        client = await node.connect(TOPIC, transport=transport)
        client.subscribe(TOPIC)
        await node.settle()
        node.journal.hold("read_page")
        while not client.connection.subscriptions[TOPIC.name].is_waiting_for_page:
            client.read()
            await node.settle()
        client.read()
        for _ in range(60):
            await trio.sleep(1)
            client.read()
        assert client.connection.closed_with is None
        node.journal.open_gate("read_page")
        while client.connection.closed_with is None and client.position(TOPIC) < 5_000:
            await trio.sleep(0.1)
        assert client.seqs(TOPIC) == list(range(1, 5_001))
