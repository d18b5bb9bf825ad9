"""Starts children, watches them, starts a dead one again, ends them: the actor of ``khala up --split``.

What is decided is in supervision.py, how a process is started in children.py; here is when. Each child is
one task; the order in which children end is the order in which their nurseries are left. Invariant: for
each child there is at most one process, and none when its task has ended, however it ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from khala.adapters.embedded_postgres_errors import EmbeddedPostgresFailed
from khala.cli.failures import EXIT_FAILED, EXIT_REFUSED, CommandFailed
from khala.cli.supervision import ChildLife, GiveUp, RestartPolicy

if TYPE_CHECKING:
    from khala.cli.children import Child, Running

__all__ = ["Supervisor", "Witness"]


class Witness(Protocol):
    """Is told what happens to the children; must not block."""

    def started(self, life: ChildLife) -> None:
        """A process was started."""

    def ready(self, life: ChildLife, *, after_s: float) -> None:
        """A child does its work, ``after_s`` after its first start or after its predecessor died."""

    def ended(self, life: ChildLife, status: int, *, was_asked: bool, words: str) -> None:
        """A process ended; ``words`` are its last."""

    def restarting(self, life: ChildLife) -> None:
        """A child will be started again after ``life.delay_s``."""


class Supervisor:
    """Keeps children alive.

    Attributes:
        lives: What is known of each child, by name, in the order in which they were started.
    """

    def __init__(self, policy: RestartPolicy, witness: Witness) -> None:
        self.policy = policy
        self.witness = witness
        self.lives: dict[str, ChildLife] = {}

    async def keep(
        self, child: Child, stop: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep one child alive until ``stop`` is set, then end it; started when it is ready once.

        Raises:
            CommandFailed: The child refused its configuration.
            EmbeddedPostgresRefused, EmbeddedPostgresFailed, EmbeddedNatsRefused, OSError: It could not
                even be started the first time.
        Cancellation: the process is killed.
        """
        kept = _Kept(self, child, stop)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kept.serve)
            await kept.was_ready.wait()
            task_status.started()


class _Kept:
    """One child, through all its lives."""

    def __init__(self, supervisor: Supervisor, child: Child, stop: trio.Event) -> None:
        self._supervisor = supervisor
        self._witness = supervisor.witness
        self._child = child
        self._stop = stop
        self._down_since_s = trio.current_time()
        self.was_ready = trio.Event()
        self._is_open = False
        self._life = ChildLife(child.name)
        self._set(self._life)

    async def serve(self) -> None:
        """Start it, again and again, until it shall stop."""
        while not self._stop.is_set():
            status, words = await self._live_once()
            self._down_since_s = trio.current_time()
            if self._stop.is_set():
                self._witness.ended(self._set(self._life.stopped()), status, was_asked=True, words="")
                break
            life, verdict = self._life.ended(status, self._down_since_s, self._supervisor.policy)
            self._set(life)
            self._witness.ended(life, status, was_asked=False, words=words)
            if isinstance(verdict, GiveUp):
                raise CommandFailed(
                    f"the process {life.name} refuses its configuration: {words}", exit_status=EXIT_REFUSED
                )
            self._witness.restarting(life)
            with trio.move_on_after(verdict.delay_s):
                await self._stop.wait()
        # Whoever waits for it to be ready need not wait any longer.
        self.was_ready.set()

    async def _live_once(self) -> tuple[int, str]:
        """Return the exit status and the last words of one process."""
        ended = 0, ""
        with trio.CancelScope() as starting:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._give_up_starting, starting)
                ended = await self._start_and_watch()
                nursery.cancel_scope.cancel()
        return ended

    async def _give_up_starting(self, starting: trio.CancelScope) -> None:
        # A database that recovers may need a minute; who shall stop does not wait for that.
        await self._stop.wait()
        if not self._is_open:
            starting.cancel()

    async def _start_and_watch(self) -> tuple[int, str]:
        self._is_open = False
        try:
            async with self._child.open(self._note_launch) as running:
                status = await self._watch(running)
        except OSError as error:
            if not self.was_ready.is_set():
                raise
            return EXIT_FAILED, str(error)
        except EmbeddedPostgresFailed as error:
            if not self.was_ready.is_set():
                raise
            return EXIT_FAILED if error.status is None else error.status, str(error)
        return status, self._child.last_words()

    def _note_launch(self, pid: int) -> None:
        self._witness.started(self._set(self._life.started(pid, trio.current_time())))

    async def _watch(self, running: Running) -> int:
        self._is_open = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._note_ready, running)
            nursery.start_soon(self._end_when_asked, running)
            status = await running.wait_ended()
            nursery.cancel_scope.cancel()
        return status

    async def _note_ready(self, running: Running) -> None:
        await running.wait_ready()
        life = self._set(self._life.became_ready())
        self._witness.ready(life, after_s=trio.current_time() - self._down_since_s)
        self.was_ready.set()

    async def _end_when_asked(self, running: Running) -> None:
        await self._stop.wait()
        await running.end()

    def _set(self, life: ChildLife) -> ChildLife:
        self._life = self._supervisor.lives[life.name] = life
        return life
