"""Admits the first hello when everything that a client needs has answered once.

A node may start before its database, control or broker. It listens at once, so that whoever comes can
read ``unavailable`` and when to come back, and its token is unspent; it asks what is missing again and
again, and opens by itself. Open stays open: later trouble is answered where it is met, and the sockets
that are there stay. Load balancers look at /readyz, which asks anew each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from khala.ports import Rng
    from khala_service.readiness import ReadyCheck

RETRY_FIRST_S: Final = 0.25
# Longer: a system that is complete waits for its last node. Shorter: a dead database is asked for nothing.
RETRY_MAX_S: Final = 2.0
# A check that hangs must not keep the others from being asked.
CHECK_TIMEOUT_S: Final = 2.0


class StartGate:
    """Closed until each check has said "ready" once; ``run`` asks them."""

    def __init__(self, checks: Mapping[str, ReadyCheck], *, rng: Rng) -> None:
        """Wait for these checks."""
        self._missing = dict(checks)
        self._rng = rng

    @property
    def is_open(self) -> bool:
        """Whether hellos are served."""
        return not self._missing

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the checks that have never said "ready"."""
        return tuple(self._missing)

    def retry_after_s(self) -> float:
        """Return when a client that was refused may come back, spread over a second."""
        return RETRY_MAX_S / 2 + self._rng.random()

    async def run(self) -> None:
        """Ask until all have answered; then return.

        The waits double from 0.25 s to 2 s. What a check raises is passed on: the supervisor of this
        task starts it again.
        """
        wait_s = RETRY_FIRST_S
        while not self.is_open:
            await self.ask()
            if not self.is_open:
                await trio.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_MAX_S)

    async def ask(self) -> None:
        """Ask what has not answered yet, all at once and for at most ``CHECK_TIMEOUT_S``."""
        with trio.move_on_after(CHECK_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for name in self.missing:
                    nursery.start_soon(self._ask, name)

    async def _ask(self, name: str) -> None:
        if await self._missing[name]() is None:
            self._missing.pop(name, None)
