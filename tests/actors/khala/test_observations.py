"""What subscribes see of the journal, read for many by one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from khala.actors.observations import PAUSE_S, TOPICS_MAX, WORKERS, GroupedObservations
from khala.ports import JournalUnavailableError, ObservedTopic
from tests.actors.khala.fake_journal import FakeJournal, log_of
from tests.topic_log import run_topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khala_contracts.topics import TopicName

TOPICS = [run_topic(number) for number in range(1, 6)]


@attrs.define(eq=False)
class CountingJournal:
    """A FakeJournal that remembers how many topics each statement asked for."""

    journal: FakeJournal
    asked: list[int] = attrs.field(factory=list)
    began_at: list[float] = attrs.field(factory=list)
    crash: Exception | None = None

    async def observe(self, asked: Sequence[tuple[TopicName, int]]) -> list[ObservedTopic]:
        """Count, then ask."""
        self.asked.append(len(asked))
        self.began_at.append(trio.current_time())
        if self.crash is not None:
            crash, self.crash = self.crash, None
            raise crash
        return await self.journal.observe(asked)


def journal_of(heads: int = 5) -> CountingJournal:
    """Return a journal in which topic n has n frames."""
    return CountingJournal(FakeJournal.of([log_of(TOPICS[n - 1], n) for n in range(1, heads + 1)]))


async def heads_of(grouped: GroupedObservations, *numbers: int) -> list[int]:
    """Ask for topics by number; return their heads."""
    seen = await grouped.observe([(TOPICS[number - 1].name, 0) for number in numbers])
    return [one.observation.head_seq for one in seen]


async def test_who_asks_alone_is_answered_at_once(autojump_clock: MockClock) -> None:
    """Nothing under way: no time passes, and the answer has the order of the question."""
    journal = journal_of()
    async with trio.open_nursery() as nursery:
        grouped = GroupedObservations(journal)
        nursery.start_soon(grouped.run)
        assert await heads_of(grouped, 3, 1, 2) == [3, 1, 2]
        assert trio.current_time() == 0
        nursery.cancel_scope.cancel()
    assert journal.asked == [3]


async def test_who_asks_meanwhile_travels_together(autojump_clock: MockClock) -> None:
    """A hundred that ask at once take two statements, which ask for each topic once; each gets its own answers."""
    journal = journal_of()
    answers: dict[int, list[int]] = {}
    async with trio.open_nursery() as nursery:
        grouped = GroupedObservations(journal)
        for _ in range(WORKERS):
            nursery.start_soon(grouped.run)
        await wait_all_tasks_blocked()

        async def ask(index: int) -> None:
            answers[index] = await heads_of(grouped, index % 5 + 1, (index + 1) % 5 + 1)

        async with trio.open_nursery() as asking:
            for index in range(100):
                asking.start_soon(ask, index)
        nursery.cancel_scope.cancel()
    assert len(journal.asked) <= 2
    assert max(journal.asked) == len(TOPICS)
    assert answers == {index: [index % 5 + 1, (index + 1) % 5 + 1] for index in range(100)}


async def test_statements_keep_their_distance(autojump_clock: MockClock) -> None:
    """Asks that come one just after the other share a statement for each pause."""
    journal = journal_of()
    async with trio.open_nursery() as nursery:
        grouped = GroupedObservations(journal)
        for _ in range(WORKERS):
            nursery.start_soon(grouped.run)
        async with trio.open_nursery() as asking:
            for _ in range(50):
                asking.start_soon(heads_of, grouped, 1)
                await trio.sleep(PAUSE_S / 10)
        nursery.cancel_scope.cancel()
    assert set(journal.asked) == {1}
    gaps = [later - earlier for earlier, later in zip(journal.began_at, journal.began_at[1:], strict=False)]
    assert min(gaps) >= PAUSE_S * 0.99
    assert len(journal.asked) <= 7


async def test_a_statement_begins_after_what_it_answers_was_asked(autojump_clock: MockClock) -> None:
    """Who asks while a statement is under way is not answered by it: it may have seen less."""
    journal = journal_of()
    log = journal.journal.logs[TOPICS[0].name]
    heads: list[list[int]] = []
    async with trio.open_nursery() as nursery:
        grouped = GroupedObservations(journal)
        nursery.start_soon(grouped.run)
        journal.journal.hold("observe")

        async def ask() -> None:
            heads.append(await heads_of(grouped, 1))

        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            await wait_all_tasks_blocked()
            log.append(1)
            asking.start_soon(ask)
            await wait_all_tasks_blocked()
            journal.journal.open_gate("observe")
        nursery.cancel_scope.cancel()
    assert heads == [[1], [2]]


async def test_a_statement_that_hangs_holds_up_nobody_else(autojump_clock: MockClock) -> None:
    """One connection to the database answers nothing: who asks then is answered by the other worker."""
    journal = journal_of()
    async with trio.open_nursery() as nursery:
        grouped = GroupedObservations(journal)
        for _ in range(WORKERS):
            nursery.start_soon(grouped.run)
        await wait_all_tasks_blocked()
        journal.journal.hold("observe")
        nursery.start_soon(heads_of, grouped, 1)
        await wait_all_tasks_blocked()
        # What asks from now on is answered; the first is still held.
        held = journal.journal._gates.pop("observe")
        with trio.fail_after(1):
            assert await heads_of(grouped, 2) == [2]
        assert not held.is_set()
        nursery.cancel_scope.cancel()


async def test_one_statement_is_bounded_and_one_subscribe_is_whole(autojump_clock: MockClock) -> None:
    """More topics than fit wait for the next statement; a subscribe is never split."""
    journal = journal_of()
    whole = TOPICS_MAX // 2 + 1
    async with trio.open_nursery() as nursery:
        grouped = GroupedObservations(journal)
        async with trio.open_nursery() as asking:
            for number in range(3):
                first = number * whole
                seqs = range(first, first + whole)
                asking.start_soon(grouped.observe, [(TOPICS[0].name, seq) for seq in seqs])
            await wait_all_tasks_blocked()
            nursery.start_soon(grouped.run)
        nursery.cancel_scope.cancel()
    assert journal.asked == [whole] * 3


async def test_trouble_is_everybodys_and_ends_with_its_statement(autojump_clock: MockClock) -> None:
    """All who travelled together hear of the trouble and of its time; the next are served."""
    journal = journal_of()
    journal.journal.failures["observe"] = 1
    journal.journal.retry_after_s = 3.0
    waits: list[float] = []
    async with trio.open_nursery() as nursery:
        grouped = GroupedObservations(journal)

        async def ask() -> None:
            with pytest.raises(JournalUnavailableError) as caught:
                await heads_of(grouped, 1)
            waits.append(caught.value.retry_after_s)

        async with trio.open_nursery() as asking:
            for _ in range(3):
                asking.start_soon(ask)
            await wait_all_tasks_blocked()
            nursery.start_soon(grouped.run)
        assert waits == [3.0] * 3
        assert await heads_of(grouped, 4) == [4]
        nursery.cancel_scope.cancel()


async def test_a_crash_leaves_nobody_waiting(autojump_clock: MockClock) -> None:
    """A bug in a statement is the worker's; its askers are told to come back."""
    journal = journal_of()
    journal.crash = KeyError("a bug")
    async with trio.open_nursery() as nursery:
        grouped = GroupedObservations(journal)

        async def crash() -> None:
            with pytest.raises(KeyError):
                await grouped.run()

        nursery.start_soon(crash)
        with pytest.raises(JournalUnavailableError), trio.fail_after(1):
            await heads_of(grouped, 1)
        nursery.cancel_scope.cancel()


async def test_who_leaves_is_not_asked_for(autojump_clock: MockClock) -> None:
    """A connection that ends while it waits costs no topic of the next statement."""
    journal = journal_of()
    async with trio.open_nursery() as nursery:
        grouped = GroupedObservations(journal)
        with trio.CancelScope() as leaving:
            async with trio.open_nursery() as asking:
                asking.start_soon(heads_of, grouped, 1, 2)
                await wait_all_tasks_blocked()
                leaving.cancel()
        nursery.start_soon(grouped.run)
        assert await heads_of(grouped, 3) == [3]
        nursery.cancel_scope.cancel()
    assert journal.asked == [1]
