"""Keeps the tasks of a service alive: whatever ends one of them ends nothing else.

Used by the composition roots around each task, and by the runtime around each writer. A task that crashes
is logged, counted in khala_task_restarts_total and started again after a pause; what it held is in the
database. No jitter: a process has a handful of these tasks, and they fail each for its own reason.

Invariant: between two starts of a task lie at least RESTART_FIRST_S, after repeated crashes
RESTART_MAX_S (INV-21); a task that ran for RESTART_MAX_S starts with the short pause again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio

from khala_service.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RESTART_FIRST_S", "RESTART_MAX_S", "Service", "supervise"]

RESTART_FIRST_S: Final = 0.1
# Longer: a part that could work again stays away. Shorter: a broken one fills the log.
RESTART_MAX_S: Final = 10.0

_log = get_logger(__name__)


class Service(Protocol):
    """A task: says that it has started, and serves until cancelled."""

    async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve; returning means that there is nothing more to do."""


async def supervise(
    kind: str,
    service: Service,
    *,
    restarted: Callable[[str], None],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until the service returns; start it again whenever it crashes.

    Args:
        kind: Name of the task in logs and metrics; from a closed set.
        service: The task.
        restarted: Counts a restart, by kind.
        task_status: Started once the service has started for the first time.

    Cancellation: cancels the service.
    """
    restart_in_s = RESTART_FIRST_S
    is_started = False
    while True:
        started_at = trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(service)
                if not is_started:
                    is_started = True
                    task_status.started()
        except Exception as error:  # noqa: BLE001 - the one place that contains the crash of a task
            if trio.current_time() - started_at >= RESTART_MAX_S:
                restart_in_s = RESTART_FIRST_S
            restarted(kind)
            _log.error("task_crashed", kind=kind, restart_in_s=restart_in_s, exc_info=error)
        else:
            return
        await trio.sleep(restart_in_s)
        restart_in_s = min(2 * restart_in_s, RESTART_MAX_S)
