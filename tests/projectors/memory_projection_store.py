"""A ProjectionStore in memory, kept honest by the suite that PostgreSQL passes too.

It can do harm: be slow, unreachable, lose a connection before or after the commit, hold locks, crash on
a topic, be superseded. Its clock is trio's, so that what is held back becomes due in virtual time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from khala_contracts.chain import chain_next, chain_start
from khala_service.errors import Unavailable
from runtime.core.journal_calls import AppendResult
from runtime.core.projection_step import LockedSource, SourcePage
from runtime.core.projections import FOLDED_KINDS, RunSummary, SourceEvent
from runtime.core.summary_pace import Published
from runtime.ports import SourcePosition, StoredSummary, Superseded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khala_contracts.topics import TopicName
    from runtime.core.journal_calls import AppendCall
    from runtime.core.projection_step import CheckpointMove, ProjectionStep, SourceRead

US_PER_S = 1_000_000
# Far from 0, as a database's clock is.
START_US = 1_700_000_000 * US_PER_S


@attrs.define
class _Source:
    owner_user_id: str
    org_id: str | None
    events: list[SourceEvent] = attrs.field(factory=list)
    applied_seq: int = 0
    published: Published | None = None


@attrs.define
class MemoryProjectionStore:
    """See ProjectionStore.

    Attributes:
        step_s: How long a transaction takes.
        lost_before: So many next transactions lose their connection before COMMIT is sent.
        lost_after: So many next transactions commit and lose the answer.
        unreachable_until: Nothing is answered before this time.
        held: Sources whose checkpoint somebody else has locked.
        held_lists: Lists whose head somebody else has locked.
        lock_wait_s: How long a transaction waits for a lock before it gives up.
        crashing: Sources that meet a bug of ours.
        tries: Sources of each transaction that was begun, and when.
    """

    page_events_max: int = 500
    step_s: float = 0.0
    lost_before: int = 0
    lost_after: int = 0
    unreachable_until: float = 0.0
    is_superseded: bool = False
    held: set[TopicName] = attrs.field(factory=set)
    held_lists: set[TopicName] = attrs.field(factory=set)
    lock_wait_s: float = 0.0
    crashing: set[TopicName] = attrs.field(factory=set)
    tries: list[tuple[float, tuple[TopicName, ...]]] = attrs.field(factory=list)
    sweeps: list[float] = attrs.field(factory=list)
    sources: dict[TopicName, _Source] = attrs.field(factory=dict)
    rows: dict[str, RunSummary] = attrs.field(factory=dict)
    # By list topic: key, payload and time of each frame.
    frames: dict[TopicName, list[tuple[str | None, bytes, int]]] = attrs.field(factory=dict)
    _lock: trio.Lock = attrs.field(factory=trio.Lock)

    def write(
        self, topic: TopicName, *given: tuple[str, bytes], owner: str, org_id: str | None = None
    ) -> int:
        """Commit events of a source; return its head."""
        source = self.sources.setdefault(topic, _Source(owner, org_id))
        for kind, payload in given:
            source.events.append(SourceEvent(len(source.events) + 1, kind, payload, self.now_us()))
        return len(source.events)

    @staticmethod
    def now_us() -> int:
        """Return the time of the database's clock."""
        return START_US + int(trio.current_time() * US_PER_S)

    async def run_step(self, step: ProjectionStep, *, generation: int) -> None:
        del generation
        self.tries.append((trio.current_time(), step.topics))
        async with self._lock:
            await trio.sleep(self.step_s)
            await self._reach()
            if self.is_superseded:
                raise Superseded
            if self.held & set(step.topics):
                await self._wait_for_lock()
            if self.crashing & set(step.topics):
                raise RuntimeError("a bug of ours")
            locked = [self._locked(topic) for topic in sorted(step.topics) if topic in self.sources]
            reads = step.reads(locked)
            pages = [page for read in reads if (page := self._page(read)) is not None]
            rows = step.fold(pages, now_us=self.now_us())
            call = step.append()
            if call is not None and self.held_lists & {target.topic for target in call.targets}:
                await self._wait_for_lock()
            appended = None if call is None else self._append(call)
            moves = step.finish(call, appended)
            if self.lost_before:
                self.lost_before -= 1
                raise Unavailable("database_connection_lost")
            self._commit(rows, call, moves)
            if self.lost_after:
                self.lost_after -= 1
                raise Unavailable("database_connection_lost", outcome_unknown=True)

    async def read_sources(self, reads: Sequence[SourceRead]) -> list[SourcePage]:
        await self._reach()
        return [page for read in reads if (page := self._page(read)) is not None]

    async def find_behind(self, *, after_topic: str, limit: int) -> list[SourcePosition]:
        self.sweeps.append(trio.current_time())
        await self._reach()
        found = [
            SourcePosition(topic, len(source.events), source.applied_seq)
            for topic, source in sorted(self.sources.items())
            if topic > after_topic
            and (len(source.events) > source.applied_seq or source.applied_seq > _told_seq(source))
        ]
        return found[:limit]

    async def list_summaries(self, *, after_topic: str, limit: int) -> list[StoredSummary]:
        await self._reach()
        found = [
            StoredSummary(
                topic, source.owner_user_id, source.org_id, len(source.events), source.applied_seq,
                self.rows.get(_run_id(topic)),
            )
            for topic, source in sorted(self.sources.items())
            if topic > after_topic
        ]  # fmt: skip
        return found[:limit]

    async def _wait_for_lock(self) -> None:
        await trio.sleep(self.lock_wait_s)
        raise Unavailable("database_lock_timeout")

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self.unreachable_until:
            raise Unavailable("database_unreachable")

    def _locked(self, topic: TopicName) -> LockedSource:
        source = self.sources[topic]
        return LockedSource(
            topic, source.owner_user_id, source.org_id, source.applied_seq, source.published,
            self.rows.get(_run_id(topic)),
        )  # fmt: skip

    def _page(self, read: SourceRead) -> SourcePage | None:
        history = self.sources[read.topic].events
        end = len(history) if read.last_seq is None else read.last_seq
        found = history[read.after_seq : min(end, read.after_seq + self.page_events_max)]
        if not found:
            return None
        return SourcePage(
            read.topic,
            tuple(
                event if event.kind in FOLDED_KINDS else attrs.evolve(event, payload=b"") for event in found
            ),
        )

    def _append(self, call: AppendCall) -> AppendResult:
        seqs, chains_before, chains, at = [], [], b"", 0
        for target, count in zip(call.targets, call.event_counts, strict=True):
            seq = len(self.frames.get(target.topic, []))
            chain = chain_start(target.topic)
            seqs.append(seq)
            chains_before.append(chain)
            for index in range(at, at + count):
                seq += 1
                chain = chain_next(chain, seq, 1, call.kinds[index], call.payloads[index])
                chains += chain
            at += count
        return AppendResult(seqs, chains_before, chains, self.now_us())

    def _commit(
        self, rows: Sequence[RunSummary], call: AppendCall | None, moves: Sequence[CheckpointMove]
    ) -> None:
        for row in rows:
            self.rows[row.run_id] = row
        if call is not None:
            assert call.compaction_keys is not None
            columns = iter(zip(call.compaction_keys, call.payloads, strict=True))
            for target, count in zip(call.targets, call.event_counts, strict=True):
                for _ in range(count):
                    run_key, payload = next(columns)
                    self.frames.setdefault(target.topic, []).append((run_key, payload, self.now_us()))
        for move in moves:
            source = self.sources[move.topic]
            assert source.applied_seq == move.seq_before
            source.applied_seq = move.summary.applied_seq
            if move.told:
                source.published = Published(
                    move.summary.applied_seq, move.summary.state, move.summary.title, self.now_us()
                )


def _told_seq(source: _Source) -> int:
    return 0 if source.published is None else source.published.seq


def _run_id(topic: TopicName) -> str:
    return topic.split(":")[1]
