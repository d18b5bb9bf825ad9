"""CL-02, KH-12: many clients that lose their node at once come back spread, with one socket each, on both loops."""

from __future__ import annotations

from random import Random

import anyio

from khala.core.departures import plan_departures
from khala.core.limits import NodeLimits
from khala_contracts import codec
from khala_contracts.codec import GoAway
from tests.actors.khala_client.loops import on_both_loops
from tests.actors.khala_client.storm_node import StormClient, StormNode, open_storm

COUNT = 100
# CL-02: of all that come back, in one second.
LARGEST_SECOND = 0.15


def assert_all_back(node: StormNode, clients: list[StormClient]) -> None:
    """Everybody was welcome again once, with one socket and a token of its own for each attempt, and missed nothing."""
    assert sorted(client for _, client in node.welcomes) == list(range(len(clients)))
    assert node.sockets_max == 1
    assert len(node.sockets) == len(clients)
    assert len(set(node.tokens)) == len(node.tokens)
    assert sum(node.mints.values()) == len(node.attempts)


async def assert_nothing_missed(node: StormNode, clients: list[StormClient]) -> None:
    """What was committed while they were away, and after it, was applied once by each."""
    node.append()
    await anyio.sleep(1)
    for client in clients:
        assert client.seqs == list(range(1, node.log.head_seq + 1))


@on_both_loops
async def test_cut_at_once_and_turned_away() -> None:
    """A node that admits 8 a second: whoever is told a time returns at it, and the storm takes as long as the rate needs."""
    async with open_storm(COUNT, admission_per_s=8.0, admission_burst=4) as (node, clients):
        began_s = anyio.current_time()
        node.cut()
        node.append(2)
        await anyio.sleep(20)
        assert_all_back(node, clients)
        last_s = max(at for at, _ in node.welcomes) - began_s
        assert (COUNT - 4) / 8 - 1 <= last_s <= COUNT / 8 + 1
        assert node.largest_second() <= LARGEST_SECOND
        # Told once each, and obeyed: a turn is hardly ever in vain.
        assert node.refusals <= 1.1 * COUNT
        await assert_nothing_missed(node, clients)


@on_both_loops
async def test_cut_at_once_and_nobody_there() -> None:
    """While no node is there each doubles its wait, so that the first to be there again is not stormed."""
    async with open_storm(COUNT) as (node, clients):
        node.is_there = False
        node.cut()
        await anyio.sleep(30)
        assert node.welcomes == []
        # Full jitter, 250 ms doubling to 30 s: seven or eight attempts in half a minute.
        assert 5 * COUNT <= len(node.attempts) <= 11 * COUNT
        node.is_there = True
        await anyio.sleep(61)
        assert_all_back(node, clients)
        assert node.largest_second() <= LARGEST_SECOND
        await assert_nothing_missed(node, clients)


@on_both_loops
async def test_a_node_that_leaves_sends_them_back_in_turn() -> None:
    """KH-10: each leaves and returns at the time it was told; one whose turn is later than the node's end waits for it."""
    limits = NodeLimits(drain_return_per_s=8.0, drain_timeout_s=10.0, close_timeout_s=1.0)
    async with open_storm(COUNT) as (node, clients):
        began_s = anyio.current_time()
        leaving = sorted(node.sockets, key=lambda socket: socket.client)
        turns = plan_departures(COUNT, limits=limits, now=began_s, rng=Random(1))
        for socket, turn in zip(leaving, turns, strict=True):
            go_away = GoAway(turn.return_after_ms(began_s), turn.close_after_ms(began_s))
            socket.say(codec.encode_server_control(go_away))
        await anyio.sleep(7.1)
        # Everybody else has left with the node, and nobody is early.
        assert len(node.welcomes) == len(node.sockets) < COUNT
        await anyio.sleep(6)
        assert_all_back(node, clients)
        back_s = {client: at - began_s for at, client in node.welcomes}
        for socket, turn in zip(leaving, turns, strict=True):
            assert abs(back_s[socket.client] - (turn.returns_at - began_s)) <= 0.001
        assert node.largest_second() <= 9 / COUNT
        await assert_nothing_missed(node, clients)


@on_both_loops
async def test_only_a_stable_minute_forgives() -> None:
    """A node that ends everybody soon after the welcome is not met by a hot loop: the waits go on doubling."""
    async with open_storm(20) as (node, _):
        for _ in range(6):
            node.cut()
            await anyio.sleep(59)
        attempts = len(node.attempts)
        assert attempts <= 6 * 20
        node.forget()
        node.cut()
        began_s = anyio.current_time()
        await anyio.sleep(31)
        # The seventh failure in a row of each: a wait of up to 16 s, and not of 250 ms.
        assert max(at for at, _ in node.welcomes) - began_s > 5
        await anyio.sleep(61)
        node.forget()
        node.cut()
        began_s = anyio.current_time()
        await anyio.sleep(1)
        assert len(node.welcomes) == 20
        assert max(at for at, _ in node.welcomes) - began_s <= 0.25
