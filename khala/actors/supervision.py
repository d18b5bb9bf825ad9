"""Where crashes end: what fails by a bug is counted, reported, and started again with backoff (INV-9).

    topic              its task starts again from the journal; nobody else notices
    connection         its client is told ``internal`` (4006), or dropped if its bytes may be out of order
    page_read          repeated; then the waiting subscriptions end with ``unavailable``
    frame              one topic of one client ends with ``internal``: what is stored cannot be said to it
    record, position_check, linger
                       this one record, topic or round is left out; the task goes on
    pump, sweep, ...   the task itself, started again by ``run_restarted``

Trouble that is expected (a database that is away) never comes here: its owner handles it. Each place
that contains a crash says so at its ``except``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from khala.core.counters import NodeCounters

RESTART_FIRST_S: Final = 0.1
RESTART_MAX_S: Final = 10.0


class CrashLog(Protocol):
    """Where contained crashes are reported."""

    def task_crashed(
        self, kind: str, name: str, exc: BaseException, *, restart_in_s: float | None = None
    ) -> None:
        """Report one crash.

        Args:
            kind: Label of ``khala_node_task_restarts_total``.
            name: Topic, connection id or task.
            exc: What it failed with.
            restart_in_s: When it is started again; None if only one piece of its work was left out.
        """


class Supervisor:
    """Counts and reports the contained crashes of one node."""

    def __init__(self, counters: NodeCounters, log: CrashLog) -> None:
        """Count in ``counters``, report to ``log``."""
        self._counters = counters
        self._log = log

    def note_crash(
        self, kind: str, name: str, exc: BaseException, *, restart_in_s: float | None = None
    ) -> None:
        """Count and report one contained crash; never raises."""
        self._counters.task_restarts[kind] += 1
        self._log.task_crashed(kind, name, exc, restart_in_s=restart_in_s)

    async def run_restarted(
        self,
        kind: str,
        name: str,
        task: Callable[[], Awaitable[None]],
        *,
        before_restart: Callable[[], None] | None = None,
    ) -> None:
        """Run a task to its end; after a crash run it again, after 0.1 s doubling to 10 s.

        A task that has run for longer than the longest delay starts with the first delay again.

        Args:
            kind: Label of the counter.
            name: What is reported.
            task: Called anew for each life; when it returns, so does this.
            before_restart: Called before each further life, for what the crash has made doubtful.

        Cancellation: ends the task.
        """
        restart_in_s = RESTART_FIRST_S
        while True:
            started_at = trio.current_time()
            try:
                await task()
            except Exception as exc:  # noqa: BLE001 - this is where a task's crash ends
                if trio.current_time() - started_at > RESTART_MAX_S:
                    restart_in_s = RESTART_FIRST_S
                self.note_crash(kind, name, exc, restart_in_s=restart_in_s)
            else:
                return
            await trio.sleep(restart_in_s)
            restart_in_s = min(restart_in_s * 2, RESTART_MAX_S)
            if before_restart is not None:
                before_restart()
