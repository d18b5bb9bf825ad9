"""A crash severs first and cancels then; what a dead process still does reaches nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from chaos.sim.gates import PortGate, WallClock
from chaos.sim.processes import Place

if TYPE_CHECKING:
    from trio.testing import MockClock


def _note(who: str, what: str, /, **facts: object) -> None:
    del who, what, facts


async def test_a_crash_severs_before_it_cancels(autojump_clock: MockClock) -> None:
    """Cleanup finds the gate closed, its calls do not return, and the successor does not wait for it."""
    seen: list[object] = []

    async def program(gate: PortGate) -> None:
        gate.on_sever(lambda: seen.append(("severed", gate.name)))
        try:
            await trio.sleep_forever()
        finally:
            seen.append(("unwinds", gate.name, gate.is_severed))
            with trio.move_on_after(5.0, shield=True) as cleanup:
                await gate.cross("journal.rollback")
            seen.append(("gave up", gate.name, cleanup.cancelled_caught))

    async with trio.open_nursery() as nursery:
        place = Place("node-1", "node", program, nursery=nursery, note=_note, failed=lambda *_: None)
        place.start()
        await trio.sleep(1.0)
        place.kill()
        place.start()
        await trio.sleep(1.0)
        assert place.is_up
        assert place.gate is not None
        assert place.gate.name == "node-1.2"
        assert seen == [("severed", "node-1.1"), ("unwinds", "node-1.1", True)]
        await trio.sleep(10.0)
        assert seen[-1] == ("gave up", "node-1.1", True)
        assert autojump_clock.current_time() == 12.0
        place.end()
        nursery.cancel_scope.cancel()


async def test_what_ends_by_itself_comes_back(autojump_clock: MockClock) -> None:
    """A process that left is started again; one that failed is also told of."""
    failures: list[str] = []
    lives = 0

    async def program(gate: PortGate) -> None:
        nonlocal lives
        lives += 1
        if gate.name.endswith(".1"):
            return
        if gate.name.endswith(".2"):
            raise LookupError
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        place = Place(
            "node-1", "node", program, nursery=nursery, note=_note, failed=lambda who, _: failures.append(who)
        )
        place.start()
        await trio.sleep(5.0)
        assert (lives, failures) == (3, ["node-1.2"])
        assert autojump_clock.current_time() == 5.0
        nursery.cancel_scope.cancel()


async def test_a_gate_takes_back_and_calls_once() -> None:
    """Registered calls are made in order, once; one that was taken back is not made."""
    gate = PortGate("node-1.1", "node", "node-1", WallClock(), _note)
    calls: list[str] = []
    gate.on_sever(lambda: calls.append("first"))
    forget = gate.on_sever(lambda: calls.append("forgotten"))
    gate.on_sever(lambda: calls.append("last"))
    forget()
    gate.sever()
    gate.sever()
    assert calls == ["first", "last"]
    gate.on_sever(lambda: calls.append("at once"))
    assert calls[-1] == "at once"
    with trio.move_on_after(0.01) as waited:
        await gate.cross("anything")
    assert waited.cancelled_caught
