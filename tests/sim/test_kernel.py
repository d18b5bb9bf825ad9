"""What a world's time and order rest on; fails first if trio changes what kernel.py relies on."""

from __future__ import annotations

import inspect
import os
import random
from typing import TYPE_CHECKING

import pytest
import trio
import trio._core._run as trio_run

from chaos.sim.kernel import run_seeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def _order(seed: int) -> list[tuple[int, float]]:
    async def main() -> list[tuple[int, float]]:
        steps: list[tuple[int, float]] = []

        async def task(number: int) -> None:
            for _ in range(3):
                await trio.sleep(0.1 * (number % 3))
                steps.append((number, trio.current_time()))

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(task, number)
        return steps

    return run_seeded(seed, main)


def test_one_seed_is_one_order() -> None:
    """The same seed gives the same order, also after another ran; another seed another one."""
    first = _order(1)
    assert _order(2) != first
    assert _order(1) == first


def test_what_it_relies_on_of_trio() -> None:
    """Sorted batches behind a switch, shuffled by `_r`; a queue of callbacks that tells its size."""
    source = inspect.getsource(trio_run.unrolled_run)
    assert "if _ALLOW_DETERMINISTIC_SCHEDULING:" in source
    assert "batch.sort(key=lambda t: t._counter)" in source
    assert "_r.shuffle(batch)" in source
    assert "runner.clock.deadline_to_sleep_time(deadline)" in source
    assert isinstance(trio_run._r, random.Random)
    assert trio_run._ALLOW_DETERMINISTIC_SCHEDULING is False or "hypothesis" in __import__("sys").modules


def test_no_time_passes_but_the_virtual() -> None:
    """A year is slept in an instant, and ends at its very second."""

    async def main() -> float:
        await trio.sleep(365 * 86_400.0)
        return trio.current_time()

    assert run_seeded(1, main) == 365 * 86_400.0


def test_callbacks_come_before_time() -> None:
    """What ``run_sync_soon`` was given runs before the clock moves on."""

    async def main() -> float:
        said: list[float] = []
        trio.lowlevel.current_trio_token().run_sync_soon(lambda: said.append(trio.current_time()))
        await trio.sleep(5.0)
        return said[0]

    assert run_seeded(1, main) == 0.0


def test_a_world_in_which_all_wait_for_ever_ends() -> None:
    """It is told, not waited for."""

    async def main() -> None:
        await trio.sleep_forever()

    with pytest.raises(trio.TooSlowError):
        run_seeded(1, main)


def test_what_libraries_draw_is_of_the_seed_and_only_inside() -> None:
    """WebSocket masks and ping payloads repeat with the seed; afterwards everything is as before."""

    async def draw() -> tuple[bytes, int]:
        await trio.lowlevel.checkpoint()
        return os.urandom(8), random.getrandbits(32)

    main: Callable[[], Awaitable[tuple[bytes, int]]] = draw
    real, state = os.urandom, random.getstate()
    first = run_seeded(7, main)
    assert run_seeded(7, main) == first != run_seeded(8, main)
    assert os.urandom is real
    assert random.getstate() == state
