"""Limits that change while a process runs: one object that everybody reads, replaced in one step.

Whoever is given an object of limits reads its fields when it needs them and keeps no copy. ``take_over`` awaits
nothing and the loop is one thread, so nobody sees a half of a change, and a reader pays for nothing but the read
of an attribute (ADR-0015). Where something must be made with a value (a queue, a buffer of the kernel, a pool) the
field says from when on another one counts.

Invariant: a value that is shown (metrics, ``welcome``) is the one in force, RESTART fields included.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeVar

import attrs

from khala_service.config_fields import described

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LimitChange", "TakesEffect", "described_limit", "effect_of", "numbers_of", "take_over"]

L = TypeVar("L", bound=attrs.AttrsInstance)
_EFFECT: Final = "khala_takes_effect"


class TakesEffect(Enum):
    """From when on a value that was read again counts; the texts end a field's explanation."""

    AT_ONCE = ""
    # Connections, topics and backlogs that begin after the change.
    NEW = " Read again: for what begins afterwards."
    RESTART = " Not read again: takes effect at the next start."


@attrs.frozen
class LimitChange:
    """One value that differs; it is in force unless it waits for a restart."""

    name: str
    old: object
    new: object
    takes_effect: TakesEffect


def described_limit(doc: str, takes_effect: TakesEffect = TakesEffect.AT_ONCE) -> dict[str, object]:
    """Return attrs metadata of a limit: its explanation, unit included, and when a change counts."""
    return {**described(doc + takes_effect.value), _EFFECT: takes_effect}


def effect_of(field: attrs.Attribute[object]) -> TakesEffect:
    """Return when a change of this field counts."""
    effect = field.metadata.get(_EFFECT, TakesEffect.AT_ONCE)
    assert isinstance(effect, TakesEffect)
    return effect


def take_over(held: L, wanted: L) -> tuple[LimitChange, ...]:
    """Give ``held`` the values of ``wanted``, all in one step; return what differs, in the order of the fields.

    ``held`` may be a frozen instance: this is the one place that changes it. Values that need a restart stay.
    """
    changes = []
    for field in attrs.fields(type(held)):
        old, new = getattr(held, field.name), getattr(wanted, field.name)
        if old == new:
            continue
        changes.append(LimitChange(field.name, old, new, effect_of(field)))
        if changes[-1].takes_effect is not TakesEffect.RESTART:
            object.__setattr__(held, field.name, new)
    return tuple(changes)


def numbers_of(limits: attrs.AttrsInstance) -> Iterator[tuple[str, float]]:
    """Yield the limits that are numbers; those of a mapping as ``name.key``."""
    for field in attrs.fields(type(limits)):
        value: object = getattr(limits, field.name)
        if isinstance(value, int | float):
            yield field.name, float(value)
        elif isinstance(value, Mapping):
            yield from ((f"{field.name}.{key}", float(number)) for key, number in value.items())
