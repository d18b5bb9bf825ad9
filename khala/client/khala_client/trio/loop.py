"""Where trio differs from asyncio: cancellation is shielded by scopes, and tasks nest in the block."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

import anyio
import trio

from khala_client.trio.websocket import connect_sync_socket, open_stream

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.abc import TaskGroup

    from khala_client.ring.ports import SyncSocket
    from khala_client.trio.websocket import StreamOpener

__all__ = ["TrioLoop"]


class TrioLoop:
    """See EventLoop."""

    def __init__(self, *, opener: StreamOpener = open_stream) -> None:
        """Connect through streams that ``opener`` opens."""
        self._opener = opener

    @asynccontextmanager
    async def hold_tasks(self) -> AsyncIterator[TaskGroup]:
        """See EventLoop.hold_tasks.

        Raises:
            RuntimeError: this is not trio.
        """
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            message = "khala_client.trio runs on trio; on asyncio: from khala_client import Khala"
            raise RuntimeError(message) from None
        # Shielded: a cancellation from outside ends the block first, which still needs its tasks (a run
        # that is being cancelled says so; what was processed is committed). Leaving it ends them.
        shield = trio.CancelScope(shield=True)
        tasks = anyio.create_task_group()
        is_open = trio.Event()

        async def host() -> None:
            with shield:
                async with tasks:
                    is_open.set()
                    await trio.sleep_forever()

        try:
            async with trio.open_nursery() as nursery:
                # Not ``nursery.start``: cancelled in there, it would wait for what is shielded.
                nursery.start_soon(host)
                try:
                    await is_open.wait()
                    yield tasks
                finally:
                    shield.cancel()
        except BaseExceptionGroup as group:
            # The tasks here end by being cancelled only. So a group of one is the block's own
            # exception, which its author expects as it was raised.
            if len(group.exceptions) == 1:
                _raise_unchanged(group.exceptions[0])
            raise

    async def finish(self, call: Callable[[], Awaitable[None]], *, within_s: float) -> None:
        """See EventLoop.finish."""
        with trio.move_on_after(within_s, shield=True):
            await call()

    async def connect(self, tasks: TaskGroup, url: str, *, ssl_context: ssl.SSLContext | None) -> SyncSocket:
        """See EventLoop.connect."""
        return await connect_sync_socket(tasks, url, ssl_context=ssl_context, opener=self._opener)


def _raise_unchanged(error: BaseException) -> NoReturn:
    """Raise ``error`` with the cause and the context that its author gave it."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
