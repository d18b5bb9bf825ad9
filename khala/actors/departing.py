"""Sees the clients of a leaving node off: each is told when it goes, and closed at its turn.

Owned by the listener, which has stopped accepting; core/departures.py has the turns. A client that obeys
``go_away`` leaves by itself; one that does not is closed at the same time with what the node had for it, so that
the others see both come back spread. INV-36.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from khala.core.departures import plan_departures

if TYPE_CHECKING:
    from collections.abc import Collection

    from khala.actors.connection import Connection
    from khala.core.departures import Departure
    from khala.core.limits import NodeLimits
    from khala.ports import Rng


class Departing:
    """The end of one node's connections."""

    def __init__(self, connections: Collection[Connection], *, limits: NodeLimits, rng: Rng) -> None:
        """See off ``connections``, from which whoever has ended is taken by its owner."""
        self._connections = connections
        self._limits = limits
        self._rng = rng
        self._all_left = trio.Event()

    def note_left(self) -> None:
        """Say that a connection has ended."""
        if not self._connections:
            self._all_left.set()

    async def run(self) -> None:
        """Tell everybody, close each at its turn, and return when nobody is left.

        No deadline: whoever calls this has one. Cancellation: nobody else is closed.
        """
        self.note_left()
        leaving = tuple(self._connections)
        turns = plan_departures(len(leaving), limits=self._limits, now=trio.current_time(), rng=self._rng)
        # Now, before anything awaits: nobody who is here at this moment is left out.
        for connection, turn in zip(leaving, turns, strict=True):
            connection.tell_to_go(turn)
        async with trio.open_nursery() as closing:
            closing.start_soon(self._close_in_turn, leaving, turns)
            await self._all_left.wait()
            closing.cancel_scope.cancel()

    async def _close_in_turn(self, leaving: tuple[Connection, ...], turns: list[Departure]) -> None:
        for connection, turn in zip(leaving, turns, strict=True):
            if connection in self._connections:
                await trio.sleep_until(turn.closes_at)
                connection.go(turn)
