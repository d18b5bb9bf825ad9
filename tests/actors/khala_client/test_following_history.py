"""Where a follower begins and what it keeps: stale cursors, history by pages, what a store has of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import attrs
import pytest

from khala_client.errors import (
    ChainMismatch,
    StaleCursor,
)
from khala_client.notices import HistoryRead, Live, Notice
from khala_client.store import MemoryStore, SqliteStore
from tests.actors.khala_client.following import TOPIC, append_when, client, fail_after_two, take
from tests.actors.khala_client.loops import on_both_loops

if TYPE_CHECKING:
    from pathlib import Path

    from tests.actors.khala_client.world import World


@on_both_loops
async def test_stale_is_raised_with_its_observation(world: World) -> None:
    """Retention passed the cursor."""
    log = world.add(TOPIC, 9)
    log.floor_seq = 5
    async with client(world) as khala, khala.subscribe(TOPIC, after="beginning") as events:
        with pytest.raises(StaleCursor) as stale:
            await take(events, 1)
    assert (stale.value.reason, stale.value.floor_seq, stale.value.head_seq) == ("retention_expired", 5, 9)


@pytest.mark.parametrize("after", ["beginning", "saved", 2])
@on_both_loops
async def test_history_by_pages_then_live(world: World, after: int) -> None:
    """What is not replayed any more is read from the log, verified, and followed from there."""
    log = world.add(TOPIC, 9)
    log.floor_seq = 8
    notices: list[Notice] = []
    first = 3 if after == 2 else 1
    async with (
        client(world) as khala,
        khala.subscribe(TOPIC, after=after, history_by_pages=True, on_notice=notices.append) as events,
    ):
        assert await take(events, 10 - first) == list(range(first, 10))
        assert not any(isinstance(notice, Live) for notice in notices)
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(append_when, world, lambda: events.is_live)
            assert await take(events, 1) == [10]
    assert [type(notice) for notice in notices if isinstance(notice, HistoryRead | Live)][-1] is Live
    assert sum(isinstance(notice, HistoryRead) for notice in notices) >= 2


@on_both_loops
async def test_a_forged_page_is_refused(world: World) -> None:
    """A page must continue the chain that we hold and end in the one that it states."""
    log = world.add(TOPIC, 9)
    log.floor_seq = 8
    log.frames[4] = attrs.evolve(log.frames[4], payload=b"\x0a\x06forged")
    async with client(world) as khala, khala.subscribe(TOPIC, history_by_pages=True) as events:
        with pytest.raises(ChainMismatch):
            await take(events, 9)


@pytest.mark.parametrize("change", ["lineage", "chain"])
@on_both_loops
async def test_pages_of_another_history_are_refused(world: World, change: str) -> None:
    """A page that does not continue what was applied: another lineage, or another chain at our seq."""
    log = world.add(TOPIC, 9)
    store = MemoryStore()
    async with client(world) as khala:
        async with khala.subscribe(TOPIC, store=store) as events:
            await take(events, 4)
        log.floor_seq = 8
        async with khala.subscribe(TOPIC, store=store, history_by_pages=True) as events:
            while not world.connections[-1].node.starts:
                await anyio.sleep(0.001)
            if change == "lineage":
                log.lineage = "lin_2"
            else:
                log.chains[4] = bytes(32)
            with pytest.raises(StaleCursor) as stale:
                await take(events, 1)
    assert stale.value.reason == "lineage_mismatch"


@on_both_loops
async def test_pages_do_not_cure_another_history(world: World) -> None:
    """lineage_mismatch is raised as it is."""
    log = world.add(TOPIC, 5)
    store = MemoryStore()
    async with client(world) as khala:
        async with khala.subscribe(TOPIC, store=store) as events:
            await take(events, 5)
        log.lineage = "lin_2"
        async with khala.subscribe(TOPIC, store=store, history_by_pages=True) as events:
            with pytest.raises(StaleCursor) as stale:
                await take(events, 1)
    assert stale.value.reason == "lineage_mismatch"


@on_both_loops(real_time=True)
async def test_what_was_processed_is_saved(world: World, tmp_path: Path) -> None:
    """The event given last counts when the block is left well, not when it is left by an exception."""
    world.add(TOPIC, 6)
    store = SqliteStore.open(tmp_path / "store.sqlite3", namespace="n")
    async with client(world) as khala:
        async with khala.subscribe(TOPIC, store=store) as events:
            await take(events, 2)
        saved = store.load_cursor(TOPIC)
        assert saved is not None
        assert saved.seq == 2
        with pytest.raises(ZeroDivisionError):
            await fail_after_two(khala, store)
        async with khala.subscribe(TOPIC, store=store) as events:
            assert await take(events, 3) == [4, 5, 6]
    assert [event.seq for event in store.read_history(TOPIC)] == [1, 2, 3, 4, 5, 6]
    store.close()


@on_both_loops(real_time=True)
async def test_a_long_replay_is_committed_on_the_way(world: World, tmp_path: Path) -> None:
    """A crash repeats at most the last 256 events, and what is being processed."""
    world.add(TOPIC, 700)
    world.frames_per_message = 350
    store = SqliteStore.open(tmp_path / "store.sqlite3", namespace="n")
    async with client(world) as khala, khala.subscribe(TOPIC, store=store) as events:
        for seq in range(1, 701):
            assert await take(events, 1) == [seq]
            saved = store.load_cursor(TOPIC)
            assert saved is not None
            assert seq - saved.seq <= 257
    store.close()


@on_both_loops
async def test_frames_are_counted_exactly(world: World) -> None:
    """KH-24: what was applied, repeated, behind a gap."""
    world.add(TOPIC, 6)
    world.frames_per_message = 1
    seen = 0

    def disturb(data: bytes) -> list[bytes]:
        nonlocal seen
        seen += data[:1] == b"\x0a"
        return [] if seen == 4 else [data, data, data] if seen == 2 else [data]

    world.fault = disturb
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        await take(events, 6)
        assert (events.counts.applied, events.counts.duplicates, events.counts.gaps) == (6, 2, 1)


@on_both_loops(real_time=True)
async def test_waiting_commits_what_came_before(world: World, tmp_path: Path) -> None:
    """While a follower waits for the next event, everything before it is durable."""
    world.add(TOPIC, 4)
    store = SqliteStore.open(tmp_path / "store.sqlite3", namespace="n")
    async with client(world) as khala, khala.subscribe(TOPIC, store=store) as events:
        await take(events, 4)
        with anyio.move_on_after(0.2):
            await events.__anext__()
        saved = store.load_cursor(TOPIC)
        assert saved is not None
        assert saved.seq == 4
    store.close()


@on_both_loops
async def test_a_cancelled_wait_loses_nothing(world: World) -> None:
    """The event goes to the next call."""
    world.add(TOPIC, 0)
    async with client(world) as khala, khala.subscribe(TOPIC) as events:
        for seq in range(1, 4):
            with anyio.move_on_after(0.01):
                await events.__anext__()
            await world.append(TOPIC)
            assert await take(events, 1) == [seq]


@on_both_loops
async def test_an_explicit_start_begins_a_store_anew(world: World) -> None:
    """Named together with a store; without one, nothing is remembered."""
    world.add(TOPIC, 5)
    store = MemoryStore(keep_frames=True)
    async with client(world) as khala:
        async with khala.subscribe(TOPIC, store=store) as events:
            await take(events, 5)
        async with khala.subscribe(TOPIC, after=3, store=store) as events:
            assert await take(events, 2) == [4, 5]
        async with khala.subscribe(TOPIC, after="beginning") as events:
            assert await take(events, 5) == [1, 2, 3, 4, 5]
    assert [event.seq for event in store.read_history(TOPIC)] == [4, 5]


@on_both_loops
async def test_a_stale_store_begins_again_as_a_fresh_one(world: World) -> None:
    """KH-07: stale leaves the store as it was; a bootstrap resets its position before the first event counts."""
    log = world.add(TOPIC, 3)
    stale, fresh = MemoryStore(keep_frames=True), MemoryStore(keep_frames=True)
    async with client(world) as khala:
        async with khala.subscribe(TOPIC, store=stale) as events:
            await take(events, 3)
        log.append(6)
        log.floor_seq = 6
        async with khala.subscribe(TOPIC, store=stale) as events:
            with pytest.raises(StaleCursor):
                await take(events, 1)
        before = stale.load_cursor(TOPIC)
        assert before is not None
        assert (before.seq, [event.seq for event in stale.read_history(TOPIC)]) == (3, [1, 2, 3])
        for store in (stale, fresh):
            async with khala.subscribe(TOPIC, after="earliest", store=store) as events:
                assert await take(events, 1) == [6]
                began = store.load_cursor(TOPIC)
                assert began is not None
                assert (began.seq, began.chain) == (5, log.chains[5])
                assert list(store.read_history(TOPIC)) == []
                assert await take(events, 3) == [7, 8, 9]
    assert stale.load_cursor(TOPIC) == fresh.load_cursor(TOPIC)
    assert list(stale.read_history(TOPIC)) == list(fresh.read_history(TOPIC))


@on_both_loops
async def test_a_stale_store_that_reads_pages_ends_as_a_fresh_one(world: World) -> None:
    """KH-07: what is not replayed any more is read and verified first; then both hold the same, to the byte."""
    log = world.add(TOPIC, 3)
    stale, fresh = MemoryStore(keep_frames=True), MemoryStore(keep_frames=True)
    async with client(world) as khala:
        async with khala.subscribe(TOPIC, store=stale) as events:
            await take(events, 3)
        log.append(6)
        log.floor_seq = 6
        async with khala.subscribe(TOPIC, store=stale, history_by_pages=True) as events:
            assert await take(events, 6) == [4, 5, 6, 7, 8, 9]
        async with khala.subscribe(TOPIC, store=fresh, history_by_pages=True) as events:
            assert await take(events, 9) == list(range(1, 10))
    assert stale.load_cursor(TOPIC) == fresh.load_cursor(TOPIC)
    assert list(stale.read_history(TOPIC)) == list(fresh.read_history(TOPIC))
