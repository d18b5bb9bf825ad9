"""The switch from replay to live, many times over: no gap, no repeat, ``through_seq`` exact (KH-05).

Real sockets, one node, real PostgreSQL. Every client judges its stream frame by frame (`Follower`): strictly
+1 from where ``subscribed`` said, the chain recomputed, ``replay_complete`` once, exactly at its head.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import attrs
import pytest
import trio

from khala_contracts.codec import SubscriptionMode
from tests.e2e.history import History, begin_history, random_start, write
from tests.e2e.wire import BINARY, TEXT, Api, Follower, Person, open_api, open_wire, subscribe, thought

if TYPE_CHECKING:
    from tests.e2e.system import System

pytestmark = pytest.mark.slow

CLIENTS: Final = 200
OLD_EVENTS: Final = 300
# Three writers of ten events a request: 500 events/s for four seconds, within the burst of one run.
REQUESTS: Final = 201
BATCH: Final = 10
EVERY_S: Final = 0.06
WRITTEN_S: Final = REQUESTS / 3 * EVERY_S
# How far a client goes on after the switch before it is content.
LIVE_FRAMES: Final = 100
PATIENCE_S: Final = 60.0


@attrs.define
class Joined:
    """One client's stream, and whether the topic was being written to at its switch."""

    follower: Follower
    was_written_to: bool


async def test_200_clients_join_at_random_while_500_events_a_second_are_written(system: System) -> None:
    """KH-05: wherever and whenever a client begins, its frames are one contiguous piece of the topic."""
    async with open_api(system) as api:
        ann = await api.sign_in()
        history = await begin_history(api, ann, events=OLD_EVENTS)
        joined = await _join_all(system, api, ann, history)
    assert history.head.seq == 1 + OLD_EVENTS + REQUESTS * BATCH + LIVE_FRAMES
    for one in joined:
        follower = one.follower
        start_seq = follower.subscribed.start_seq
        assert [frame.seq for frame in follower.frames] == list(range(start_seq + 1, follower.position + 1))
        assert follower.chain == history.acked[follower.position].chain
        assert follower.position >= follower.subscribed.head_seq + LIVE_FRAMES
    assert len(joined) == CLIENTS
    # The seam was where it is hard: most switches happened while the topic was written to.
    assert sum(one.was_written_to for one in joined) > CLIENTS / 2
    modes = [one.follower.subscribed.mode for one in joined]
    assert min(modes.count(mode) for mode in (SubscriptionMode.LIVE, SubscriptionMode.REPLAYING)) >= 10


async def _join_all(system: System, api: Api, ann: Person, history: History) -> list[Joined]:
    rng = random.Random(500)
    joined: list[Joined] = []
    writing_began = trio.Event()
    # Before the writing: the switch is what is looked at, not how many tokens control mints beside it.
    tokens = [await api.mint(ann, history.topic) for _ in range(CLIENTS)]

    async def join(subprotocol: str, at_s: float, draw: float) -> None:
        await writing_began.wait()
        await trio.sleep(at_s)
        async with open_wire(system, subprotocol) as wire:
            await wire.greet(tokens.pop())
            follower = await subscribe(wire, history.topic, random_start(history, draw))
            is_written_to = not history.is_over
            wanted = follower.subscribed.head_seq + LIVE_FRAMES
            with trio.fail_after(PATIENCE_S):
                while follower.completed is None or follower.position < wanted:
                    follower.take(await wire.receive(timeout_s=PATIENCE_S))
            joined.append(Joined(follower, is_written_to))

    async with trio.open_nursery() as clients:
        for number in range(CLIENTS):
            subprotocol = TEXT if number % 10 == 0 else BINARY
            clients.start_soon(join, subprotocol, rng.uniform(0, 0.9 * WRITTEN_S), rng.random())
        writing_began.set()
        began = trio.current_time()
        await write(api, ann, history, requests=REQUESTS, batch=BATCH, every_s=EVERY_S)
        rate_per_s = REQUESTS * BATCH / (trio.current_time() - began)
        # Whoever joined last still has to see so many live frames.
        for _ in range(LIVE_FRAMES):
            history.note(await api.append(ann, history.topic, thought("tail")))
    assert rate_per_s > 300, rate_per_s
    return joined
