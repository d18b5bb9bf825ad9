"""A thread with an event loop, and calls into it that a Ctrl-C does not tear apart.

    caller:  call ....... Ctrl-C ── cancel ──> waits for its end ── KeyboardInterrupt
    loop:    ... await ............. Cancelled, or finished just before: ``undo`` gets the result

So after an interrupted call nothing of it runs on, and nothing that it got is lost. A second Ctrl-C
ends that wait, too.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import anyio
from anyio.from_thread import start_blocking_portal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from anyio.from_thread import BlockingPortal

__all__ = ["LoopThread"]

_Answer = TypeVar("_Answer")

# Where a wait cannot be interrupted (Windows), a Ctrl-C is seen between two of these.
_SIGNAL_POLL_S: Final = 0.5


class _Watched(Generic[_Answer]):
    """A call that can be cancelled, says when it has ended, and keeps what it returned."""

    def __init__(self, function: Callable[[], Awaitable[_Answer]]) -> None:
        self._function = function
        self._scope: anyio.CancelScope | None = None
        self._is_refused = False
        self.ended = threading.Event()
        self.kept: list[_Answer] = []

    async def run(self) -> None:
        if self._is_refused:
            return
        try:
            with anyio.CancelScope() as self._scope:
                self.kept.append(await self._function())
        finally:
            self.ended.set()

    def cancel(self) -> None:
        """In the loop: cancel it; if it has not begun, it will not."""
        if self._scope is not None:
            self._scope.cancel()
        else:
            self._is_refused = True
            self.ended.set()


class LoopThread:
    """Runs coroutines for threads that have no event loop. Open inside ``LoopThread.open``."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._process_id = os.getpid()

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[LoopThread]:
        """Start a thread with an asyncio loop; leaving the block waits for its end."""
        with start_blocking_portal("asyncio", name="khala client") as portal:
            yield cls(portal)

    def call(
        self, function: Callable[[], Awaitable[_Answer]], *, undo: Callable[[_Answer], object] | None = None
    ) -> _Answer:
        """Return what ``function`` returns, from any thread but the loop's own.

        Args:
            function: Called and awaited in the loop.
            undo: Takes the answer if this thread was interrupted before it got it.

        Raises:
            RuntimeError: this is a child of ``fork``: threads do not come along.
            BaseException: what ``function`` raises; what interrupted this thread.
        """
        if os.getpid() != self._process_id:
            message = "this Khala was opened before fork(); a child process opens one of its own"
            raise RuntimeError(message)
        watched = _Watched(function)
        try:
            future: Future[None] = self._portal.start_task_soon(watched.run)
            while not wait((future,), timeout=_SIGNAL_POLL_S).done:
                pass
            future.result()
        except BaseException:
            if not watched.ended.is_set():
                self._portal.start_task_soon(watched.cancel)
                while not watched.ended.wait(_SIGNAL_POLL_S):
                    pass
            if watched.kept and undo is not None:
                undo(watched.kept[0])
            raise
        return watched.kept[0]
