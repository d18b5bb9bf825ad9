"""Runs, their events and a projector on a real database, one transaction at a time."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs

from khala_contracts import kinds
from khala_contracts.topics import Lineage, format_org_runs, format_user_runs
from khala_service.adapters.postgres import open_asyncio_loop, open_pool
from runtime.adapters.postgres.journal_store import PostgresJournalStore
from runtime.adapters.postgres.projection_rows import summary_row
from runtime.adapters.postgres.projection_store import PostgresProjectionStore
from runtime.adapters.postgres.rows import to_us
from runtime.core import summary_pace
from runtime.core.batch_commit import BatchCommit
from runtime.core.commands import CreateRun, Request
from runtime.core.events import EventColumns
from runtime.core.projection_step import ProjectionStep, empty_summary
from runtime.core.projections import SourceEvent, fold_events, hash_summaries
from runtime.core.rate_limit import RateLimiter
from tests.actors.runtime.rig import LINEAGE, ORG, USER, CountingIds, alone, append, facts, key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    import pytest

    from khala_contracts.topics import TopicName
    from khala_service.adapters.postgres import PostgresPool
    from runtime.core.batch_commit import CommittedTopic
    from runtime.core.commands import RunFacts
    from runtime.core.projections import RunSummary
    from runtime.ports import Authority
    from tests.postgres_cluster import Database

USER_RUNS = format_user_runs(USER)
ORG_RUNS = format_org_runs(ORG)


def events(*given: tuple[str, dict[str, object]], ids: CountingIds) -> EventColumns:
    """Return events of a run from kind and data."""
    return EventColumns(
        tuple(ids.new("evt") for _ in given),
        tuple(kind for kind, _ in given),
        tuple(kinds.encode_payload("run_events", kind, data) for kind, data in given),
        (1,) * len(given),
    )


def title_event(text: str) -> tuple[str, dict[str, object]]:
    """Return the event by which an agent names its run."""
    return "custom", {"name": "run.title", "data": text}


STEP: tuple[str, dict[str, object]] = ("step.started", {"step": 1})
THOUGHT: tuple[str, dict[str, object]] = ("thought", {"text": "hm"})


@attrs.define
class Recorded:
    """A CommitListener that keeps what it is told."""

    committed: list[CommittedTopic] = attrs.field(factory=list)

    def offer(self, committed: Sequence[CommittedTopic], *, lineage: Lineage) -> None:
        self.committed += committed


@attrs.define
class HeadsTold:
    """Keeps the topics whose heads a projector had told."""

    topics: set[TopicName] = attrs.field(factory=set)

    async def tell(self, topics: Collection[TopicName]) -> None:
        self.topics |= set(topics)


@attrs.define
class Reported:
    """ProjectionMetrics that add up."""

    events: int = 0
    summaries: int = 0
    failures: list[str] = attrs.field(factory=list)

    def applied(self, *, events: int, summaries: int, duration_s: float) -> None:
        self.events += events
        self.summaries += summaries

    def failed(self, reason: str) -> None:
        self.failures.append(reason)


@attrs.define
class Bench:
    """A database with an authority, seen as the service sees it and as its superuser does."""

    database: Database
    journal: PostgresJournalStore
    projections: PostgresProjectionStore
    pool: PostgresPool
    admin: PostgresPool
    authority: Authority
    ids: CountingIds = attrs.field(factory=lambda: CountingIds(500_000))
    # Numbers for runs; two benches on one database need different ones.
    numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    async def commit(self, *requests: Request) -> list[CommittedTopic]:
        """Commit requests as the appender does; all must be accepted."""
        batch = BatchCommit(
            alone(*requests), limiter=RateLimiter({}), now=0.0, lineage=self.authority.lineage
        )
        async with self.journal.open_writer(self.authority.generation) as writer:
            await writer.commit_batch(batch)
        assert batch.committed, batch.outcomes()
        return batch.committed

    async def make_run(
        self, name: str = "", *, attributes: Mapping[str, str] | None = None, org_id: str | None = None
    ) -> RunFacts:
        """Return a new, running run; its topic holds run.started."""
        number = next(self.numbers)
        run = facts(number, name=name or f"run {number}", org_id=org_id)
        data: dict[str, object] = {"name": run.name, "attributes": dict(attributes or {})}
        started = events(("run.started", data), ids=self.ids)
        await self.commit(Request(USER, "request", key(), CreateRun(run, started)))
        return run

    async def write(self, run: RunFacts, *given: tuple[str, dict[str, object]]) -> list[CommittedTopic]:
        """Append events to a run."""
        return await self.commit(append(run, events(*given, ids=self.ids)))

    def new_step(self, *runs: RunFacts) -> ProjectionStep:
        """Return a step for these runs."""
        return ProjectionStep([run.topic for run in runs], new_event_id=lambda: self.ids.new("evt"))

    async def step(self, *runs: RunFacts) -> ProjectionStep:
        """Run one step and return it."""
        step = self.new_step(*runs)
        await self.projections.run_step(step, generation=self.authority.generation)
        return step

    async def rows(self) -> list[RunSummary]:
        """Return the read model as it is stored."""
        return [
            summary_row(row)
            for row in await self.admin.fetch("SELECT * FROM runtime.run_summaries ORDER BY run_id")
        ]

    async def stored_hash(self) -> bytes:
        """Return the hash of the read model as it is stored."""
        return hash_summaries(await self.rows())

    async def clean_fold(self) -> list[RunSummary]:
        """Fold every run from its first event, past everything that projectors use to read."""
        found: list[RunSummary] = []
        heads = await self.admin.fetch(
            "SELECT topic, owner_user_id, org_id FROM runtime.topic_heads WHERE topic_class = 'run_events'"
        )
        for head in heads:
            rows = await self.admin.fetch(
                "SELECT seq, kind, payload, committed_at FROM runtime.events WHERE topic = $1 ORDER BY seq",
                head["topic"],
            )
            history = [
                SourceEvent(row["seq"], row["kind"], row["payload"], to_us(row["committed_at"]))
                for row in rows
            ]
            start = empty_summary(head["topic"], head["owner_user_id"], head["org_id"])
            found.append(fold_events(start, history))
        return found

    async def clean_hash(self) -> bytes:
        """Return the hash of a clean rebuild."""
        return hash_summaries(await self.clean_fold())

    async def checkpoints(self) -> dict[str, int]:
        """Return the checkpoint of each source topic."""
        rows = await self.admin.fetch("SELECT topic, applied_seq FROM runtime.projector_checkpoints")
        return {row["topic"]: row["applied_seq"] for row in rows}

    def hold_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hold positions back for an hour instead of a second, however slow this machine."""
        monkeypatch.setattr(summary_pace, "PUBLISH_EVERY_US", 3_600_000_000)

    async def let_go(self) -> None:
        """Make it long ago that each run was told: what is held back is due."""
        await self.admin.execute(
            "UPDATE runtime.projector_checkpoints SET published_at = clock_timestamp() - interval '1 day'"
            " WHERE published_at IS NOT NULL"
        )

    async def frames(self, topic: TopicName = USER_RUNS) -> list[dict[str, Any]]:
        """Return the summary frames of a list topic with their keys, ascending."""
        rows = await self.admin.fetch(
            "SELECT e.seq, e.kind, e.payload, e.committed_at, j.compaction_key FROM runtime.events AS e"
            " JOIN runtime.journal AS j USING (topic, seq) WHERE e.topic = $1 ORDER BY e.seq",
            topic,
        )
        return [
            {
                **kinds.decode_payload(row["kind"], row["payload"]),
                "key": row["compaction_key"],
                "seq": row["seq"],
                "at_us": to_us(row["committed_at"]),
            }
            for row in rows
        ]


@asynccontextmanager
async def open_bench(database: Database, *, page_events_max: int = 500) -> AsyncIterator[Bench]:
    """Take the authority over a database."""
    async with (
        open_asyncio_loop(),
        open_pool(database.dsn("khala_runtime"), application_name="khala-test", max_size=6) as pool,
        open_pool(database.superuser_dsn, application_name="khala-test-admin", max_size=3) as admin,
    ):
        journal = PostgresJournalStore(pool)
        projections = PostgresProjectionStore(pool, page_events_max=page_events_max)
        authority = await journal.take_authority(holder="test", lineage_candidate=LINEAGE)
        yield Bench(database, journal, projections, pool, admin, authority)
