"""The small loops: who has the generation, and what is no longer needed."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from khala_contracts.topics import Lineage
from khala_service.errors import Unavailable
from runtime.actors.appender import Appender
from runtime.actors.generation_watch import GENERATION_CHECK_S, GenerationWatch
from runtime.actors.key_cleaner import CLEAN_EVERY_S, CLEAN_PAUSE_S, CLEAN_ROWS, KeyCleaner
from runtime.actors.relay import Relay
from runtime.actors.run_directory import RunDirectory
from runtime.core.batch_commit import BatchCommit
from runtime.core.limits import RuntimeLimits
from runtime.core.rate_limit import RateLimiter
from tests.actors.runtime.memory_journal_store import MemoryJournalStore
from tests.actors.runtime.rig import (
    LINEAGE,
    SIGNER,
    CountedMetrics,
    FixedClock,
    RecordingDriver,
    alone,
    create,
    facts,
)

if TYPE_CHECKING:
    from runtime.ports import RunRecord


def idle_appender(store: MemoryJournalStore) -> Appender:
    """Return an appender that serves nothing."""
    metrics = CountedMetrics()
    relay = Relay(RecordingDriver(), SIGNER, clock=FixedClock(), metrics=metrics, bytes_max=1)
    return Appender(
        store,
        relay,
        limits=RuntimeLimits(),
        limiter=RateLimiter({}),
        metrics=metrics,
    )


async def test_idle_runtime_notices_a_take_over(autojump_clock: MockClock) -> None:
    """Within GENERATION_CHECK_S an idle process knows that another has taken over, and says so for good."""
    store = MemoryJournalStore()
    authority = await store.take_authority(holder="us", lineage_candidate=LINEAGE)
    appender = idle_appender(store)
    async with trio.open_nursery() as nursery:
        await nursery.start(GenerationWatch(store, appender, authority).serve)
        await trio.sleep(10 * GENERATION_CHECK_S)
        assert not appender.is_superseded
        store.unreachable_until = trio.current_time() + 5
        await trio.sleep(5)
        assert not appender.is_superseded
        store.supersede()
        await trio.sleep(GENERATION_CHECK_S)
        await wait_all_tasks_blocked()
        assert appender.is_superseded


async def test_directory_is_bounded_and_remembers() -> None:
    """A run is read once while it is remembered; the one not used for longest is forgotten first."""
    store = CountingStore()
    authority = await store.take_authority(holder="us", lineage_candidate=LINEAGE)
    runs = [facts(number) for number in (1, 2, 3)]
    async with store.open_writer(authority.generation) as writer:
        batch = BatchCommit(
            alone(*[create(run) for run in runs]), limiter=RateLimiter({}), now=0, lineage=Lineage(LINEAGE)
        )
        await writer.commit_batch(batch)
    directory = RunDirectory(store, capacity=2)
    for number in (0, 0, 1, 0, 2, 0, 1):
        known = await directory.find(runs[number].run_id)
        assert known is not None
        assert known.facts == runs[number]
    assert store.reads == [runs[0].run_id, runs[1].run_id, runs[2].run_id, runs[1].run_id]
    assert directory.run_count == 2


async def test_directory_does_not_remember_absence() -> None:
    """A run that is not there may exist a moment later."""
    store = CountingStore()
    directory = RunDirectory(store)
    assert await directory.find(facts().run_id) is None
    assert await directory.find(facts().run_id) is None
    assert len(store.reads) == 2
    assert directory.run_count == 0


async def test_cleaner_takes_turns(autojump_clock: MockClock) -> None:
    """Full turns follow each other with a pause; an empty one, or a failure, waits for the next round."""
    store = ExpiringStore(answers=[CLEAN_ROWS, CLEAN_ROWS, 7, -1, CLEAN_ROWS, 0])
    with trio.move_on_after(4 * CLEAN_EVERY_S):
        await KeyCleaner(store).serve()
    waits = [later - earlier for earlier, later in itertools.pairwise(store.asked[:6])]
    pause, rest = CLEAN_PAUSE_S, CLEAN_EVERY_S
    assert waits == pytest.approx([pause, pause, rest, rest, pause])


@attrs.define
class CountingStore(MemoryJournalStore):
    """Notes which runs are read."""

    reads: list[str] = attrs.field(factory=list)

    async def read_run(self, run_id: str) -> RunRecord | None:
        self.reads.append(run_id)
        return await super().read_run(run_id)


@attrs.define
class ExpiringStore(MemoryJournalStore):
    """Answers with a script; -1: unavailable."""

    answers: list[int] = attrs.field(factory=list)
    asked: list[float] = attrs.field(factory=list)

    async def delete_expired_keys(self, limit: int) -> int:
        assert limit == CLEAN_ROWS
        self.asked.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        answer = self.answers.pop(0) if self.answers else 0
        if answer < 0:
            raise Unavailable("database_unreachable")
        return answer
