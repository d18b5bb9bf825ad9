"""The runtime's database in memory: one for a world, with a JournalStore for each runtime and a reader for each node.

Keeps the contract that PostgreSQL keeps (tests/integration/runtime/journal_store_suite.py runs on both), with
row locks that wait (row_locks.py), commits whose outcome is unknown (database_session.py) and a generation row that
makes a taker-over wait for the transactions of its predecessor. What SQL does with it is tested on PostgreSQL.

The world reads what is committed for its verdict, moves floors, and puts older copies back.
"""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from chaos.sim.append_model import Drafts, append, finish_batch, lock_batch
from chaos.sim.database_session import GENERATION, Database, RolledBack, Session, Transaction
from chaos.sim.database_tables import Tables
from chaos.sim.gates import wall_now
from chaos.sim.projection_model import ModelProjections
from chaos.sim.reader_model import ModelReader
from chaos.sim.row_locks import RowLocks
from chaos.transcripts import Line
from khala_contracts.topics import Lineage
from khala_service.errors import Unavailable
from runtime.core.journal_calls import StoredKey
from runtime.ports import Authority, RunRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from random import Random

    from chaos.sim.database_tables import RunRow
    from chaos.sim.gates import DatabaseFaults, PortGate
    from khala.core.limits import NodeLimits
    from khala_contracts.topics import TopicName
    from runtime.core.batch_commit import BatchCommit
    from runtime.ports import EventPage, MessagePage, TopicRecord

__all__ = ["JournalModel", "ModelStore", "ModelWriter", "Snapshot"]


@attrs.frozen(eq=False)
class Snapshot:
    """A copy of the database, to be put back."""

    tables: Tables


class JournalModel:
    """The database; see the module.

    Attributes:
        database: The server.
        commits: Events of each committed batch of commands, in commit order.
    """

    def __init__(self, *, rng: Random, faults: DatabaseFaults, wall: Callable[[], float] = wall_now) -> None:
        self.database = Database(Tables(), RowLocks(), rng=rng, faults=faults, wall=wall)
        self.commits: list[int] = []

    @property
    def tables(self) -> Tables:
        """What is committed now."""
        return self.database.tables

    def open_store(self, gate: PortGate) -> ModelStore:
        """Return the store of one runtime process."""
        return ModelStore(self, gate)

    def open_reader(self, gate: PortGate, limits: NodeLimits) -> ModelReader:
        """Return the reader of one node."""
        return ModelReader(self.database, gate, limits)

    # -- for the world -------------------------------------------------------------------------------

    def lines(self) -> dict[str, list[Line]]:
        """Return what is committed, by topic, as the checker reads a journal. Nothing that was pruned is missing."""
        return {
            str(topic): [
                Line(
                    topic, event.seq, event.kind, event.schema_version,
                    hashlib.sha256(event.payload).digest(), row.chains[event.seq],
                )
                for event in row.events
            ]
            for topic, row in self.tables.topics.items()
        }  # fmt: skip

    def floors(self) -> dict[str, int]:
        """Return the floor of each topic."""
        return {str(topic): row.floor_seq for topic, row in self.tables.topics.items()}

    def move_floor(self, topic: TopicName, seq: int, reason: str) -> bool:
        """Let retention or compaction move a floor; False if it cannot be there now.

        Args:
            topic: The topic; a head that somebody has locked is left alone, as by SKIP LOCKED.
            seq: The oldest that stays; at most one above the head.
            reason: ``retention_expired`` or ``compaction_boundary``.
        """
        row = self.tables.topics.get(topic)
        if row is None or not row.floor_seq < seq <= row.head_seq + 1:
            return False
        if self.database.locks.holders(("head", topic)):
            return False
        row.floor_seq, row.floor_reason = seq, reason
        return True

    def restart(self) -> None:
        """Let the server restart at once: every connection is lost."""
        self.database.lose_connections()

    def snapshot(self) -> Snapshot:
        """Return a copy of what is committed now."""
        return Snapshot(self.tables.copy())

    def restore(self, snapshot: Snapshot, *, lineage: Lineage | None = None) -> None:
        """Put an older copy in the place of the database.

        Args:
            snapshot: The copy; it stays as it is.
            lineage: Of the new history, as `khala restore` makes one; None: behind everybody's back.
        """
        self.database.epoch += 1
        for transaction in list(self.database.open):
            transaction.abort()
        self.database.tables = snapshot.tables.copy()
        if lineage is not None:
            self.database.tables.lineage = lineage


