"""The collector of a service that has started."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest
import trio

from khala_service import garbage
from khala_service.garbage import (
    EVERYTHING_EVERY,
    LOOK_EVERY_S,
    SURVIVORS_EVERY,
    YOUNG_OBJECTS,
    collect_by_the_clock,
    settle_collector,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock


@pytest.fixture
def collector() -> Iterator[None]:
    """Give the collector of the tests back as it was."""
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_what_was_there_is_not_looked_at_again(collector: None) -> None:
    """What is there is left out of later looks, what comes later is not."""
    before = [object() for _ in range(3)]
    settle_collector()
    after = [[]]  # type: list[list[object]]
    tracked = gc.get_objects()
    assert gc.get_freeze_count() > 1_000
    assert not any(kept is before for kept in tracked)
    assert any(kept is after for kept in tracked)
    assert gc.get_threshold() == (YOUNG_OBJECTS, SURVIVORS_EVERY - 1, EVERYTHING_EVERY)


def test_garbage_that_comes_later_is_collected(collector: None) -> None:
    """A cycle made after the start is found."""
    settle_collector()
    ring: list[object] = []
    ring.append(ring)
    del ring
    assert gc.collect() >= 1


class _Ring:
    """Refers to itself."""

    def __init__(self) -> None:
        self.ring = self


async def test_what_is_young_is_looked_at_by_the_clock(collector: None, autojump_clock: MockClock) -> None:
    """Cycles go within a look, those that have survived one within three; nothing has to be made for that."""
    gc.collect()
    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect_by_the_clock)
            await trio.sleep(LOOK_EVERY_S / 2)
            young, older = weakref.ref(_Ring()), weakref.ref(held := _Ring())
            assert young() is not None
            await trio.sleep(LOOK_EVERY_S)
            assert young() is None
            del held
            assert older() is not None
            await trio.sleep(LOOK_EVERY_S * (SURVIVORS_EVERY - 1))
            assert older() is None
            nursery.cancel_scope.cancel()
    finally:
        gc.enable()


async def test_what_is_old_is_looked_at_too(
    collector: None, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cycle that has survived every other look goes with the next look at everything."""
    monkeypatch.setattr(garbage, "EVERYTHING_EVERY", 20)
    gc.collect()
    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect_by_the_clock)
            old = weakref.ref(held := _Ring())
            await trio.sleep(LOOK_EVERY_S * 9.5)
            del held
            await trio.sleep(LOOK_EVERY_S * 10)
            assert old() is not None
            await trio.sleep(LOOK_EVERY_S)
            assert old() is None
            nursery.cancel_scope.cancel()
    finally:
        gc.enable()
