"""Deletes expired idempotency keys, a bounded number at a time.

Started by app.py. Correctness does not depend on it: an expired key counts as new whether its row is
still there or not. It only keeps the table small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from khala_service.errors import SerializationTrouble, Unavailable
from khala_service.logs import get_logger

if TYPE_CHECKING:
    from runtime.ports import JournalStore

__all__ = ["CLEAN_EVERY_S", "CLEAN_ROWS", "KeyCleaner"]

CLEAN_EVERY_S: Final = 60.0
# Larger: one statement holds row locks and produces WAL for longer than a commit should wait.
CLEAN_ROWS: Final = 1_000
# Between two full turns, so that a large backlog does not keep the disk busy.
CLEAN_PAUSE_S: Final = 0.05

_log = get_logger(__name__)


class KeyCleaner:
    """One loop."""

    def __init__(self, store: JournalStore) -> None:
        self._store = store

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Clean until cancelled."""
        task_status.started()
        while True:
            try:
                deleted = await self._store.delete_expired_keys(CLEAN_ROWS)
            except (Unavailable, SerializationTrouble) as error:
                _log.info("key_cleaning_postponed", reason=str(error))
                deleted = 0
            await trio.sleep(CLEAN_PAUSE_S if deleted >= CLEAN_ROWS else CLEAN_EVERY_S)