class ModelStore(ModelProjections):
    """JournalStore, ProjectionStore and TransferStore of one runtime process.

    Attributes:
        writers_open: Connections given to writers and not given back.
    """

    def __init__(self, model: JournalModel, gate: PortGate) -> None:
        super().__init__(Session(model.database, gate), model.database)
        self.model = model
        self.writers_open = 0

    # -- authority -------------------------------------------------------------------------------------

    async def take_authority(self, *, holder: str, lineage_candidate: str) -> Authority:
        """Become the writer; see JournalStore."""
        del holder
        async with self.session.transaction("journal.authority") as transaction:
            await transaction.statement("journal.authority")
            await transaction.lock(GENERATION)
            tables = self.tables
            generation = tables.generation + 1

            def write() -> None:
                tables.generation = generation

            transaction.stage(write)
        async with self.session.transaction("journal.lineage") as transaction:
            await transaction.statement("journal.lineage")
            await transaction.lock(("lineage",))
            tables = self.tables
            lineage = tables.lineage or Lineage(lineage_candidate)

            def begin() -> None:
                tables.lineage = lineage

            transaction.stage(begin)
        return Authority(generation, lineage)

    async def read_generation(self) -> int:
        """Return the current generation."""
        await self.session.read("journal.read_generation")
        return await self.session.answer(self.tables.generation)

    @asynccontextmanager
    async def open_writer(self, generation: int) -> AsyncIterator[ModelWriter]:
        """Open a writer that commits under this generation only; see JournalStore."""
        await self.session.read("journal.open_writer")
        await self.session.answer(None)
        self.writers_open += 1
        try:
            yield ModelWriter(self, generation, self.session.epoch)
        finally:
            self.writers_open -= 1

    async def commit(self, batch: BatchCommit, generation: int) -> None:
        """Carry out one batch in one transaction; see JournalWriter."""
        async with self.session.transaction("journal.commit") as transaction:
            await self._carry_out_batch(transaction, batch, generation)

    async def _carry_out_batch(self, transaction: Transaction, batch: BatchCommit, generation: int) -> None:
        drafts = Drafts()
        await transaction.statement("journal.lock_batch")
        locked = await lock_batch(transaction, drafts, batch.lock_call, generation=generation)
        call = batch.decide(locked)
        if call is None:
            raise RolledBack
        await transaction.statement("journal.append")
        appended = await append(transaction, drafts, call, generation=generation)
        finish = batch.finish(appended)
        await transaction.statement("journal.finish")
        finish_batch(transaction, drafts, finish)
        transaction.stage(lambda: self.model.commits.append(len(call.event_ids)))

    # -- reads -----------------------------------------------------------------------------------------

    async def read_key(self, scope: str, key: str) -> StoredKey | None:
        """Return what was answered under a key, None if it is new or has expired."""
        await self.session.read("journal.read_key")
        found = self.tables.keys.get((scope, key))
        is_new = found is None or found.expires_at_us <= self.database.now_us()
        stored = None if found is None or is_new else StoredKey(found.fingerprint, found.answer)
        return await self.session.answer(stored)

    async def read_run(self, run_id: str) -> RunRecord | None:
        """Return a run, None if there is none."""
        await self.session.read("journal.read_run")
        run = self.tables.runs.get(run_id)
        return await self.session.answer(None if run is None else self._run_record(run))

    async def list_runs(
        self, *, user_id: str, org_ids: Sequence[str], before_run_id: str | None, limit: int
    ) -> list[RunRecord]:
        """Return a page of runs, newest first; see JournalStore."""
        await self.session.read("journal.list_runs")
        found: list[RunRecord] = []
        for run_id, run in sorted(self.tables.runs.items(), reverse=True):
            is_theirs = run.facts.owner_user_id == user_id or run.facts.org_id in org_ids
            if is_theirs and (before_run_id is None or run_id < before_run_id) and len(found) < limit:
                found += [record] if (record := self._run_record(run)) is not None else []
        return await self.session.answer(found)

    async def read_topic(self, topic: TopicName) -> TopicRecord | None:
        """Return a topic's head row, None if nothing was ever written to it."""
        return (await self.read_topics([topic])).get(topic)

    async def read_topics(self, topics: Iterable[TopicName]) -> Mapping[TopicName, TopicRecord]:
        """Return the head rows of those topics that have one."""
        await self.session.read("journal.read_topics")
        rows = self.tables.topics
        found = {topic: rows[topic].record(self._lineage()) for topic in topics if topic in rows}
        return await self.session.answer(found)

    async def read_events(
        self, topic: TopicName, *, after_seq: int, limit: int, max_bytes: int
    ) -> EventPage | None:
        """Return a page of the log, None if nothing was ever written to the topic."""
        await self.session.read("journal.read_events")
        row = self.tables.topics.get(topic)
        page = None if row is None else row.event_page(self._lineage(), after_seq, limit, max_bytes)
        return await self.session.answer(page)

    async def read_messages(
        self, topic: TopicName, *, after_seq: int, limit: int, max_bytes: int
    ) -> MessagePage | None:
        """Return a page of the journal, None if nothing was ever written to the topic."""
        await self.session.read("journal.read_messages")
        row = self.tables.topics.get(topic)
        page = None if row is None else row.message_page(self._lineage(), after_seq, limit, max_bytes)
        return await self.session.answer(page)

    async def delete_expired_keys(self, limit: int) -> int:
        """Delete at most ``limit`` expired idempotency keys and return how many there were."""
        await self.session.read("journal.delete_expired_keys")
        now_us, tables = self.database.now_us(), self.tables
        expired = [
            key_id
            for key_id, row in tables.keys.items()
            if row.expires_at_us <= now_us and not self.database.locks.holders(("key", *key_id))
        ]
        for key_id in expired[:limit]:
            del tables.keys[key_id]
        return await self.session.answer(len(expired[:limit]))

    async def check(self) -> str | None:
        """Return None: the model has the revision of this build."""
        await self.session.read("journal.check")
        return await self.session.answer(None)

    def _run_record(self, run: RunRow) -> RunRecord | None:
        # A run whose first event was not written with it is no run yet: the query joins the head.
        topic = self.tables.topics.get(run.facts.topic)
        if topic is None:
            return None
        return RunRecord(
            run.facts, run.state, run.created_at_us, run.finished_at_us, self._lineage(), topic.head_seq,
            topic.chains[-1],
        )  # fmt: skip


class ModelWriter:
    """One connection that commits under one generation."""

    def __init__(self, store: ModelStore, generation: int, epoch: int) -> None:
        self._store = store
        self._generation = generation
        self._epoch = epoch

    async def commit_batch(self, batch: BatchCommit) -> None:
        """Carry out one batch; see JournalWriter."""
        if self._epoch != self._store.session.epoch:
            raise Unavailable("database_connection_lost")
        await self._store.commit(batch, self._generation)
