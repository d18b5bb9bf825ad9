"""Where asyncio differs from trio: a task is cancelled once, at any await, whatever is shielded.

    the block's task:  ... await ──cancel──> CancelledError ... leaving the block ──cancel──> again
    our own tasks:     not children of that task: nobody but us cancels them

So the client's tasks live in a task of their own, which also lets another task leave the block than
has entered it (fixtures, notebooks), and what must be done while leaving is done there, too: the
leaving task waits for it through every further cancellation, and raises the last one afterwards.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from khala_client.asyncio.websocket import connect_sync_socket

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.abc import TaskGroup

    from khala_client.ring.ports import SyncSocket

__all__ = ["AsyncioLoop"]


class AsyncioLoop:
    """See EventLoop."""

    @asynccontextmanager
    async def hold_tasks(self) -> AsyncIterator[TaskGroup]:
        """See EventLoop.hold_tasks.

        Raises:
            RuntimeError: this is not asyncio.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            message = "khala_client.Khala runs on asyncio; on trio: from khala_client.trio import Khala"
            raise RuntimeError(message) from None
        tasks = anyio.create_task_group()
        is_open, is_left = asyncio.Event(), asyncio.Event()

        async def host() -> None:
            async with tasks:
                is_open.set()
                await is_left.wait()
                tasks.cancel_scope.cancel()

        hosting = asyncio.create_task(host(), name="khala client")
        try:
            await is_open.wait()
            yield tasks
        finally:
            is_left.set()
            # Bounded: what the tasks still do has deadlines of its own.
            await _wait_end(hosting)  # noqa: ASYNC102 - through every cancellation

    async def finish(self, call: Callable[[], Awaitable[None]], *, within_s: float) -> None:
        """See EventLoop.finish."""

        async def bounded() -> None:
            with anyio.move_on_after(within_s):
                await call()

        await _wait_end(asyncio.create_task(bounded()))

    async def connect(self, tasks: TaskGroup, url: str, *, ssl_context: ssl.SSLContext | None) -> SyncSocket:
        """See EventLoop.connect. The library reads in a protocol of the loop's; ``tasks`` are not needed."""
        return await connect_sync_socket(url, ssl_context=ssl_context)


async def _wait_end(task: asyncio.Task[Any]) -> None:
    """Return when ``task`` has ended; raise what it raised, or else a cancellation that came meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    # The scope: inside a cancelled scope of anyio's, every await would be cancelled anew, and this would spin.
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as error:  # noqa: ASYNC103 - raised below
                cancelled = error
    if not task.cancelled():
        task.result()
    if cancelled is not None:
        raise cancelled
