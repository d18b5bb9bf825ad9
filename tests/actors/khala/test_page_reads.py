"""Turns of readers: never more than allowed, heals first, first come first served, and no place is lost."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from khala.actors.page_reads import ReaderTurns

if TYPE_CHECKING:
    from trio.testing import MockClock


async def _read(turns: ReaderTurns, log: list[str], name: str, *, is_heal: bool) -> None:
    await turns.enter(is_heal=is_heal)
    with turns.held(is_heal=is_heal):
        log.append(name)
        await trio.sleep(1)


async def test_heals_go_first(autojump_clock: MockClock) -> None:
    """A heal that comes last is served before every replay that waits; within a kind it is first come."""
    turns, log = ReaderTurns(1), list[str]()
    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(partial(_read, turns, log, f"replay {number}", is_heal=False))
            await wait_all_tasks_blocked()
        for number in range(2):
            nursery.start_soon(partial(_read, turns, log, f"heal {number}", is_heal=True))
            await wait_all_tasks_blocked()
    assert log == ["replay 0", "heal 0", "heal 1", *(f"replay {number}" for number in range(1, 6))]


@pytest.mark.parametrize(("readers", "heals"), [(1, 1), (4, 3), (16, 12)])
async def test_heals_leave_a_quarter(autojump_clock: MockClock, readers: int, heals: int) -> None:
    """Replays go on however many topics are behind."""
    turns, log = ReaderTurns(readers), list[str]()
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(partial(_read, turns, log, "heal", is_heal=True))
        await wait_all_tasks_blocked()
        assert turns.healing == heals
        for _ in range(50):
            nursery.start_soon(partial(_read, turns, log, "replay", is_heal=False))
        await wait_all_tasks_blocked()
        assert (turns.reading, turns.healing) == (readers, heals)
    assert (turns.reading, turns.healing, len(log)) == (0, 0, 100)


@pytest.mark.parametrize("seed", range(20))
async def test_cancelled_waiters_keep_no_place(autojump_clock: MockClock, seed: int) -> None:
    """INV-7: whoever is cancelled, waiting or reading, at most readers_max read, and every place comes back."""
    rng = Random(seed)
    turns, log = ReaderTurns(3), list[str]()

    async def read_for(lifetime_s: float, *, is_heal: bool) -> None:
        with trio.move_on_after(lifetime_s):
            await _read(turns, log, "x", is_heal=is_heal)

    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(partial(read_for, rng.random() * 8, is_heal=rng.random() < 0.5))
            assert turns.reading <= 3
            await trio.sleep(rng.random() / 4)
    assert (turns.reading, turns.healing) == (0, 0)
    assert log
