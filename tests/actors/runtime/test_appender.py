"""Group commit on the fake store and virtual time: what is put together, what is bounded, who is answered."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from khala_contracts import reason_codes
from khala_service.errors import Unavailable
from runtime.core.commands import Submission
from runtime.core.limits import RuntimeLimits
from runtime.core.outcomes import Appended, Refused
from runtime.core.rate_limit import Rate
from tests.actors.runtime.memory_journal_store import MemoryJournalStore
from tests.actors.runtime.office import office, texts_of
from tests.actors.runtime.rig import (
    append,
    append_to_many,
    thoughts,
)

if TYPE_CHECKING:
    from runtime.actors.appender import Appender
    from runtime.core.commands import RunFacts


async def test_what_arrives_meanwhile_is_one_transaction(autojump_clock: MockClock) -> None:
    """The previous commit is the timer: nine requests that meet while it runs share the next one."""
    async with office(MemoryJournalStore(commit_s=1.0)) as at:
        run = await at.make_run()
        started = trio.current_time()
        outcomes = await at.together([append(run, thoughts(text)) for text in texts_of("t", 10)])
        assert all(isinstance(outcome, Appended) for outcome in outcomes)
        assert at.store.commits == [1, 1, 9]
        assert trio.current_time() - started == 2.0
        assert await at.texts(run) == texts_of("t", 10)
        assert at.metrics.batches == [(1, 1, 0), (1, 1, 0), (9, 9, 0)]


async def test_idle_commits_at_once(autojump_clock: MockClock) -> None:
    """No timer delays a lone request."""
    async with office() as at:
        started = trio.current_time()
        await at.make_run()
        assert trio.current_time() == started


async def test_batches_are_bounded(autojump_clock: MockClock) -> None:
    """A transaction takes at most batch_events_max events of what waits."""
    async with office(MemoryJournalStore(commit_s=1.0), limits=RuntimeLimits(batch_events_max=4)) as at:
        run = await at.make_run()
        await at.together([append(run, thoughts("x")) for _ in range(10)])
        assert at.store.commits == [1, 1, 4, 4, 1]


async def test_two_writers_share_the_topics(autojump_clock: MockClock) -> None:
    """Topics are spread over two writers; each keeps the arrival order of its topics."""
    async with office() as at:
        runs = [await at.make_run(number) for number in range(1, 9)]
        requests = [append(run, thoughts(text)) for text in texts_of("t", 5) for run in runs]
        await at.together(requests)
        for run in runs:
            assert await at.texts(run) == texts_of("t", 5)
        assert at.store.writers_open == 2


@pytest.mark.parametrize("over", [0, 1])
async def test_inbox_of_requests(autojump_clock: MockClock, over: int) -> None:
    """inbox_requests_max requests may wait; one more is refused at once with a time to come back."""
    limits = RuntimeLimits(inbox_requests_max=5)
    async with office(MemoryJournalStore(commit_s=1.0), limits=limits) as at:
        run = await at.make_run()
        outcomes = await at.together([append(run, thoughts("x")) for _ in range(5 + over)])
        refused = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
        assert [error.reason for error in refused] == ["inbox_full"] * over
        assert all(error.retry_after_s > 0 and not error.outcome_unknown for error in refused)
        assert (at.appender.inbox_requests, at.appender.inbox_bytes) == (0, 0)


@pytest.mark.parametrize("over", [0, 1])
async def test_inbox_of_bytes(autojump_clock: MockClock, over: int) -> None:
    """inbox_bytes_max payload bytes may wait; one byte more is refused."""
    size = thoughts("x" * 98).size_bytes
    limits = RuntimeLimits(inbox_bytes_max=3 * size - over)
    async with office(MemoryJournalStore(commit_s=1.0), limits=limits) as at:
        run = await at.make_run()
        outcomes = await at.together([append(run, thoughts("x" * 98)) for _ in range(3)])
        assert sum(isinstance(outcome, Unavailable) for outcome in outcomes) == over
        assert (at.appender.inbox_requests, at.appender.inbox_bytes) == (0, 0)


async def test_caller_that_leaves(autojump_clock: MockClock) -> None:
    """A caller that leaves only stops waiting, in the inbox as in the commit; its place is given back."""
    async with office(MemoryJournalStore(commit_s=1.0)) as at:
        run = await at.make_run()
        with trio.move_on_after(0.5) as scope:
            async with trio.open_nursery() as callers:
                for text in ("committing", "waiting"):
                    callers.start_soon(at.one, append(run, thoughts(text)))
                    await wait_all_tasks_blocked()
        assert scope.cancelled_caught
        assert at.appender.inbox_requests == 2
        await trio.sleep(2)
        assert at.appender.inbox_requests == 0
        assert await at.texts(run) == ["committing", "waiting"]


async def test_one_poison_among_fifty(autojump_clock: MockClock) -> None:
    """A batch that fails because of its content is run again one by one: only the culprit fails."""
    async with office(MemoryJournalStore(commit_s=0.01)) as at:
        run = await at.make_run()
        requests = [append(run, thoughts(text)) for text in texts_of("t", 50)]
        requests[25] = append(run, thoughts("poison"), actor="a\x00")
        outcomes = await at.together(requests)
        refused = outcomes.pop(25)
        assert isinstance(refused, Refused)
        assert refused.reason is reason_codes.INVALID_ARGUMENT
        assert all(isinstance(outcome, Appended) for outcome in outcomes)
        assert await at.texts(run) == texts_of("t", 25) + texts_of("t", 50)[26:]
        assert at.metrics.refusals == ["invalid_argument"]


async def test_not_serving(autojump_clock: MockClock) -> None:
    """Before it has an authority, and after it has stopped, nothing is accepted."""
    async with office() as at:
        run = await at.make_run()
        at.stop.cancel()
        await wait_all_tasks_blocked()
        with pytest.raises(Unavailable) as refused:
            await at.one(append(run, thoughts("x")))
        assert refused.value.reason == "not_serving"
        assert at.appender.authority is None


async def test_stop_answers_everybody(autojump_clock: MockClock) -> None:
    """When the appender stops, whoever still waits is told, and may not be sure."""
    errors: list[Unavailable] = []

    async def submit(appender: Appender, run: RunFacts) -> None:
        try:
            await appender.submit(Submission((append(run, thoughts("x")),)))
        except Unavailable as error:
            errors.append(error)

    async with office(MemoryJournalStore(commit_s=1.0)) as at:
        run = await at.make_run()
        async with trio.open_nursery() as callers:
            for _ in range(3):
                callers.start_soon(submit, at.appender, run)
                await wait_all_tasks_blocked()
            at.stop.cancel()
        assert at.appender.inbox_requests == 0
        assert not at.appender.is_running
        assert at.store.writers_open == 0
    assert [error.reason for error in errors] == ["draining"] * 3
    assert sorted(error.outcome_unknown for error in errors) == [False, False, True]


async def test_tokens_are_taken_for_what_was_committed(autojump_clock: MockClock) -> None:
    """The rate is counted in committed events: refused and failed ones cost nothing."""
    async with office(rate=Rate(1.0, 10.0)) as at:
        run = await at.make_run()
        assert isinstance(await at.one(append(run, thoughts(*["x"] * 6))), Appended)
        refused = await at.one(append(run, thoughts(*["x"] * 5), "k"))
        assert isinstance(refused, Refused)
        assert refused.reason is reason_codes.RATE_LIMITED
        assert 1_000 <= refused.retry_after_ms <= 1_001
        assert isinstance(await at.one(append(run, thoughts(*["x"] * 4))), Appended)
        await trio.sleep(5)
        assert isinstance(await at.one(append(run, thoughts(*["x"] * 5), "k")), Appended)
        assert isinstance(await at.one(append(run, thoughts("x"))), Refused)


async def test_retry_passes_an_empty_bucket(autojump_clock: MockClock) -> None:
    """A known key is answered before the rate is looked at."""
    async with office(rate=Rate(1.0, 2.0)) as at:
        run = await at.make_run()
        events = thoughts("a", "b")
        first = await at.one(append(run, events, "k"))
        assert await at.one(append(run, events, "k")) == first
        assert isinstance(await at.one(append(run, thoughts("c"))), Refused)


async def test_news_follow_the_commits(autojump_clock: MockClock) -> None:
    """RT-06: what is published is what was committed, in order, also if nobody saw the commit return."""
    async with office(MemoryJournalStore(commit_s=0.1)) as at:
        runs = [await at.make_run(number) for number in (1, 2)]
        at.store.lost_after = 1
        await at.together([append(run, thoughts(text)) for text in texts_of("t", 4) for run in runs])
        await at.one(append_to_many(runs, "both"))
        await wait_all_tasks_blocked()
        for run in runs:
            records = [record for record in at.driver.records() if record.topic == run.topic]
            known = {seq for record in records for seq in range(record.first_seq, record.last_seq + 1)}
            assert known == {1, 2, 3, 4, 5, 6}
            copies = [record for record in records if record.entries]
            assert all(later.first_seq > earlier.last_seq for earlier, later in itertools.pairwise(copies))
            entries = at.store.entries(run.topic)
            for record in copies:
                assert list(record.entries) == entries[record.first_seq - 1 : record.last_seq]


async def test_what_is_rolled_back_is_told_to_nobody(autojump_clock: MockClock) -> None:
    """RT-06: rows that were written in a transaction without a commit are no news."""
    async with office() as at:
        run = await at.make_run()
        # As often as it is tried until the deadline.
        at.store.lost_before = 1_000
        with pytest.raises(Unavailable):
            await at.one(append(run, thoughts("never")))
        await wait_all_tasks_blocked()
        assert at.store.attempts > 2
        assert [record.last_seq for record in at.driver.records()] == [1]
