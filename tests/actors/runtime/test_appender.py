"""Group commit on the fake store and virtual time: what is put together, and what fails alone."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from khala_contracts import reason_codes
from khala_service import failpoints
from khala_service.errors import DatabaseError, SerializationTrouble, Unavailable
from runtime.actors.appender import Appender
from runtime.actors.relay import Relay
from runtime.actors.writer import SERIALIZATION_TRIES
from runtime.core.commands import Submission
from runtime.core.limits import RuntimeLimits
from runtime.core.outcomes import Answered, Appended, Refused, Skipped
from runtime.core.rate_limit import Rate, RateLimiter
from tests.actors.runtime.memory_journal_store import MemoryJournalStore
from tests.actors.runtime.rig import (
    LINEAGE,
    SIGNER,
    CountedMetrics,
    FixedClock,
    RecordingDriver,
    append,
    append_to_many,
    create,
    facts,
    make_id,
    thoughts,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from khala_contracts.topics import TopicName
    from runtime.core.batch_commit import BatchCommit
    from runtime.core.commands import Request, RunFacts
    from runtime.core.journal_calls import AppendCall, Locked
    from runtime.core.outcomes import Outcome
    from runtime.ports import TopicRecord


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


async def test_connection_lost_before_the_commit(autojump_clock: MockClock) -> None:
    """Nothing was written: the batch is run again on a new connection, once."""
    async with office() as at:
        run = await at.make_run()
        at.store.lost_before = 2
        outcome = await at.one(append(run, thoughts("once")))
        assert isinstance(outcome, Appended)
        assert await at.texts(run) == ["once"]
        assert at.metrics.retries == ["database_connection_lost"] * 2


@pytest.mark.parametrize("idempotency_key", ["mine", ""])
async def test_answer_lost_after_the_commit(autojump_clock: MockClock, idempotency_key: str) -> None:
    """The unknown outcome is found under the key, the caller's or ours: nothing is written twice."""
    async with office() as at:
        run = await at.make_run()
        at.store.lost_after = 1
        outcome = await at.one(append(run, thoughts("once"), idempotency_key))
        assert isinstance(outcome, Appended)
        assert outcome.parts[0].first_seq == 2
        assert await at.texts(run) == ["once"]
        assert at.store.attempts == 3


async def test_whole_batch_is_resolved(autojump_clock: MockClock) -> None:
    """After a lost answer every request of the batch gets the outcome of what was committed."""
    async with office(MemoryJournalStore(commit_s=1.0)) as at:
        run = await at.make_run()
        at.store.lost_after = 2
        outcomes = await at.together([append(run, thoughts(text)) for text in texts_of("t", 6)])
        assert [outcome.parts[0].first_seq for outcome in outcomes if isinstance(outcome, Appended)] == [
            2,
            3,
            4,
            5,
            6,
            7,
        ]
        assert await at.texts(run) == texts_of("t", 6)


async def test_database_away(autojump_clock: MockClock) -> None:
    """Nobody answers: callers are told after commit_deadline_s, and nothing is left behind."""
    async with office(limits=RuntimeLimits(commit_deadline_s=3)) as at:
        run = await at.make_run()
        at.store.unreachable_until = trio.current_time() + 100
        started = trio.current_time()
        (error,) = await at.together([append(run, thoughts("x"))])
        assert isinstance(error, Unavailable)
        assert not error.outcome_unknown
        assert 2 <= trio.current_time() - started <= 3
        assert at.appender.inbox_requests == 0
        at.store.unreachable_until = 0
        assert isinstance(await at.one(append(run, thoughts("y"))), Appended)
        assert await at.texts(run) == ["y"]


async def test_nobody_can_know(autojump_clock: MockClock) -> None:
    """The answer to COMMIT was lost and the database stays away: unavailable, outcome unknown."""
    async with office(limits=RuntimeLimits(commit_deadline_s=3)) as at:
        run = await at.make_run()
        events = thoughts("maybe")
        at.store.lost_after = 1

        def go_away() -> None:
            at.store.unreachable_until = trio.current_time() + 100

        at.store.after_commit = go_away
        (error,) = await at.together([append(run, events, "k")])
        assert isinstance(error, Unavailable)
        assert error.outcome_unknown
        at.store.unreachable_until = 0
        retried = await at.one(append(run, events, "k"))
        assert isinstance(retried, Appended)
        assert retried.parts[0].first_seq == 2
        assert await at.texts(run) == ["maybe"]


async def test_superseded(autojump_clock: MockClock) -> None:
    """After a take-over everything that waits and everything new is refused; nothing is written."""
    async with office() as at:
        run = await at.make_run()
        await at.store.take_authority(holder="other", lineage_candidate=make_id("lin", 9))
        outcomes = await at.together([append(run, thoughts("x")) for _ in range(3)])
        assert all(isinstance(o, Refused) and o.reason is reason_codes.SUPERSEDED for o in outcomes)
        assert at.appender.is_superseded
        attempts = at.store.attempts
        (first, second) = await at.appender.submit(
            Submission((append(run, thoughts("y")), append(run, thoughts("z"))))
        )
        assert isinstance(first, Refused)
        assert isinstance(second, Skipped)
        assert at.store.attempts == attempts
        assert await at.texts(run) == []


async def test_superseded_after_an_unknown_outcome(autojump_clock: MockClock) -> None:
    """If the answer was lost and then another took over, nobody here can say what happened."""
    async with office() as at:
        run = await at.make_run()
        at.store.lost_after = 1

        at.store.after_commit = at.store.supersede
        (error,) = await at.together([append(run, thoughts("x"))])
        assert isinstance(error, Unavailable)
        assert error.outcome_unknown


async def test_held_head_fails_alone(autojump_clock: MockClock) -> None:
    """A head that somebody else holds costs its own requests a time-out, and nobody else's."""
    async with office(MemoryJournalStore(commit_s=1.0)) as at:
        runs = [await at.make_run(number) for number in range(1, 7)]
        at.store.held_topics.add(runs[2].topic)
        requests = [append(run, thoughts("x")) for run in runs for _ in range(2)]
        outcomes = await at.together(requests)
        failed = {index for index, outcome in enumerate(outcomes) if isinstance(outcome, Unavailable)}
        assert failed == {4, 5}
        assert [await at.texts(run) for run in runs] == [["x", "x"]] * 2 + [[]] + [["x", "x"]] * 3
        # The batch, then the first of the two alone; the second would only wait for the lock again.
        assert at.metrics.retries.count("database_lock_timeout") == 2


async def test_database_goes_away_in_the_middle(autojump_clock: MockClock) -> None:
    """If the database leaves while a failed batch is run one by one, the rest does not wait in turn."""
    limits = RuntimeLimits(commit_deadline_s=3)
    async with office(MemoryJournalStore(commit_s=0.1), limits=limits) as at:
        run = await at.make_run()
        requests = [append(run, thoughts("first")), append(run, thoughts("x"), actor="\x00")]
        requests += [append(run, thoughts(text)) for text in texts_of("t", 20)]

        def go_away() -> None:
            if len(at.store.commits) == 3:
                at.store.unreachable_until = trio.current_time() + 1_000

        at.store.after_commit = go_away
        started = trio.current_time()
        outcomes = await at.together(requests)
        assert trio.current_time() - started < 2 * limits.commit_deadline_s
        assert isinstance(outcomes[0], Appended)
        assert isinstance(outcomes[1], Refused)
        assert isinstance(outcomes[2], Appended)
        errors = outcomes[3:]
        assert all(isinstance(error, Unavailable) and not error.outcome_unknown for error in errors)
        assert at.appender.inbox_requests == 0


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


async def test_contention_is_repeated(autojump_clock: MockClock) -> None:
    """A transaction that PostgreSQL rolled back because of another is run again, but not for ever."""
    trouble = Troublesome()
    async with office(trouble) as at:
        run = await at.make_run()
        trouble.troubles = SERIALIZATION_TRIES - 1
        assert isinstance(await at.one(append(run, thoughts("x"))), Appended)
        trouble.troubles = SERIALIZATION_TRIES
        (error,) = await at.together([append(run, thoughts("y"))])
        assert isinstance(error, Unavailable)
        assert not error.outcome_unknown
        assert await at.texts(run) == ["x"]


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


@attrs.define
class Troublesome(MemoryJournalStore):
    """A store whose transactions are rolled back because of others."""

    troubles: int = 0

    async def commit(self, batch: BatchCommit, generation: int) -> None:
        if self.troubles:
            self.troubles -= 1
            await trio.lowlevel.checkpoint()
            raise SerializationTrouble("40P01")
        await super().commit(batch, generation)


@attrs.define
class Buggy(MemoryJournalStore):
    """A store, or what it calls, that has a bug: met before the commit, or after it."""

    # A transaction that has an event with this text never gets as far as COMMIT.
    poison: str = ""
    # So many next transactions commit and then meet the bug.
    after: int = 0

    async def commit(self, batch: BatchCommit, generation: int) -> None:
        decide = batch.decide

        def decide_with_bug(locked: Locked) -> AppendCall | None:
            call = decide(locked)
            if self.poison and call and any(self.poison.encode() in payload for payload in call.payloads):
                message = "a bug in the decision"
                raise KeyError(message)
            return call

        batch.decide = decide_with_bug  # type: ignore[method-assign]
        await super().commit(batch, generation)
        if self.after:
            self.after -= 1
            failpoints.arm("runtime.committed=raise")


