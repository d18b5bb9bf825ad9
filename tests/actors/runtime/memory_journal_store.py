"""A JournalStore in memory, kept honest by the suite that PostgreSQL passes too.

It can do harm: be slow, lose a connection before or after the commit, refuse content, be superseded.
Everything is decided under one lock, which is a correct (if slow) way to lock heads.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from khala_contracts.chain import chain_next, chain_start
from khala_contracts.codec import EntryTemplate
from khala_contracts.topics import Lineage, TopicName
from khala_service.errors import DatabaseError, Unavailable
from runtime.core.journal_calls import AppendResult, Locked, StoredKey
from runtime.core.message_pages import PageStart
from runtime.core.run_state_machine import RunState
from runtime.ports import Authority, EventPage, EventRow, MessagePage, RunRecord, Superseded, TopicRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from runtime.core.batch_commit import BatchCommit
    from runtime.core.commands import RunFacts, TopicTarget
    from runtime.core.journal_calls import AppendCall, KeyId, LockCall

US_PER_S = 1_000_000


@attrs.define
class _Topic:
    target: TopicTarget
    events: list[EventRow] = attrs.field(factory=list)
    # chains[n] is the chain at seq n.
    chains: list[bytes] = attrs.field(factory=list)
    bytes_total: int = 0


@attrs.define
class _Run:
    facts: RunFacts
    state: RunState
    created_at_us: int
    finished_at_us: int | None = None


@attrs.define
class _Key:
    fingerprint: bytes
    answer: bytes
    expires_at_us: int


@attrs.define
class MemoryJournalStore:
    """See JournalStore.

    Attributes:
        commit_s: How long a transaction takes.
        lost_before: So many next transactions lose their connection before COMMIT is sent.
        lost_after: So many next transactions commit and lose the answer.
        unreachable_until: No connection can be opened before this time.
        held_topics: Heads that somebody else has locked: a transaction that needs one times out.
        commits: Events of each committed transaction, in commit order.
    """

    commit_s: float = 0.0
    lost_before: int = 0
    lost_after: int = 0
    unreachable_until: float = 0.0
    held_topics: set[str] = attrs.field(factory=set)
    commits: list[int] = attrs.field(factory=list)
    attempts: int = 0
    writers_open: int = 0
    # Called right after a commit, before its answer is lost or given.
    after_commit: Callable[[], object] | None = None
    is_migrated: bool = True
    # How far the database's clock runs on with each append.
    tick_us: int = 1
    _generation: int = 0
    _lineage: Lineage | None = None
    _now_us: int = 1_700_000_000_000_000
    _topics: dict[TopicName, _Topic] = attrs.field(factory=dict)
    _runs: dict[str, _Run] = attrs.field(factory=dict)
    _keys: dict[KeyId, _Key] = attrs.field(factory=dict)
    _lock: trio.Lock = attrs.field(factory=trio.Lock)

    async def take_authority(self, *, holder: str, lineage_candidate: str) -> Authority:
        del holder
        async with self._lock:
            self._generation += 1
            self._lineage = self._lineage or Lineage(lineage_candidate)
            return Authority(self._generation, self._lineage)

    @asynccontextmanager
    async def open_writer(self, generation: int) -> AsyncIterator[_MemoryWriter]:
        await self._reach()
        self.writers_open += 1
        try:
            yield _MemoryWriter(self, generation)
        finally:
            self.writers_open -= 1

    async def read_generation(self) -> int:
        await self._reach()
        return self._generation

    async def read_key(self, scope: str, key: str) -> StoredKey | None:
        await self._reach()
        found = self._keys.get((scope, key))
        if found is None or found.expires_at_us <= self._now_us:
            return None
        return StoredKey(found.fingerprint, found.answer)

    async def read_run(self, run_id: str) -> RunRecord | None:
        await self._reach()
        run = self._runs.get(run_id)
        return None if run is None else self._record(run)

    async def list_runs(
        self, *, user_id: str, org_ids: Sequence[str], before_run_id: str | None, limit: int
    ) -> list[RunRecord]:
        await self._reach()
        found = [
            run
            for run_id, run in sorted(self._runs.items(), reverse=True)
            if (run.facts.owner_user_id == user_id or run.facts.org_id in org_ids)
            and (before_run_id is None or run_id < before_run_id)
        ]
        return [self._record(run) for run in found[:limit]]

    async def read_topic(self, topic: TopicName) -> TopicRecord | None:
        return (await self.read_topics([topic])).get(topic)

    async def read_topics(self, topics: Iterable[TopicName]) -> Mapping[TopicName, TopicRecord]:
        await self._reach()
        return {topic: self._topic_record(topic) for topic in topics if topic in self._topics}

    async def read_events(
        self, topic: TopicName, *, after_seq: int, limit: int, max_bytes: int
    ) -> EventPage | None:
        await self._reach()
        found = self._topics.get(topic)
        if found is None:
            return None
        page: list[EventRow] = []
        size = 0
        for event in found.events[after_seq : after_seq + limit]:
            size += len(event.payload)
            if page and size > max_bytes:
                break
            page.append(event)
        before = found.chains[after_seq] if after_seq < len(found.chains) else b""
        last = found.chains[page[-1].seq] if page else before
        return EventPage(self._topic_record(topic), tuple(page), before, last)

    async def read_messages(
        self, topic: TopicName, *, after_seq: int, limit: int, max_bytes: int
    ) -> MessagePage | None:
        await self._reach()
        found = self._topics.get(topic)
        if found is None:
            return None
        page: list[bytes] = []
        size = 0
        for entry in self.entries(topic)[after_seq : after_seq + limit]:
            size += len(entry)
            if page and size > max_bytes:
                break
            page.append(entry)
        head = self._topic_record(topic)
        start = PageStart(
            topic, head.lineage, head.head_seq, head.floor_seq, head.floor_chain, head.floor_reason,
            # The journal has no row at 0.
            found.chains[after_seq] if 0 < after_seq < len(found.chains) else b"",
        )  # fmt: skip
        last_seq = after_seq + len(page)
        return MessagePage(head, start, b"".join(page), last_seq, found.chains[last_seq] if page else b"")

    async def delete_expired_keys(self, limit: int) -> int:
        await self._reach()
        expired = [key for key, row in self._keys.items() if row.expires_at_us <= self._now_us][:limit]
        for key in expired:
            del self._keys[key]
        return len(expired)

    async def check(self) -> str | None:
        await self._reach()
        return None if self.is_migrated else "migration_required"

    def advance(self, seconds: float) -> None:
        """Let the database's clock run on."""
        self._now_us += int(seconds * US_PER_S)

    def supersede(self) -> None:
        """Let another runtime take over."""
        self._generation += 1

    def entries(self, topic: TopicName) -> list[bytes]:
        """Return the journal's entries of a topic."""
        template = EntryTemplate(topic)
        return [
            template.entry(event.seq, event.kind, event.payload, event.schema_version)
            for event in self._topics[topic].events
        ]

    def key_count(self) -> int:
        """Return how many keys are remembered."""
        return len(self._keys)

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self.unreachable_until:
            raise Unavailable("database_unreachable")

    async def commit(self, batch: BatchCommit, generation: int) -> None:
        """Carry out one batch."""
        self.attempts += 1
        async with self._lock:
            await trio.sleep(self.commit_s)
            await self._reach()
            if generation != self._generation:
                raise Superseded
            call = batch.lock_call
            self._refuse_unstorable(call)
            if self.held_topics & {target.topic for target in call.targets}:
                raise Unavailable("database_lock_timeout")
            locked, new_runs = self._lock_batch(call)
            append = batch.decide(locked)
            if append is None:
                return
            self._refuse_nul(*append.actors, *append.request_ids)
            appended, rows = self._append(append)
            finish = batch.finish(appended)
            if self.lost_before:
                self.lost_before -= 1
                raise Unavailable("database_connection_lost")
            # The commit: everything below happens without a checkpoint.
            for target, events, chains in rows:
                topic = self._topics.setdefault(
                    target.topic, _Topic(target, chains=[chain_start(target.topic)])
                )
                topic.events += events
                topic.chains += chains
                entries = self.entries(target.topic)[-len(events) :]
                topic.bytes_total += sum(map(len, entries))
            for run in new_runs:
                self._runs[run.facts.run_id] = run
            for update in finish.run_updates:
                self._runs[update.run_id].state = update.state
                self._runs[update.run_id].finished_at_us = update.finished_at_us
            for key_id, stored in finish.answers.items():
                if stored is not None and key_id not in locked.known_keys:
                    expires_at_us = self._now_us + call.keys[key_id].lifetime_s * US_PER_S
                    self._keys[key_id] = _Key(stored.fingerprint, stored.answer, expires_at_us)
            self.commits.append(len(append.event_ids))
            if self.after_commit is not None:
                self.after_commit()
            if self.lost_after:
                self.lost_after -= 1
                raise Unavailable("database_connection_lost", outcome_unknown=True)

    def _lock_batch(self, call: LockCall) -> tuple[Locked, list[_Run]]:
        known = {
            key_id: StoredKey(row.fingerprint, row.answer)
            for key_id in call.keys
            if (row := self._keys.get(key_id)) is not None and row.expires_at_us > self._now_us
        }
        names = {
            (run.facts.owner_user_id, run.facts.name): run_id
            for run_id, run in self._runs.items()
            if run.facts.name
        }
        holders: dict[str, str] = {}
        new_runs: list[_Run] = []
        wanted = [new.command.facts for new in call.new_runs if new.key not in known]
        for facts in sorted(wanted, key=lambda facts: (facts.owner_user_id, facts.name, facts.run_id)):
            name = facts.owner_user_id, facts.name
            holders[facts.run_id] = names.setdefault(name, facts.run_id) if facts.name else facts.run_id
            if holders[facts.run_id] == facts.run_id:
                new_runs.append(_Run(facts, RunState.RUNNING, self._now_us))
        locked = Locked(
            known_keys=known,
            run_states={run_id: self._runs[run_id].state for run_id in call.run_ids if run_id in self._runs},
            name_holders=holders,
            head_seqs={
                target.topic: self._head_seq(target.topic)
                for target in call.targets
                if target.run_id is None or target.topic in self._topics
            },
            locked_at_us=self._now_us,
        )
        return locked, new_runs

    def _append(
        self, call: AppendCall
    ) -> tuple[AppendResult, list[tuple[TopicTarget, list[EventRow], list[bytes]]]]:
        self._now_us += self.tick_us
        rows: list[tuple[TopicTarget, list[EventRow], list[bytes]]] = []
        seqs_before: list[int] = []
        chains_before: list[bytes] = []
        at = 0
        for target, count in zip(call.targets, call.event_counts, strict=True):
            seq = self._head_seq(target.topic)
            known = self._topics.get(target.topic)
            chain = known.chains[-1] if known else chain_start(target.topic)
            seqs_before.append(seq)
            chains_before.append(chain)
            events: list[EventRow] = []
            chains: list[bytes] = []
            for index in range(at, at + count):
                seq += 1
                kind, payload, version = call.kinds[index], call.payloads[index], call.schema_versions[index]
                chain = chain_next(chain, seq, version, kind, payload)
                chains.append(chain)
                events.append(
                    EventRow(
                        call.event_ids[index], seq, kind, payload, version, call.actors[index],
                        call.request_ids[index], self._now_us,
                    )
                )  # fmt: skip
            at += count
            rows.append((target, events, chains))
        joined = b"".join(chain for _, _, chains in rows for chain in chains)
        return AppendResult(seqs_before, chains_before, joined, self._now_us), rows

    def _refuse_unstorable(self, call: LockCall) -> None:
        for scope, key in call.keys:
            self._refuse_nul(scope, key)
        for new in call.new_runs:
            facts = new.command.facts
            self._refuse_nul(facts.name, facts.agent, facts.source)

    @staticmethod
    def _refuse_nul(*texts: str) -> None:
        if any("\x00" in text for text in texts):
            raise DatabaseError("22021")

    def _head_seq(self, topic: TopicName) -> int:
        return len(self._topics[topic].events) if topic in self._topics else 0

    def _record(self, run: _Run) -> RunRecord:
        topic = self._topics[run.facts.topic]
        assert self._lineage is not None
        return RunRecord(
            run.facts, run.state, run.created_at_us, run.finished_at_us, self._lineage,
            len(topic.events), topic.chains[-1],
        )  # fmt: skip

    def _topic_record(self, name: TopicName) -> TopicRecord:
        topic = self._topics[name]
        assert self._lineage is not None
        return TopicRecord(
            topic=name,
            topic_class=topic.target.topic_class,
            lineage=self._lineage,
            head_seq=len(topic.events),
            head_chain=topic.chains[-1],
            head_bytes_total=topic.bytes_total,
            floor_seq=1,
            floor_chain=topic.chains[0],
            floor_bytes_total=0,
            floor_reason="none",
            owner_user_id=topic.target.owner_user_id,
            org_id=topic.target.org_id,
        )


@attrs.frozen
class _MemoryWriter:
    """One connection of a MemoryJournalStore."""

    _store: MemoryJournalStore
    _generation: int

    async def commit_batch(self, batch: BatchCommit) -> None:
        await self._store.commit(batch, self._generation)
