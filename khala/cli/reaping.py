"""As process 1 of a container: take leave of processes that became ours because their parent died.

An ordinary system has an init process for that. Without it the backends of a killed postmaster would stay
as zombies, one process number each.
"""

from __future__ import annotations

import os
from typing import Final

import trio

__all__ = ["reap_adopted"]

POLL_S: Final = 1.0


async def reap_adopted(poll_s: float = POLL_S) -> None:
    """Reap adopted zombies until cancelled; returns at once unless this is process 1.

    A child that we started ourselves is reaped by who waits for it, and that within milliseconds: only
    what is still there at the next look is nobody's.
    """
    if os.getpid() != 1 or not hasattr(os, "waitid"):
        return
    seen: int | None = None
    while True:
        await trio.sleep(poll_s)
        waiting = _find_zombie()
        if waiting is not None and waiting == seen:
            _reap(waiting)
            waiting = _find_zombie()
        seen = waiting


def _reap(pid: int) -> None:
    os.waitpid(pid, os.WNOHANG)


def _find_zombie() -> int | None:
    """Return a child that has ended and was not waited for, without reaping it."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid
