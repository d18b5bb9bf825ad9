"""The waits between attempts of one operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

from khala_client.core.backoff import Backoff, Rng
from khala_client.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Retry"]

_Answer = TypeVar("_Answer")


class Retry:
    """Waits between the attempts of one operation, ``patience_s`` in all: its one retry owner."""

    def __init__(self, rng: Rng, *, patience_s: float) -> None:
        self._rng = rng
        self._backoff = Backoff()
        self._gives_up_at_s = anyio.current_time() + patience_s

    async def attempt(self, call: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Return what ``call`` returns, repeating it while it raises Unavailable.

        Raises:
            Unavailable: the last one, when the patience is used up.
        """
        while True:
            try:
                return await call()
            except Unavailable as error:
                await self.wait_or_raise(error)

    async def wait_or_raise(self, error: Unavailable) -> None:
        """Return when the next attempt is due; raise ``error`` if that is beyond the patience."""
        delay_s = self._backoff.next_delay_s(self._rng, retry_after_ms=error.retry_after_ms)
        if anyio.current_time() + delay_s > self._gives_up_at_s:
            raise error
        await anyio.sleep(delay_s)
