"""The fake journal of the actors' tests answers as PostgreSQL does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from tests.actors.khala.fake_journal import FakeJournal
from tests.contract.journal_suite import LIMITS, JournalSuite

if TYPE_CHECKING:
    from tests.topic_log import TopicLog


@attrs.define
class _Desk:
    reader: FakeJournal

    async def keep(self, log: TopicLog) -> None:
        """Serve it."""
        self.reader.logs[log.topic.name] = log

    async def begin_lineage(self, lineage: str | None) -> None:
        """Change it."""
        self.reader.lineage = lineage or ""

    async def lose_row(self, log: TopicLog, seq: int) -> None:
        """Lose it."""
        self.reader.lost_rows.add((log.topic.name, seq))


class TestFakeJournal(JournalSuite):
    @pytest.fixture
    def desk(self) -> _Desk:
        """An empty journal."""
        return _Desk(
            FakeJournal(page_max_frames=LIMITS.page_max_frames, page_max_bytes=LIMITS.page_max_bytes)
        )
