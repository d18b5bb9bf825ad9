"""ProjectionStore and TransferStore over the database of the world: the reads and writes of projectors.

Lock order inside a step: the generation row, checkpoints, topic heads; inside a transfer: the generation row,
the key, the run's row, its names, its checkpoint, all heads that will be written. As the adapters do it
(runtime/adapters/postgres/projection_store.py, transfer_store.py): owners are read after the checkpoints are
locked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from chaos.sim.append_model import (
    Drafts,
    append,
    finish_batch,
    hold_generation,
    lock_batch,
    lock_heads,
    name_key,
)
from chaos.sim.database_session import RolledBack
from chaos.sim.database_tables import CheckpointRow
from khala_service.errors import DatabaseError
from runtime.core.projection_step import LockedSource, SourcePage
from runtime.core.projections import FOLDED_KINDS, SourceEvent
from runtime.core.run_transfer import TransferredRun
from runtime.core.summary_pace import Published
from runtime.ports import SourcePosition, StoredSummary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.sim.database_session import Database, Session, Transaction
    from chaos.sim.database_tables import Tables, TopicRow
    from khala_contracts.topics import Lineage, TopicName
    from runtime.core.projection_step import CheckpointMove, ProjectionStep, SourceRead
    from runtime.core.projections import RunSummary
    from runtime.core.run_transfer import RunTransfer

__all__ = ["PAGE_EVENTS_MAX", "ModelProjections"]

# Of one source in one read, as the adapter's.
PAGE_EVENTS_MAX: Final = 500
PAGE_BYTES_MAX: Final = 256 * 1024
SOURCE_CLASS: Final = "run_events"
# write_checkpoints_v1: a checkpoint is not where its holder found it.
CHECKPOINT_MOVED: Final = "KH003"


class ModelProjections:
    """The projectors' and transfers' half of a ModelStore.

    Attributes:
        session: The connections of the process.
        database: The server behind them.
        page_events_max: Most events of one source in one read.
    """

    def __init__(self, session: Session, database: Database) -> None:
        self.session = session
        self.database = database
        self.page_events_max = PAGE_EVENTS_MAX

    @property
    def tables(self) -> Tables:
        """What is committed now."""
        return self.database.tables

    # -- ProjectionStore -------------------------------------------------------------------------------

    async def run_step(self, step: ProjectionStep, *, generation: int) -> None:
        """Carry out one step in one transaction; see ProjectionStore."""
        async with self.session.transaction("journal.step") as transaction:
            await self._step(transaction, Drafts(), step, generation)

    async def read_sources(self, reads: Sequence[SourceRead]) -> list[SourcePage]:
        """Return pages of source events; see ProjectionStore."""
        await self.session.read("journal.read_sources")
        return await self.session.answer(self._pages(reads, Drafts()))

    async def find_behind(self, *, after_topic: str, limit: int) -> list[SourcePosition]:
        """Return sources with something to do; see ProjectionStore."""
        await self.session.read("journal.find_behind")
        found: list[SourcePosition] = []
        for row in self._sources(after_topic):
            point = self.tables.checkpoints.get(row.topic, CheckpointRow())
            told_seq = 0 if point.published is None else point.published.seq
            if row.head_seq > point.applied_seq or point.applied_seq > told_seq:
                found.append(SourcePosition(row.topic, row.head_seq, point.applied_seq))
        return await self.session.answer(found[:limit])

    async def list_summaries(self, *, after_topic: str, limit: int) -> list[StoredSummary]:
        """Return sources with their rows of the read model; see ProjectionStore."""
        await self.session.read("journal.list_summaries")
        found: list[StoredSummary] = []
        for row in self._sources(after_topic)[:limit]:
            assert row.owner_user_id is not None, "a run has an owner"
            point = self.tables.checkpoints.get(row.topic, CheckpointRow())
            summary = self.tables.summaries.get(_run_id(row.topic))
            found.append(
                StoredSummary(
                    row.topic, row.owner_user_id, row.org_id, row.head_seq, point.applied_seq, summary
                )
            )
        return await self.session.answer(found)

    async def _step(
        self, transaction: Transaction, drafts: Drafts, step: ProjectionStep, generation: int
    ) -> None:
        """Carry out one step inside a transaction; ProjectionFailed rolls it back."""
        await transaction.statement("journal.lock_checkpoints")
        await hold_generation(transaction, generation)
        locked = [
            source
            for topic in sorted(step.topics)
            if (source := await self._lock_source(transaction, drafts, topic)) is not None
        ]
        if not locked:
            raise RolledBack
        reads = step.reads(locked)
        await transaction.statement("journal.read_sources")
        summaries = step.fold(self._pages(reads, drafts), now_us=self.database.now_us())
        call, appended = step.append(), None
        if call is not None:
            await transaction.statement("journal.append")
            appended = await append(transaction, drafts, call, generation=generation)
        moves = step.finish(call, appended)
        if not moves and not summaries:
            raise RolledBack
        await transaction.statement("journal.write_checkpoints")
        self._stage_step(
            transaction, summaries, moves, None if appended is None else appended.committed_at_us
        )

    async def _lock_source(
        self, transaction: Transaction, drafts: Drafts, topic: TopicName
    ) -> LockedSource | None:
        if topic not in self.tables.topics:
            return None
        await transaction.lock(("checkpoint", topic))
        # Read under the lock: whoever held it may have given the run another owner.
        row = drafts.heads.get(topic) or self.tables.topics[topic]
        assert row.owner_user_id is not None, "a run has an owner"
        point = self.tables.checkpoints.get(topic, CheckpointRow())
        summary = self.tables.summaries.get(_run_id(topic))
        return LockedSource(topic, row.owner_user_id, row.org_id, point.applied_seq, point.published, summary)

    def _stage_step(
        self,
        transaction: Transaction,
        summaries: Sequence[RunSummary],
        moves: Sequence[CheckpointMove],
        committed_at_us: int | None,
    ) -> None:
        tables = self.tables
        for move in moves:
            if tables.checkpoints.get(move.topic, CheckpointRow()).applied_seq != move.seq_before:
                raise DatabaseError(CHECKPOINT_MOVED)

        def write() -> None:
            for summary in summaries:
                tables.summaries[summary.run_id] = summary
            for move in moves:
                told, published = move.summary, tables.checkpoints.get(move.topic, CheckpointRow()).published
                if move.told:
                    assert committed_at_us is not None, "what is told is appended"
                    published = Published(told.applied_seq, told.state, told.title, committed_at_us)
                tables.checkpoints[move.topic] = CheckpointRow(told.applied_seq, published)

        transaction.stage(write)

    def _sources(self, after_topic: str) -> list[TopicRow]:
        found = [
            row
            for topic, row in self.tables.topics.items()
            if row.topic_class == SOURCE_CLASS and topic > after_topic
        ]
        return sorted(found, key=lambda row: row.topic)

    def _pages(self, reads: Sequence[SourceRead], drafts: Drafts) -> list[SourcePage]:
        pages: list[SourcePage] = []
        for read in reads:
            row = self.tables.topics.get(read.topic)
            history = [] if row is None else row.events
            if read.topic in drafts.heads:
                history = history + drafts.heads[read.topic].events
            end = len(history) if read.last_seq is None else read.last_seq
            events: list[SourceEvent] = []
            size = 0
            for event in history[read.after_seq : min(end, read.after_seq + self.page_events_max)]:
                payload = event.payload if event.kind in FOLDED_KINDS else b""
                size += len(payload)
                if events and size > PAGE_BYTES_MAX:
                    break
                events.append(SourceEvent(event.seq, event.kind, payload, event.committed_at_us))
            if events:
                pages.append(SourcePage(read.topic, tuple(events)))
        return pages

    # -- TransferStore ---------------------------------------------------------------------------------

    async def run_transfer(self, transfer: RunTransfer, *, generation: int) -> None:
        """Carry out one transfer in one transaction; see TransferStore."""
        async with self.session.transaction("journal.transfer") as transaction:
            await self._transfer(transaction, Drafts(), transfer, generation)

    async def _transfer(
        self, transaction: Transaction, drafts: Drafts, transfer: RunTransfer, generation: int
    ) -> None:
        await transaction.statement("journal.lock_batch")
        locked = await lock_batch(transaction, drafts, transfer.lock_call, generation=generation)
        if not transfer.decide(locked, self._transferred(transfer.run_id)):
            raise RolledBack
        tables, owner, run_id = self.tables, transfer.owner_user_id, transfer.run_id
        facts = tables.runs[run_id].facts
        await transaction.statement("journal.transfer_run")
        if facts.name:
            for key in sorted([name_key(owner, facts.name), name_key(facts.owner_user_id, facts.name)]):
                await transaction.lock(key)
            if (owner, facts.name) in tables.names:
                transfer.refuse_name(tables.names[owner, facts.name])
                raise RolledBack
        targets = transfer.targets()
        own = targets[0].topic
        await transaction.statement("journal.transfer_heads")
        await transaction.lock(("checkpoint", own))
        await lock_heads(transaction, drafts, targets)
        drafts.heads[own].owner_user_id = owner
        call = transfer.event()
        finish = transfer.finish(call, await append(transaction, drafts, call, generation=generation))

        def write() -> None:
            run = tables.runs[run_id]
            if facts.name:
                del tables.names[facts.owner_user_id, facts.name]
                tables.names[owner, facts.name] = run_id
            run.facts = attrs.evolve(run.facts, owner_user_id=owner)
            tables.topics[own].owner_user_id = owner

        transaction.stage(write)
        await self._step(transaction, drafts, transfer.step(), generation)
        finish_batch(transaction, drafts, finish)

    def _transferred(self, run_id: str) -> TransferredRun | None:
        run = self.tables.runs.get(run_id)
        row = None if run is None else self.tables.topics.get(run.facts.topic)
        if run is None or row is None:
            return None
        return TransferredRun(
            run.facts, run.state, run.created_at_us, run.finished_at_us, self._lineage(), row.head_seq,
            row.chains[-1],
        )  # fmt: skip

    def _lineage(self) -> Lineage:
        lineage = self.tables.lineage
        assert lineage is not None, "settled before anything was written"
        return lineage


def _run_id(topic: TopicName) -> str:
    return topic.split(":")[1]
