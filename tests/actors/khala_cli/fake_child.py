"""A child without a process: it starts, becomes ready and dies when the test's script says so."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from khala.cli.supervision import ChildLife

FOREVER = float("inf")


@attrs.frozen
class Life:
    """What one process does.

    Attributes:
        ready_after_s: Since its start; never if infinite.
        dies_after_s: Since its start; only when it is asked to if infinite.
        status: How it ends by itself.
        fails: Raised instead of a start.
        opens_after_s: Since its launch; a database recovers before it can be watched.
    """

    ready_after_s: float = 1.0
    dies_after_s: float = FOREVER
    status: int = -9
    fails: Exception | None = None
    opens_after_s: float = 0.0


@attrs.define(eq=False)
class FakeRunning:
    """One process of it."""

    pid: int
    life: Life
    started_s: float
    was_asked: trio.Event = attrs.field(factory=trio.Event)

    async def wait_ready(self) -> None:
        """See Running."""
        await trio.sleep(self.life.ready_after_s)

    async def wait_ended(self) -> int:
        """See Running."""
        with trio.move_on_at(self.started_s + self.life.dies_after_s):
            await self.was_asked.wait()
            return 0
        return self.life.status

    async def end(self) -> None:
        """See Running. It takes half a second."""
        await trio.sleep(0.5)
        self.was_asked.set()


@attrs.define(eq=False)
class FakeChild:
    """Lives through its script; the last life repeats.

    Attributes:
        alive: Pids that exist now.
    """

    name: str
    script: list[Life]
    words: str = ""
    alive: set[int] = attrs.field(factory=set)
    starts_s: list[float] = attrs.field(factory=list)

    @asynccontextmanager
    async def open(self, launched: Callable[[int], None]) -> AsyncIterator[FakeRunning]:
        """See Child."""
        assert not self.alive, "one process at a time"
        life = self.script[min(len(self.starts_s), len(self.script) - 1)]
        self.starts_s.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if life.fails is not None:
            raise life.fails
        pid = 100 + len(self.starts_s)
        self.alive.add(pid)
        try:
            launched(pid)
            await trio.sleep(life.opens_after_s)
            yield FakeRunning(pid, life, trio.current_time())
        finally:
            self.alive.remove(pid)

    def last_words(self) -> str:
        """See Child."""
        return self.words


@attrs.define
class Notes:
    """A witness that writes everything down, with the time."""

    seen: list[tuple[object, ...]] = attrs.field(factory=list)

    def started(self, life: ChildLife) -> None:
        """See Witness."""
        self.seen.append((trio.current_time(), "started", life.pid))

    def ready(self, life: ChildLife, *, after_s: float) -> None:
        """See Witness."""
        self.seen.append((trio.current_time(), "ready", life.pid, after_s))

    def ended(self, life: ChildLife, status: int, *, was_asked: bool, words: str) -> None:
        """See Witness."""
        self.seen.append((trio.current_time(), "ended", life.pid, status, was_asked, words))

    def restarting(self, life: ChildLife) -> None:
        """See Witness."""
        self.seen.append((trio.current_time(), "restarting", life.pid, life.delay_s))
