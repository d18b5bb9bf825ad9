"""Processes that live, are killed, leave and come back.

A place (a host) runs one incarnation after the other of the same process, each with a gate of its own. A
crash severs the gate first and cancels the nursery afterwards, in a task that nobody waits for: what the
dead process still does while it unwinds reaches nothing, and its successor may be there before it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio

from chaos.sim.gates import PortGate, WallClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.sim.gates import Note

__all__ = ["Place", "Program"]

# A supervisor starts again what has ended by itself.
_BACK_IN_S: Final = 0.5


class Program(Protocol):
    """What a place runs: serves behind the gate until it is cancelled or has left."""

    async def __call__(self, gate: PortGate) -> None:
        """Serve one incarnation; returning is leaving in order."""


class Place:
    """One host and the process on it."""

    def __init__(
        self,
        name: str,
        role: str,
        program: Program,
        *,
        nursery: trio.Nursery,
        note: Note,
        failed: Callable[[str, BaseException], None],
    ) -> None:
        """Run ``program`` in ``nursery``; ``failed`` is told of what ends it by itself."""
        self.name = name
        self.role = role
        self.clock = WallClock()
        self.gate: PortGate | None = None
        self.incarnations = 0
        self._program = program
        self._nursery = nursery
        self._note = note
        self._failed = failed
        self._scope: trio.CancelScope | None = None
        self._is_over = False

    @property
    def is_up(self) -> bool:
        """Whether a process runs here."""
        return self.gate is not None and not self.gate.is_severed

    def start(self) -> None:
        """Start an incarnation; nothing happens if one runs."""
        if self.is_up:
            return
        self.incarnations += 1
        name = f"{self.name}.{self.incarnations}"
        self.gate = PortGate(name, self.role, self.name, self.clock, self._note)
        self._scope = trio.CancelScope()
        self._note(name, "starts")
        self._nursery.start_soon(self._run, self.gate, self._scope)

    def start_in(self, delay_s: float) -> None:
        """Start an incarnation after a while."""
        self._nursery.start_soon(self._start_later, delay_s)

    async def _start_later(self, delay_s: float) -> None:
        await trio.sleep(delay_s)
        if not self._is_over:
            self.start()

    def end(self) -> None:
        """Kill what runs here, for good."""
        self._is_over = True
        self.kill()

    def kill(self) -> None:
        """Kill what runs here: sever, then cancel."""
        if self.gate is None or self.gate.is_severed:
            return
        assert self._scope is not None
        self._note(self.gate.name, "is killed")
        self.gate.sever()
        self._scope.cancel()

    async def _run(self, gate: PortGate, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await self._program(gate)
                if not gate.is_severed:
                    self._note(gate.name, "has left")
                    self.start_in(_BACK_IN_S)
        except Exception as error:  # noqa: BLE001 - a process that ends by itself is the verdict's business
            if not gate.is_severed:
                self._note(gate.name, "fails", error=type(error).__name__)
                self._failed(gate.name, error)
                self.start_in(_BACK_IN_S)
        finally:
            gate.sever()
