"""Tells nodes that the log of revocations has grown, as soon as it has: an empty hint through the fan-out driver.

The stores mark after each transaction that wrote rows (adapters/postgres/revocations.py); one task hints. Marks
that meet are one hint, and there are at most ``1 / HINT_INTERVAL_S`` of them a second, which is what a node acts
on. No revocation waits for this or fails with it (INV-27): without a hint nodes read the row by their poll, so a
hint that the driver does not take is given again only until every node has polled.
"""

from collections.abc import Callable
from typing import Final, Protocol

import trio

from khala_service.errors import Unavailable
from khala_service.logs import get_logger

__all__ = [
    "HINTED",
    "HINT_FAILED",
    "HINT_INTERVAL_S",
    "REPEAT_FOR_S",
    "RETRY_S",
    "TAKE_TIMEOUT_S",
    "RevocationHints",
]

HINT_INTERVAL_S: Final = 0.05
# The poll of nodes (SPEC section 5), after which a hint tells nothing any more.
REPEAT_FOR_S: Final = 5.0
RETRY_S: Final = 0.5
# A driver takes a hint without waiting for anybody.
TAKE_TIMEOUT_S: Final = 1.0
HINTED: Final = "published"
HINT_FAILED: Final = "failed"

_logger = get_logger("control.revocation_hints")


class Hinter(Protocol):
    """What carries a hint; ``fanout_drivers.base.HintsRevocations``."""

    async def hint_revocations(self) -> None:
        """Hand over one hint without waiting. Raises Unavailable if it was not taken."""


class RevocationHints:
    """Marks and the task that hints; without the task marks do nothing."""

    def __init__(self, hinter: Hinter, *, count: Callable[[str], None]) -> None:
        """Hint through ``hinter``; ``count`` is told HINTED or HINT_FAILED for each attempt."""
        self._hinter = hinter
        self._count = count
        self._marked = trio.Event()

    def mark(self) -> None:
        """Say that rows may have been committed."""
        self._marked.set()

    async def serve_hinting(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hint after marks, until cancelled."""
        task_status.started()
        while True:
            await self._marked.wait()
            # Before the hint: a node that acts on it may read the log just before the next row is committed.
            self._marked = trio.Event()
            await self._hint()
            await trio.sleep(HINT_INTERVAL_S)

    async def _hint(self) -> None:
        gives_up_at = trio.current_time() + REPEAT_FOR_S
        while True:
            reason = "timeout"
            # A driver of somebody else's that never returns: every later hint would wait behind it, unseen.
            with trio.move_on_after(TAKE_TIMEOUT_S):
                try:
                    await self._hinter.hint_revocations()
                except Unavailable as error:
                    reason = error.reason
                else:
                    self._count(HINTED)
                    return
            self._count(HINT_FAILED)
            if trio.current_time() + RETRY_S > gives_up_at:
                _logger.warning("revocations_not_hinted", reason=reason)
                return
            await trio.sleep(RETRY_S)
