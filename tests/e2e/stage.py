"""Who there is and what there is to read, for tests of refusals: made once a module, then only read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from tests.e2e.wire import Person, Position, open_api, thought

if TYPE_CHECKING:
    from khala_contracts.topics import TopicName
    from tests.e2e.system import System

OTHER_DEVICE: Final = "dev_fedcba9876543210"
EVENTS: Final = 12


@attrs.frozen
class Stage:
    """Ann with a run of some events, Bob with another run, and a run that nobody has."""

    ann: Person
    topic: TopicName
    positions: tuple[Position, ...]
    bob: Person
    foreign: TopicName
    unknown: str

    @property
    def head(self) -> Position:
        """The newest position of Ann's run."""
        return self.positions[-1]


def set_stage(system: System) -> Stage:
    """Sign both in and write what there is."""

    async def set_up() -> Stage:
        async with open_api(system) as api:
            ann, bob = await api.sign_in("ann"), await api.sign_in("bob", OTHER_DEVICE)
            topic, foreign = await api.create_run(ann), await api.create_run(bob)
            events = [thought(f"text {number}") for number in range(EVENTS - 1)]
            positions = [await api.watermark(ann, topic), *await api.append(ann, topic, *events)]
            return Stage(ann, topic, tuple(positions), bob, foreign, f"run:run_{1:026d}:events")

    return trio.run(set_up)
