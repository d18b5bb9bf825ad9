"""What tests of followers share: two topics, a client of a world, and taking events from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from tests.actors.khala_client.loops import Halves, eventually
from tests.unit.khala_client.node_model import topic_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala_client.events import Event
    from khala_client.ring.khala import Khala
    from khala_client.ring.subscription import Subscription
    from khala_client.store import Store
    from tests.actors.khala_client.world import World

TOPIC, OTHER = topic_number(1), topic_number(2)


def client(world: World) -> Khala:
    """Return a client of the world."""
    return world.front(world.settings, rng=Halves(), wall_clock=lambda: 0.0)


async def take(events: Subscription, count: int) -> list[int]:
    """Return the seqs of the next events; a lost one is a failure, not a hang."""
    taken: list[Event] = []
    with anyio.fail_after(20):
        while len(taken) < count:
            taken.append(await events.__anext__())
    return [event.seq for event in taken]


async def append_when(world: World, condition: Callable[[], bool]) -> None:
    """Commit one frame of TOPIC as soon as the condition holds."""
    await eventually(condition)
    await world.append(TOPIC)


async def fail_after_two(khala: Khala, store: Store) -> None:
    """Follow, take two events, and fail while the second is being processed."""
    async with khala.subscribe(TOPIC, store=store) as events:
        await take(events, 2)
        raise ZeroDivisionError