async def test_a_bug_in_one_request_is_its_own(autojump_clock: MockClock) -> None:
    """ARC-13: an unexpected exception before COMMIT refuses the culprit; its forty-nine neighbours commit."""
    async with office(Buggy(commit_s=0.1, poison="poison")) as at:
        run = await at.make_run()
        texts = [f"fine-{index}" for index in range(49)]
        texts.insert(17, "poison")
        outcomes = await at.together([append(run, thoughts(text)) for text in texts])
        assert [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, Appended)] == [17]
        refused = outcomes[17]
        assert isinstance(refused, Refused)
        assert refused.reason is reason_codes.INTERNAL
        assert sorted(await at.texts(run)) == sorted(text for text in texts if text != "poison")
        assert at.metrics.restarts == []


async def test_a_writer_that_crashes_after_the_commit(autojump_clock: MockClock) -> None:
    """A crash of a writer answers its batch with "unknown", and only it; the writer works again at once."""
    async with office(Buggy(commit_s=0.1)) as at:
        run = await at.make_run()
        at.store.after = 1  # type: ignore[attr-defined]
        asked = append(run, thoughts("maybe"), "key")
        with pytest.raises(Unavailable) as caught:
            await at.one(asked)
        assert (caught.value.reason, caught.value.outcome_unknown) == ("writer_failed", True)
        assert not at.appender.is_running
        assert isinstance(await at.one(asked), Appended)
        assert at.appender.is_running
        assert await at.texts(run) == ["maybe"]
        assert at.metrics.restarts == ["writer"]
        assert at.appender.inbox_requests == at.appender.inbox_bytes == 0


async def test_a_batch_that_gets_no_answer(autojump_clock: MockClock) -> None:
    """DB-08: a database that accepts and never answers: unavailable at the deadline, and not unknown."""
    async with office(MemoryJournalStore(), limits=RuntimeLimits(commit_deadline_s=10)) as at:
        run = await at.make_run()
        at.store.commit_s = 1e9
        begun = trio.current_time()
        with pytest.raises(Unavailable) as caught:
            await at.one(append(run, thoughts("never")))
        assert trio.current_time() - begun == 10
        assert (caught.value.reason, caught.value.outcome_unknown) == ("commit_deadline", False)
        at.store.commit_s = 0
        await at.one(append(run, thoughts("again")))
        assert await at.texts(run) == ["again"]


async def test_a_process_that_wakes_after_the_deadline(mock_clock: MockClock) -> None:
    """A pause that ends too late, for the process had no turn: unavailable, not unknown; no crash."""
    async with office(limits=RuntimeLimits(commit_deadline_s=10)) as at:
        run = await at.make_run()
        at.store.unreachable_until = trio.current_time() + 1_000
        errors: list[Unavailable] = []

        async def submit() -> None:
            with pytest.raises(Unavailable) as caught:
                await at.one(append(run, thoughts("never")))
            errors.append(caught.value)

        async with trio.open_nursery() as callers:
            callers.start_soon(submit)
            # Between two attempts, before the deadline; the next turn comes long after it.
            await wait_all_tasks_blocked()
            mock_clock.jump(60)
        assert [(error.reason, error.outcome_unknown) for error in errors] == [("commit_deadline", False)]
        assert at.metrics.restarts == []


async def test_what_nobody_saw_committed_is_told(autojump_clock: MockClock) -> None:
    """INV-20: COMMIT happened, its answer was lost: once the key tells, the nodes are told the heads."""
    async with office() as at:
        run = await at.make_run()
        at.store.lost_after = 1
        await at.one(append(run, thoughts("a", "b")))
        await wait_all_tasks_blocked()
        record = at.driver.records()[-1]
        assert (record.topic, record.last_seq, record.entries) == (run.topic, 3, ())
        page = await at.store.read_topic(run.topic)
        assert page is not None
        assert record.chain_after == page.head_chain


@pytest.mark.parametrize(
    "error", [Unavailable("database_unreachable"), DatabaseError("42501"), SerializationTrouble("40001")]
)
async def test_heads_that_cannot_be_told(autojump_clock: MockClock, error: Exception) -> None:
    """A database that is away or refuses right afterwards delays nobody: the nodes find it themselves."""
    async with office(NoReads(read_error=error)) as at:
        run = await at.make_run()
        at.store.lost_after = 1
        await at.one(append(run, thoughts("a")))
        await at.one(append(run, thoughts("b")))
        await wait_all_tasks_blocked()
        assert [record.last_seq for record in at.driver.records()] == [1, 3]
        assert at.metrics.restarts == []


@attrs.define
class NoReads(MemoryJournalStore):
    """A store whose heads cannot be read."""

    read_error: Exception = attrs.field(kw_only=True)

    async def read_topics(self, topics: Iterable[TopicName]) -> Mapping[TopicName, TopicRecord]:
        await trio.lowlevel.checkpoint()
        raise self.read_error
