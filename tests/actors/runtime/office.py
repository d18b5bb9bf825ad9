"""A running appender on the fake store: what tests of it, and of its writers, submit to."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from khala_service.errors import Unavailable
from runtime.actors.appender import Appender
from runtime.actors.relay import Relay
from runtime.core.commands import Submission
from runtime.core.limits import RuntimeLimits
from runtime.core.outcomes import Answered
from runtime.core.rate_limit import Rate, RateLimiter
from tests.actors.runtime.memory_journal_store import MemoryJournalStore
from tests.actors.runtime.rig import (
    LINEAGE,
    SIGNER,
    CountedMetrics,
    FixedClock,
    RecordingDriver,
    create,
    facts,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime.core.commands import Request, RunFacts
    from runtime.core.outcomes import Outcome


@attrs.define
class Office:
    """A running appender and everything around it."""

    store: MemoryJournalStore
    appender: Appender
    driver: RecordingDriver
    metrics: CountedMetrics
    # Stops the appender alone.
    stop: trio.CancelScope

    async def one(self, request: Request) -> Outcome:
        (outcome,) = await self.appender.submit(Submission((request,)))
        return outcome

    async def make_run(self, number: int = 1) -> RunFacts:
        run = facts(number)
        assert isinstance(await self.one(create(run)), Answered)
        return run

    async def together(self, requests: list[Request]) -> list[Outcome | Exception]:
        """Submit all at once, in order; return the outcome or error of each."""
        results: list[Outcome | Exception] = [Unavailable("nothing")] * len(requests)

        async def submit(index: int, request: Request) -> None:
            try:
                results[index] = await self.one(request)
            except Unavailable as error:
                results[index] = error

        async with trio.open_nursery() as nursery:
            for index, request in enumerate(requests):
                nursery.start_soon(submit, index, request)
                # Tasks start in any order; these callers come one after the other.
                await wait_all_tasks_blocked()
        return results

    async def texts(self, run: RunFacts) -> list[str]:
        page = await self.store.read_events(run.topic, after_seq=0, limit=10_000, max_bytes=1 << 30)
        assert page is not None
        return [event.payload.decode()[2:] for event in page.events[1:]]


@asynccontextmanager
async def office(
    store: MemoryJournalStore | None = None,
    *,
    limits: RuntimeLimits | None = None,
    rate: Rate | None = None,
) -> AsyncIterator[Office]:
    """Serve an appender on a fake store."""
    memory = store or MemoryJournalStore()
    chosen = limits or RuntimeLimits()
    driver, metrics = RecordingDriver(), CountedMetrics()
    limiter = RateLimiter({"run_events": rate} if rate else {})
    authority = await memory.take_authority(holder="test", lineage_candidate=LINEAGE)
    relay = Relay(
        driver, SIGNER, clock=FixedClock(), metrics=metrics,
        bytes_max=chosen.relay_bytes_max,
    )  # fmt: skip
    appender = Appender(memory, relay, limits=chosen, limiter=limiter, metrics=metrics)
    async with trio.open_nursery() as nursery:
        await nursery.start(relay.serve)
        stop = trio.CancelScope()

        async def serve(*, task_status: trio.TaskStatus[None]) -> None:
            with stop:
                await appender.serve(authority, task_status=task_status)

        await nursery.start(serve)
        yield Office(memory, appender, driver, metrics, stop)
        nursery.cancel_scope.cancel()


def texts_of(prefix: str, count: int) -> list[str]:
    """Return the texts prefix-0, prefix-1, ..."""
    return [f"{prefix}-{index}" for index in range(count)]
