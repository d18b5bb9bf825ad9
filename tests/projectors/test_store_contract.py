"""One suite for the stores in memory, the simulation's among them, and the real one: what the projector relies on."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import attrs
import pytest

from khala_contracts import kinds
from khala_contracts.topics import Lineage, format_user_runs
from runtime.core import summary_pace
from runtime.core.batch_commit import BatchCommit
from runtime.core.commands import CreateRun, Request
from runtime.core.projection_step import ProjectionStep, SourceRead
from runtime.core.projections import ProjectionFailed
from runtime.core.rate_limit import RateLimiter
from tests.actors.runtime.memory_journal_store import MemoryJournalStore
from tests.actors.runtime.rig import (
    LINEAGE,
    USER,
    CountingIds,
    alone,
    append,
    facts,
    key,
    topic_of,
)
from tests.postgres_cluster import Database  # noqa: TC001  # pytest looks at annotations
from tests.projectors.memory_projection_store import MemoryProjectionStore
from tests.projectors.rig import STEP, THOUGHT, events, open_bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from khala_contracts.topics import TopicName
    from runtime.core.projection_step import SourcePage
    from runtime.core.projections import RunSummary
    from runtime.ports import ProjectionStore
    from tests.projectors.rig import Bench

pytestmark = pytest.mark.slow

STARTED: tuple[str, dict[str, object]] = ("run.started", {"name": "a"})


class World(Protocol):
    """A store, and a way to commit events to its sources."""

    @property
    def store(self) -> ProjectionStore: ...
    @property
    def generation(self) -> int: ...

    async def write(self, number: int, *given: tuple[str, dict[str, object]]) -> TopicName:
        """Commit events of a run after its run.started; return its topic."""

    async def told(self) -> list[str | None]:
        """Return the keys of the user's list."""


@attrs.define
class MemoryWorld:
    store: MemoryProjectionStore = attrs.field(factory=lambda: MemoryProjectionStore(page_events_max=5))
    generation: int = 1

    async def write(self, number: int, *given: tuple[str, dict[str, object]]) -> TopicName:
        topic = topic_of(number)
        added = given if topic in self.store.sources else (STARTED, *given)
        encoded = [(kind, kinds.encode_payload("run_events", kind, data)) for kind, data in added]
        self.store.write(topic, *encoded, owner=USER)
        return topic

    async def told(self) -> list[str | None]:
        return [key for key, _, _ in self.store.frames.get(format_user_runs(USER), [])]


@attrs.define
class PostgresWorld:
    bench: Bench
    runs: dict[int, object] = attrs.field(factory=dict)

    @property
    def store(self) -> ProjectionStore:
        return self.bench.projections

    @property
    def generation(self) -> int:
        return self.bench.authority.generation

    async def write(self, number: int, *given: tuple[str, dict[str, object]]) -> TopicName:
        if number not in self.runs:
            assert number == len(self.runs) + 1, "the bench numbers its runs"
            self.runs[number] = await self.bench.make_run()
        if given:
            await self.bench.write(self.runs[number], *given)  # type: ignore[arg-type]
        return topic_of(number)

    async def told(self) -> list[str | None]:
        return [frame["key"] for frame in await self.bench.frames()]


@attrs.define
class SimulatedWorld:
    store: MemoryJournalStore
    generation: int
    ids: CountingIds = attrs.field(factory=lambda: CountingIds(500_000))

    async def write(self, number: int, *given: tuple[str, dict[str, object]]) -> TopicName:
        run = facts(number, name=f"run {number}")
        requests: list[Request] = []
        if run.topic not in self.store.tables.topics:
            requests.append(Request(USER, "request", key(), CreateRun(run, events(STARTED, ids=self.ids))))
        if given:
            requests.append(append(run, events(*given, ids=self.ids)))
        async with self.store.open_writer(self.generation) as writer:
            for request in requests:
                batch = BatchCommit(
                    alone(request), limiter=RateLimiter({}), now=0.0, lineage=Lineage(LINEAGE)
                )
                await writer.commit_batch(batch)
        return run.topic

    async def told(self) -> list[str | None]:
        row = self.store.tables.topics.get(format_user_runs(USER))
        return [] if row is None else row.compaction_keys


@asynccontextmanager
async def opened(kind: str, database: Database | None) -> AsyncIterator[World]:
    """Open one of them."""
    if kind == "simulated":
        store = MemoryJournalStore()
        store.page_events_max = 5
        authority = await store.take_authority(holder="test", lineage_candidate=LINEAGE)
        yield SimulatedWorld(store, authority.generation)
    elif database is None:
        yield MemoryWorld()
    else:
        async with open_bench(database, page_events_max=5) as bench:
            yield PostgresWorld(bench)


