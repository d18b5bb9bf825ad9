"""Calls of a store that waits for a disk: in worker threads, one after the other.

    caller: commit ... cancelled          (asyncio raises here whatever is shielded)
    task:   commit ............ done, ``then``
    caller:                                next call ... finds it done

A call is made by a task of the client, so a caller that is cancelled only stops waiting. Without
that, a commit would end with nobody to note it, and the same events would be committed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import attrs

from khala_client.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

__all__ = ["StoreCalls"]


@attrs.define(eq=False)
class _Call:
    operation: Callable[[], None]
    then: Callable[[], None]
    ended: anyio.Event = attrs.field(factory=anyio.Event)
    error: Exception | None = None

    async def run(self) -> None:
        try:
            # Not abandoned when cancelled: it is finished, or it was not begun.
            await anyio.to_thread.run_sync(self.operation)
        except Exception as error:  # noqa: BLE001 - also what an application's fold raises: it is the caller's
            self.error = error
        except BaseException:
            self.error = StoreFailed("the client was closed before the store was called")
            raise
        else:
            self.then()
        finally:
            self.ended.set()


class StoreCalls:
    """The calls of one subscription."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        # Invariant: at most one is on its way.
        self._call: _Call | None = None

    async def make(self, operation: Callable[[], None], *, then: Callable[[], None]) -> None:
        """Make a call and wait for it; ``then`` notes its success, also when nobody waits any more.

        Raises:
            Exception: what the call has raised.
        Cancellation: the call goes on; the next thing to do is ``settle``.
        """
        assert self._call is None, "the call before was not settled"
        self._call = _Call(operation, then)
        self._tasks.start_soon(self._call.run)
        await self.settle()

    async def settle(self) -> None:
        """Wait for the call that is on its way, if there is one; raise what it raised, once."""
        call = self._call
        if call is None:
            return
        # No deadline: a disk answers, or its transaction's own time-out ends the call.
        await call.ended.wait()
        self._call = None
        if call.error is not None:
            raise call.error
