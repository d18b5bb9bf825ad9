"""One writer on the fake store and virtual time: what it does about a lost answer, a rollback and a bug."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from khala_contracts import reason_codes
from khala_service import failpoints
from khala_service.errors import DatabaseError, SerializationTrouble, Unavailable
from runtime.actors.writer import SERIALIZATION_TRIES
from runtime.core.commands import Submission
from runtime.core.limits import RuntimeLimits
from runtime.core.outcomes import Appended, Refused, Skipped
from tests.actors.runtime.memory_journal_store import MemoryJournalStore
from tests.actors.runtime.office import office, texts_of
from tests.actors.runtime.rig import (
    append,
    make_id,
    thoughts,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from khala_contracts.topics import TopicName
    from runtime.core.batch_commit import BatchCommit
    from runtime.core.journal_calls import AppendCall, Locked
    from runtime.ports import TopicRecord


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
