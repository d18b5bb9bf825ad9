"""Reading a whole topic and proving it against what the authority states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from khala_client.errors import ChainMismatch, KhalaError
from khala_client.ring.whole_history import WholeHistory
from khala_contracts.chain import chain_start
from khala_contracts.topics import TopicName
from tests.actors.khala_client.loops import on_both_loops
from tests.unit.khala_client.node_model import topic_number

if TYPE_CHECKING:
    from khala_client.events import Event
    from tests.actors.khala_client.world import World

RUN, LIST = topic_number(1), TopicName(f"user:usr_{1:026d}:runs")


async def read(world: World, topic: TopicName) -> tuple[WholeHistory, list[Event]]:
    """Read everything."""
    events: list[Event] = []
    async with world.front(world.settings, wall_clock=lambda: 0.0) as khala:
        history = await WholeHistory.open(khala, topic, silence_max_s=10)
        await history.read(events.append)
    return history, events


@on_both_loops
async def test_a_run_is_read_by_pages(world: World) -> None:
    """From seq 1, also below the floor: its log is never pruned; without a WebSocket."""
    log = world.add(RUN, 120)
    log.floor_seq = 50
    history, events = await read(world, RUN)
    assert [event.seq for event in events] == list(range(1, 121))
    assert (history.seq, history.chain, history.first_seq) == (120, log.chains[120], 1)
    assert history.chain_before == chain_start(RUN)
    assert len(world.calls("/events")) > 1
    assert world.connections == []


@on_both_loops
async def test_another_topic_is_followed_from_its_floor(world: World) -> None:
    """There are no pages of it: what is retained comes over the WebSocket."""
    log = world.add(LIST, 40)
    log.floor_seq = 11
    history, events = await read(world, LIST)
    assert [event.seq for event in events] == list(range(11, 41))
    assert (history.first_seq, history.chain_before, history.chain) == (11, log.chains[10], log.chains[40])


@pytest.mark.parametrize("topic", [RUN, LIST])
@on_both_loops
async def test_nothing_was_written(world: World, topic: TopicName) -> None:
    """An empty topic is proven by its own beginning."""
    world.add(topic)
    history, events = await read(world, topic)
    assert (history.seq, events, world.connections) == (0, [], [])


@pytest.mark.parametrize("bad_seq", [1, 2, 37, 99, 100, 101, 120])
@on_both_loops
async def test_a_changed_event_is_found(world: World, bad_seq: int) -> None:
    """Its payload is not what the chain seals: named exactly, wherever it stands in its page."""
    log = world.add(RUN, 120)
    log.frames[bad_seq - 1] = attrs.evolve(log.frames[bad_seq - 1], payload=b"\x0a\x01y")
    with pytest.raises(ChainMismatch) as refused:
        await read(world, RUN)
    assert refused.value.seq == bad_seq


@on_both_loops
async def test_a_missing_event_is_found(world: World) -> None:
    """The rest has moved up; the head that was stated is not reached, or not with this chain."""
    log = world.add(RUN, 20)
    del log.frames[4]
    with pytest.raises(ChainMismatch):
        await read(world, RUN)


@on_both_loops
async def test_a_floor_that_is_not_the_historys(world: World) -> None:
    """What the head row states about its floor is compared, too."""
    log = world.add(RUN, 20)
    log.floor_seq, log.chains[4] = 5, bytes(32)
    with pytest.raises(ChainMismatch) as refused:
        await read(world, RUN)
    assert refused.value.seq == 4


@on_both_loops
async def test_a_topic_that_is_not_there(world: World) -> None:
    """Refused as such."""
    with pytest.raises(KhalaError, match="not_found"):
        await read(world, RUN)
