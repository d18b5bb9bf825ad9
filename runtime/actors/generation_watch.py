"""Notices when another runtime has taken over, also while nothing is written.

Started by app.py. The truth is the row that every transaction reads FOR SHARE; this only makes an idle
process say "superseded" within GENERATION_CHECK_S instead of at its next commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from khala_service.errors import Unavailable

if TYPE_CHECKING:
    from runtime.actors.appender import Appender
    from runtime.ports import Authority, JournalStore

__all__ = ["GENERATION_CHECK_S", "GenerationWatch"]

# Longer: an idle old process stays ready beside the new one. Each check is one read of one row.
GENERATION_CHECK_S: Final = 1.0


class GenerationWatch:
    """Compares the generation with ours."""

    def __init__(self, store: JournalStore, appender: Appender, authority: Authority) -> None:
        self._store = store
        self._appender = appender
        self._authority = authority

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Check until cancelled, or until superseded: that is final."""
        task_status.started()
        while not self._appender.is_superseded:
            await trio.sleep(GENERATION_CHECK_S)
            try:
                generation = await self._store.read_generation()
            except Unavailable:
                # Not known is not superseded; readiness says that the database is away.
                continue
            if generation != self._authority.generation:
                self._appender.supersede()
