"""An exclusive lock on a file, freed by the kernel when its holder dies.

Locks exclude processes *and* other locks of this process. Nothing is written into the file, and it
is never deleted: unlinking a locked file lets two holders exist, one per inode.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["LockHeld", "hold_file_lock"]


class LockHeld(Exception):
    """Somebody else holds the lock."""


@contextmanager
def hold_file_lock(path: Path) -> Iterator[None]:
    """Hold the lock on ``path`` inside the block; the file is made (0600) if it is missing.

    Raises:
        LockHeld: at once, if it is taken. Waiting is the caller's: it has the clock.
        OSError: the file cannot be made or opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    holder = os.getpid()
    try:
        _lock_nowait(descriptor, path)
        try:
            yield
        finally:
            # Children of fork() have the descriptor too: while one lives, closing ours frees nothing,
            # and one that leaves the block must not free what its parent holds.
            if os.getpid() == holder:
                _unlock(descriptor)
    finally:
        os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _lock_nowait(descriptor: int, path: Path) -> None:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise LockHeld(str(path)) from error

    def _unlock(descriptor: int) -> None:
        pass  # closing does, and nothing is inherited there

else:
    import fcntl

    def _lock_nowait(descriptor: int, path: Path) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockHeld(str(path)) from error

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
