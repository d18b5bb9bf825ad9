"""A task that lives as long as a block: how a driver runs what connects, sends and listens."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ["open_background"]


@asynccontextmanager
async def open_background(serve: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run ``serve`` until the block ends, then cancel it.

    An error of the block comes out as it is, not in the group of a nursery that the caller cannot
    see, also if the task crashes while it is being cancelled: that crash is its context. A crash of
    the task ends the block.
    """
    error_of_block: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            # What it connects is away as often as not: nobody waits for it to have started.
            nursery.start_soon(serve)  # noqa: ASYNC113
            try:
                yield
            except Exception as error:  # noqa: BLE001 - raised again below, outside the nursery
                error_of_block = error
            nursery.cancel_scope.cancel()
    finally:
        if error_of_block is not None:
            raise error_of_block
