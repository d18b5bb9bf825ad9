"""JournalReader of one node over the database of the world. See journal_model.py for the runtime's side.

Each read sees one snapshot and is answered later, so a slow answer is an old one. Nodes may be cut off from the
database one by one (``DatabaseFaults.cut_from``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from khala.core.classification import Observation
from khala.core.pages import Page
from khala.ports import JournalUnavailableError, ObservedTopic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.sim.database_session import Database
    from chaos.sim.gates import PortGate
    from khala.core.limits import NodeLimits
    from khala_contracts.topics import TopicName

__all__ = ["ModelReader"]

RETRY_AFTER_S: Final = 1.0
# A retained row is missing: somebody has to look.
HOLE_RETRY_AFTER_S: Final = 5.0


class ModelReader:
    """A JournalReader; counts its statements by kind, for tests of what a storm of clients costs.

    Attributes:
        reads: Statements so far: observe, read_heads, read_page.
    """

    def __init__(self, database: Database, gate: PortGate, limits: NodeLimits) -> None:
        self._database = database
        self._gate = gate
        self._limits = limits
        self.reads: dict[str, int] = {"observe": 0, "read_heads": 0, "read_page": 0}

    async def observe(self, asked: Sequence[tuple[TopicName, int]]) -> list[ObservedTopic]:
        """Return each topic and its journal row at the asked seq; see JournalReader."""
        await self._ask("observe")
        seen = [self._observed(topic, seq) for topic, seq in asked]
        await self._answer()
        return seen

    async def read_heads(
        self, topics: Sequence[TopicName], known: Sequence[Observation | None] = ()
    ) -> list[Observation]:
        """Return each topic's head row; see JournalReader."""
        del known
        await self._ask("read_heads")
        seen = [self._observed(topic, 0).observation for topic in topics]
        await self._answer()
        return seen

    async def read_page(self, topic: TopicName, after_seq: int) -> Page:
        """Return the retained frames after ``after_seq``; see JournalReader."""
        await self._ask("read_page")
        page = self._page(topic, after_seq)
        await self._answer()
        if page is None:
            raise JournalUnavailableError(HOLE_RETRY_AFTER_S)
        return page

    async def check(self) -> str | None:
        """Return None if the journal answers and has a lineage, else why not."""
        try:
            await self._ask("read_heads")
        except JournalUnavailableError:
            return "journal_unreachable"
        return None

    async def _ask(self, kind: str) -> None:
        await self._gate.cross(f"journal.{kind}")
        self.reads[kind] += 1
        self._reach()
        if self._database.tables.lineage is None:
            raise JournalUnavailableError(RETRY_AFTER_S)

    async def _answer(self) -> None:
        database = self._database
        delay_s = database.faults.statement.draw(database.rng)
        if delay_s:
            await trio.sleep(delay_s)
        if self._gate.is_severed:
            await trio.sleep_forever()
        self._reach()
        if database.happens(database.faults.lost_statement):
            raise JournalUnavailableError(RETRY_AFTER_S)

    def _reach(self) -> None:
        if self._database.is_away(self._gate.place):
            raise JournalUnavailableError(RETRY_AFTER_S)

    @property
    def _lineage(self) -> str:
        lineage = self._database.tables.lineage
        assert lineage is not None, "asked before"
        return lineage

    def _observed(self, topic: TopicName, seq: int) -> ObservedTopic:
        row = self._database.tables.topics.get(topic)
        if row is None:
            return ObservedTopic(Observation.absent(topic, self._lineage), None)
        return ObservedTopic(row.observation(self._lineage), row.cursor_row(seq))

    def _page(self, topic: TopicName, after_seq: int) -> Page | None:
        row = self._database.tables.topics.get(topic)
        if row is None:
            nothing = Observation.absent(topic, self._lineage)
            return Page.from_sizes(after_seq, b"", (), last_chain=b"", observation=nothing)
        limits = self._limits
        return row.page(self._lineage, after_seq, limits.page_max_frames, limits.page_max_bytes)
