"""KH-41: a node that starts before what it needs: refuses with a time, asks again, opens by itself."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala.actors.start_gate import StartGate
from khala_contracts.codec import ErrorMessage, Renew, Renewed, Welcome
from tests.actors.khala.fake_control import FixedRng
from tests.actors.khala.node_under_test import hello_with, open_node

if TYPE_CHECKING:
    from trio.testing import MockClock

    from khala_service.readiness import ReadyCheck

PARTS = ("journal", "control_keys", "fanout")


@attrs.define
class _World:
    """What is there already."""

    present: set[str] = attrs.field(factory=set)
    asked: list[tuple[float, str]] = attrs.field(factory=list)

    def checks(self) -> dict[str, ReadyCheck]:
        """Return a check of each part."""

        def check_of(name: str) -> ReadyCheck:
            async def check() -> str | None:
                await trio.lowlevel.checkpoint()
                self.asked.append((trio.current_time(), name))
                return None if name in self.present else "unreachable"

            return check

        return {name: check_of(name) for name in PARTS}


@pytest.mark.parametrize("order", list(permutations(PARTS)))
async def test_all_start_orders(autojump_clock: MockClock, order: tuple[str, ...]) -> None:
    """Whatever comes last: until then each hello is ``unavailable`` with a time and spends nothing."""
    world = _World()
    async with open_node() as node:
        gate = StartGate(world.checks(), rng=FixedRng(0.5))
        node.commands.gate = gate
        node.nursery.start_soon(gate.run)
        for name in order:
            await trio.sleep(7)
            client = node.open_client()
            client.say(hello_with(node.grant()))
            await node.settle()
            error = client.take(ErrorMessage)
            assert (error.code, error.retry_after_ms, client.close_code) == ("unavailable", 1_500, 4004)
            world.present.add(name)
        assert node.control.spent == {}
        assert node.counters.hellos_refused == {"unavailable": 3}
        await trio.sleep(2.1)
        assert gate.is_open
        client = node.open_client()
        client.say(hello_with(node.grant()))
        await node.settle()
        client.take(Welcome)


async def test_what_is_missing_is_asked_for_with_backoff(autojump_clock: MockClock) -> None:
    """0.25 s doubling to 2 s, and only what has not answered yet."""
    world = _World({"journal", "fanout"})
    gate = StartGate(world.checks(), rng=FixedRng())
    with trio.move_on_after(10):
        await gate.run()
    assert gate.missing == ("control_keys",)
    asked = [at for at, name in world.asked if name == "control_keys"]
    assert asked == [0, 0.25, 0.75, 1.75, 3.75, 5.75, 7.75, 9.75]
    assert sorted(name for _, name in world.asked if name != "control_keys") == ["fanout", "journal"]


async def test_a_check_that_hangs_does_not_hide_the_others(autojump_clock: MockClock) -> None:
    """A swallowed packet costs the time limit of a check, not the others their answers."""

    async def hang() -> str | None:
        await trio.sleep_forever()
        return None

    world = _World({"journal"})
    gate = StartGate({"hangs": hang, "journal": world.checks()["journal"]}, rng=FixedRng())
    await gate.ask()
    assert gate.missing == ("hangs",)
    assert trio.current_time() == 2


async def test_open_stays_open(autojump_clock: MockClock) -> None:
    """Later trouble is answered where it is met; a renew is never turned away at the gate."""
    world = _World(set(PARTS))
    async with open_node() as node:
        gate = StartGate(world.checks(), rng=FixedRng())
        node.commands.gate = gate
        await gate.run()
        world.present.clear()
        client = await node.connect()
        client.say(Renew(node.grant()))
        await node.settle()
        client.take(Renewed)