@pytest.fixture(params=["memory", "simulated", "postgres"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """All stores, one after the other."""
    database = request.getfixturevalue("runtime_database") if request.param == "postgres" else None
    async with opened(request.param, database) as made:
        yield made


async def run_step(world: World, *topics: TopicName, ids: CountingIds | None = None) -> ProjectionStep:
    """Run one step."""
    source = ids or CountingIds(700_000)
    step = ProjectionStep(topics, new_event_id=lambda: source.new("evt"))
    await world.store.run_step(step, generation=world.generation)
    return step


async def test_a_step_applies_a_page_and_tells_it(world: World) -> None:
    """Bounded by the page; the frame has the run's key; the row is the fold."""
    topic = await world.write(1, *[STEP] * 7)
    step = await run_step(world, topic)
    assert [(result.applied_count, result.summary.step_count) for result in step.results()] == [(5, 4)]
    assert await world.told() == [step.results()[0].summary.run_id]
    (stored,) = await world.store.list_summaries(after_topic="", limit=5)
    assert (stored.head_seq, stored.checkpoint_seq, stored.summary) == (8, 5, step.results()[0].summary)


async def test_what_is_behind_is_found_until_it_is_applied_and_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never applied, applied in part, applied and held back: found. Done: not found."""
    one, two = await world.write(1), await world.write(2, STEP)
    found = await world.store.find_behind(after_topic="", limit=10)
    assert [(source.topic, source.head_seq, source.applied_seq) for source in found] == [
        (one, 1, 0),
        (two, 2, 0),
    ]
    assert [source.topic for source in await world.store.find_behind(after_topic=one, limit=10)] == [two]
    assert [source.topic for source in await world.store.find_behind(after_topic="", limit=1)] == [one]
    ids = CountingIds(700_000)
    await run_step(world, one, two, ids=ids)
    assert await world.store.find_behind(after_topic="", limit=10) == []
    # A test in memory takes no second; a slow database may take several.
    monkeypatch.setattr(summary_pace, "PUBLISH_EVERY_US", 3_600_000_000)
    await world.write(1, THOUGHT)
    await run_step(world, one, ids=ids)
    held = await world.store.find_behind(after_topic="", limit=10)
    assert [(source.topic, source.head_seq, source.applied_seq) for source in held] == [(one, 2, 2)]


async def test_reads_are_pages_without_a_hole(world: World) -> None:
    """After a position, up to another; payloads only where the fold reads them; nothing beyond the head."""
    topic = await world.write(1, *[THOUGHT] * 7)
    (page,) = await world.store.read_sources([SourceRead(topic, 0)])
    assert [event.seq for event in page.events] == [1, 2, 3, 4, 5]
    assert [bool(event.payload) for event in page.events] == [True, False, False, False, False]
    (page,) = await world.store.read_sources([SourceRead(topic, 5, 7)])
    assert [event.seq for event in page.events] == [6, 7]
    assert await world.store.read_sources([SourceRead(topic, 8)]) == []


async def test_a_step_that_fails_writes_nothing(world: World) -> None:
    """A base that is behind the checkpoint is refused, and everything is as before."""
    topic = await world.write(1, THOUGHT)
    await run_step(world, topic)
    before = await world.store.list_summaries(after_topic="", limit=5)
    summary = before[0].summary
    assert summary is not None
    base = attrs.evolve(summary, applied_seq=0, event_count=0)
    step = FailingStep([topic], new_event_id=lambda: "evt_unused", bases={topic: base})
    with pytest.raises(ProjectionFailed):
        await world.store.run_step(step, generation=world.generation)
    assert await world.store.list_summaries(after_topic="", limit=5) == before
    assert len(await world.told()) == 1


class FailingStep(ProjectionStep):
    """Stands for any fold that cannot be done."""

    def fold(self, pages: Sequence[SourcePage], *, now_us: int) -> list[RunSummary]:
        super().fold(pages, now_us=now_us)
        raise ProjectionFailed("a test")


async def test_a_source_that_does_not_exist_is_left_out(world: World) -> None:
    """No checkpoint, no row, no error."""
    step = await run_step(world, topic_of(9))
    assert step.results() == []
    assert await world.store.list_summaries(after_topic="", limit=5) == []
