"""Runs one test on trio and on asyncio, both on virtual time.

    @on_both_loops
    async def test_something(world: World, tmp_path: Path) -> None: ...

becomes one ordinary test per loop. Time jumps to the next deadline as soon as every task waits: on
trio by MockClock, on asyncio by the loop below. A test that waits for a thread or a process says
``@on_both_loops(real_time=True)``: virtual time would run away while that works.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import selectors
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, overload

import anyio
import attrs
import pytest
import trio.testing

from khala_client import Khala as AsyncioKhala
from khala_client.trio import Khala as TrioKhala
from tests.actors.khala_client.world import open_world

if TYPE_CHECKING:
    from collections.abc import Mapping

    from khala_client.ring.khala import Khala

__all__ = ["LOOPS", "Halves", "LoopKind", "eventually", "on_both_loops"]


Test = Callable[..., Awaitable[None]]
Collected = Callable[..., None]


class _JumpingSelector(selectors.DefaultSelector):
    """Looks whether anything is ready; if not, and a deadline is next, moves the time there."""

    jumped_s: float = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return list(super().select(None))
        self.jumped_s += timeout
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while tasks run, and jumps while they all wait."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds of virtual time, from 0."""
        return self._jumping.jumped_s


@attrs.frozen
class LoopKind:
    """One event loop and the front for it."""

    name: str
    khala: type[Khala]

    def run(self, main: Callable[[], Awaitable[None]], *, real_time: bool) -> None:
        """Run ``main`` to its end."""
        options: dict[str, Any] = {}
        if not real_time:
            options = (
                {"clock": trio.testing.MockClock(autojump_threshold=0)}
                if self.name == "trio"
                else {"loop_factory": JumpingLoop}
            )
        anyio.run(main, backend=self.name, backend_options=options)

    async def cancel(self, call: Callable[[], Awaitable[object]], *, when: Callable[[], bool]) -> None:
        """Await ``call`` in a task, and cancel that as soon as ``when`` holds, as applications on this loop do.

        On asyncio that is ``Task.cancel``: one CancelledError at whatever await the task is in, shielded or
        not. It is sent twice, since a task that is being cancelled may well be cancelled again.
        """
        if self.name == "trio":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                await eventually(when)
                nursery.cancel_scope.cancel()
            return
        task = asyncio.ensure_future(call())
        await eventually(when)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled(), task.exception()


LOOPS: Final = (LoopKind("trio", TrioKhala), LoopKind("asyncio", AsyncioKhala))


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something has happened; 20 s at most, real or virtual."""
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)


@attrs.frozen
class Halves:
    """An rng whose draws are always one half."""

    def random(self) -> float:
        """Return one half."""
        return 0.5


@overload
def on_both_loops(test: Test) -> Collected: ...


@overload
def on_both_loops(*, real_time: bool) -> Callable[[Test], Collected]: ...


def on_both_loops(
    test: Test | None = None, *, real_time: bool = False
) -> Collected | Callable[[Test], Collected]:
    """Run ``test`` on each loop.

    Its ``world`` is a World served there, its ``khala`` an open client of that, its ``loop`` the LoopKind.
    """
    if test is None:
        return functools.partial(_on_both_loops, real_time=real_time)
    return _on_both_loops(test, real_time=real_time)


def _on_both_loops(test: Test, *, real_time: bool) -> Collected:
    asked = inspect.signature(test).parameters

    def on_one_loop(loop: LoopKind, **fixtures: object) -> None:
        given: Mapping[str, object] = fixtures | ({"loop": loop} if "loop" in asked else {})

        async def main() -> None:
            if "world" not in asked:
                await test(**given)
                return
            async with open_world() as world:
                world.front = loop.khala
                if "khala" not in asked:
                    await test(world=world, **given)
                    return
                async with loop.khala(world.settings, rng=Halves(), wall_clock=lambda: 0.0) as khala:
                    await test(world=world, khala=khala, **given)

        loop.run(main, real_time=real_time)

    on_one_loop.__name__, on_one_loop.__doc__ = test.__name__, test.__doc__
    on_one_loop.__module__, on_one_loop.__qualname__ = test.__module__, test.__qualname__
    on_one_loop.pytestmark = list(getattr(test, "pytestmark", []))  # type: ignore[attr-defined]
    keyword = inspect.Parameter.KEYWORD_ONLY
    fixtures = [each for each in asked.values() if each.name not in {"world", "khala", "loop"}]
    on_one_loop.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("loop", keyword),
            *(each.replace(kind=keyword, default=inspect.Parameter.empty) for each in fixtures),
        ]
    )
    marked: Collected = pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.name)(on_one_loop)
    return marked
