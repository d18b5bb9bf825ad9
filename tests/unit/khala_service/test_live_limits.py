"""Limits that change while a process runs: in one step, for whoever holds the object, and never a restart's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from khala_service.live_limits import LimitChange, TakesEffect, described_limit, numbers_of, take_over

if TYPE_CHECKING:
    from collections.abc import Mapping


@attrs.frozen
class Bounds:
    """Bounds of something."""

    depth_max: int = attrs.field(default=4, metadata=described_limit("How deep."))
    width_max: int = attrs.field(default=8, metadata=described_limit("How wide.", TakesEffect.NEW))
    pool_max: int = attrs.field(default=2, metadata=described_limit("How many.", TakesEffect.RESTART))
    mode: str = "release"
    rates: Mapping[str, float] = attrs.field(factory=dict)


def test_everybody_who_holds_them_sees_the_change() -> None:
    """The object itself changes, frozen or not, and says what differs and when it counts; a restart's stays."""
    held = Bounds()
    reader = held
    changes = take_over(held, Bounds(depth_max=1, width_max=2, pool_max=3))
    assert (reader.depth_max, reader.width_max, reader.pool_max) == (1, 2, 2)
    assert changes == (
        LimitChange("depth_max", 4, 1, TakesEffect.AT_ONCE),
        LimitChange("width_max", 8, 2, TakesEffect.NEW),
        LimitChange("pool_max", 2, 3, TakesEffect.RESTART),
    )
    assert take_over(held, attrs.evolve(held)) == ()


def test_numbers_are_what_is_in_force() -> None:
    """Texts are none; entries of a mapping have names of their own."""
    bounds = Bounds(rates={"warm": 2.5})
    take_over(bounds, attrs.evolve(bounds, depth_max=1, pool_max=9))
    assert dict(numbers_of(bounds)) == {"depth_max": 1, "width_max": 8, "pool_max": 2, "rates.warm": 2.5}
