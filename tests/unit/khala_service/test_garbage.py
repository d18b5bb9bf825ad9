"""The collector of a service that has started."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from khala_service.garbage import LOOKS, YOUNG_OBJECTS, settle_collector

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def collector() -> Iterator[None]:
    """Give the collector of the tests back as it was."""
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_what_was_there_is_not_looked_at_again(collector: None) -> None:
    """What is there is left out of later looks, what comes later is not, and looks are rarer."""
    before = [object() for _ in range(3)]
    settle_collector()
    after = [[]]  # type: list[list[object]]
    tracked = gc.get_objects()
    assert gc.get_freeze_count() > 1_000
    assert not any(kept is before for kept in tracked)
    assert any(kept is after for kept in tracked)
    assert gc.get_threshold() == (YOUNG_OBJECTS, LOOKS, LOOKS)


def test_garbage_that_comes_later_is_collected(collector: None) -> None:
    """A cycle made after the start is found."""
    settle_collector()
    ring: list[object] = []
    ring.append(ring)
    del ring
    assert gc.collect() >= 1
