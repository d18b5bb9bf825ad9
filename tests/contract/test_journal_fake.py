"""The fake journal of the actors' tests and the reader of the simulation answer as PostgreSQL does."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import attrs
import pytest

from chaos.sim.database_tables import TopicRow
from chaos.sim.journal_model import JournalModel
from khala_contracts.topics import Lineage
from runtime.ports import EventRow
from tests.actors.khala.fake_journal import FakeJournal
from tests.actors.runtime.memory_journal_store import calm_faults, open_gate
from tests.contract.journal_suite import LIMITS, JournalSuite
from tests.topic_log import KIND, LINEAGE

if TYPE_CHECKING:
    from chaos.sim.reader_model import ModelReader
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


@attrs.define
class _ModelDesk:
    model: JournalModel
    reader: ModelReader

    async def keep(self, log: TopicLog) -> None:
        """Write it as committed."""
        topic = log.topic
        self.model.tables.topics[topic.name] = TopicRow(
            topic.name,
            topic.topic_class.name,
            log.rights.owner_user_id,
            log.rights.org_id,
            log.floor_seq,
            log.floor_reason.value,
            [EventRow("evt", seq, KIND, b"", 1, "", "", 0) for seq in range(1, log.head_seq + 1)],
            list(log.entries),
            list(log.chains),
            list(log.bytes_totals),
        )

    async def begin_lineage(self, lineage: str | None) -> None:
        """Change it."""
        self.model.tables.lineage = None if lineage is None else Lineage(lineage)

    async def lose_row(self, log: TopicLog, seq: int) -> None:
        """Lose it."""
        self.model.tables.topics[log.topic.name].lost[seq] = None


class TestModelReader(JournalSuite):
    @pytest.fixture
    def desk(self) -> _ModelDesk:
        """An empty database."""
        model = JournalModel(rng=Random(0), faults=calm_faults())
        model.tables.lineage = Lineage(LINEAGE)
        return _ModelDesk(model, model.open_reader(open_gate("node", "node"), LIMITS))
