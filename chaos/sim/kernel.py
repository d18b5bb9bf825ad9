"""Where a world gets its time and its order from: one trio run per seed, and nothing that is not the seed's.

The one module that relies on private parts of trio (tests/sim/test_kernel.py says which, and fails when they
change): its scheduler sorts and shuffles each batch of tasks by a `random.Random` of trio's own when it
is told to, as it does for hypothesis; that generator is seeded here. Time is virtual, without a wait.

What else would differ between two processes is closed off for the length of a run:

    order of sets of str and bytes     PYTHONHASHSEED, by re-executing this process (`fix_hashes`)
    os.urandom (WebSocket masks)       drawn from the seed
    the random module (ping payloads)  seeded
    the garbage collector              off; collected between two runs, at fixed counts
"""

from __future__ import annotations

import gc
import os
import random
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import trio
import trio._core._run as trio_run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = ["HASH_SEED", "VirtualClock", "fix_hashes", "hashes_are_fixed", "run_seeded"]

HASH_SEED: Final = "0"
# Runs between two collections. More: cycles of dead worlds fill the memory. Fewer: time.
_COLLECT_EVERY: Final = 8
# Virtual seconds after which a world has waited for nothing; ten years.
_LIFE_S: Final = 10 * 365 * 86_400.0

T = TypeVar("T")
_runs = 0


class VirtualClock(trio.abc.Clock):
    """Stands still while a task can run and jumps to the next deadline when none can; starts at 0.

    trio asks for a sleeping time only when no task can run, so the jump is made there. What another
    callback has scheduled (``run_sync_soon``) comes first: it arrives through a real pipe.
    """

    def __init__(self) -> None:
        """Start at 0."""
        self._now = 0.0

    def start_clock(self) -> None:
        """Do nothing: the clock is there."""

    def current_time(self) -> float:
        """Return virtual seconds."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Jump to ``deadline`` and return 0: nobody sleeps in real time."""
        if deadline <= self._now:
            return 0.0
        if trio_run.GLOBAL_RUN_CONTEXT.runner.entry_queue.size():
            return 1.0
        self._now = deadline
        return 0.0


def hashes_are_fixed() -> bool:
    """Return whether this interpreter hashes str and bytes as every other run of a seed does."""
    return os.environ.get("PYTHONHASHSEED") == HASH_SEED


def fix_hashes(arguments: list[str]) -> None:
    """Become the same process with fixed hashes; return if it has them already.

    Args:
        arguments: What to run it with, after the interpreter.
    """
    if hashes_are_fixed():
        return
    environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *arguments], environment)  # noqa: S606 - our own interpreter


def run_seeded(seed: int, main: Callable[[], Awaitable[T]]) -> T:
    """Run ``main`` to its end in virtual time, ordered by ``seed`` alone.

    Raises: what ``main`` raises; TooSlowError if every task waits for ever.
    """

    async def live() -> T:
        with trio.fail_after(_LIFE_S):
            return await main()

    global _runs
    _runs += 1
    if _runs % _COLLECT_EVERY == 0:
        gc.collect()
    with _collector_off(), _seeded_libraries(seed), _seeded_scheduler(seed):
        return trio.run(live, clock=VirtualClock())


@contextmanager
def _collector_off() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def _seeded_scheduler(seed: int) -> Iterator[None]:
    was = trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio_run._r.seed(seed)
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = was  # type: ignore[misc]
        trio_run._r.seed()


@contextmanager
def _seeded_libraries(seed: int) -> Iterator[None]:
    source = random.Random(seed ^ 0x6B68616C61)
    real, state = os.urandom, random.getstate()
    random.seed(seed)
    os.urandom = source.randbytes
    try:
        yield
    finally:
        os.urandom = real
        random.setstate(state)
