"""What every JournalStore must do; run on the fake and on PostgreSQL.

Subclasses give the fixture `store`. One writer stands for the appender's; batches are made with the
real decisions, so a store that locks, decides or remembers wrongly gives wrong outcomes here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator  # noqa: TC003  # pytest-trio looks at annotations of fixtures
from typing import TYPE_CHECKING

import attrs
import pytest

from khala_contracts import reason_codes
from khala_contracts.chain import chain_next, chain_start
from khala_contracts.codec import EntryTemplate, decode_entries
from khala_contracts.http_messages import CreateRunResponse, TransitionRunResponse
from khala_contracts.topics import TOPIC_CLASSES
from khala_service.errors import DatabaseError
from runtime.core.batch_commit import BatchCommit
from runtime.core.commands import Submission
from runtime.core.outcomes import Answered, Appended, Refused, Skipped
from runtime.core.rate_limit import RateLimiter, rates_of
from runtime.core.run_state_machine import RunState
from runtime.ports import Authority, Superseded
from tests.actors.runtime.rig import (
    LINEAGE,
    ORG,
    OTHER_USER,
    USER,
    alone,
    append,
    append_to_many,
    create,
    facts,
    key,
    make_id,
    thoughts,
    transition,
)

if TYPE_CHECKING:
    from runtime.core.commands import Request, RunFacts
    from runtime.core.outcomes import Outcome
    from runtime.ports import JournalStore, JournalWriter


@attrs.define
class Desk:
    """A store with one writer and its authority."""

    store: JournalStore
    writer: JournalWriter
    authority: Authority
    limiter: RateLimiter
    now: float = 0.0
    last: BatchCommit | None = None

    async def commit(self, submissions: list[Submission]) -> list[list[Outcome]]:
        batch = BatchCommit(submissions, limiter=self.limiter, now=self.now, lineage=self.authority.lineage)
        await self.writer.commit_batch(batch)
        batch.take_tokens()
        self.last = batch
        return batch.outcomes()

    async def one(self, request: Request) -> Outcome:
        return (await self.commit(alone(request)))[0][0]

    async def make_run(self, number: int = 1, *, name: str = "", org_id: str | None = None) -> RunFacts:
        run = facts(number, name=name, org_id=org_id)
        assert isinstance(await self.one(create(run)), Answered)
        return run


class JournalStoreSuite:
    """The suite; a subclass has a fixture `store` that gives an empty store."""

    @pytest.fixture
    async def desk(self, store: JournalStore) -> AsyncIterator[Desk]:
        """Return a store that we have authority over."""
        authority = await store.take_authority(holder="test", lineage_candidate=LINEAGE)
        async with store.open_writer(authority.generation) as writer:
            yield Desk(store, writer, authority, RateLimiter(rates_of(TOPIC_CLASSES, {})))

    async def test_authority(self, store: JournalStore) -> None:
        """Each taker gets the next generation; the first one's lineage stays."""
        first = await store.take_authority(holder="a", lineage_candidate=LINEAGE)
        second = await store.take_authority(holder="b", lineage_candidate=make_id("lin", 2))
        assert second.generation == first.generation + 1
        assert first.lineage == second.lineage == LINEAGE
        assert await store.read_generation() == second.generation
        assert await store.check() is None

    async def test_superseded_writer_writes_nothing(self, store: JournalStore, desk: Desk) -> None:
        """After a take-over the old writer's next transaction is refused, and leaves no key behind."""
        run = await desk.make_run()
        await store.take_authority(holder="other", lineage_candidate=LINEAGE)
        with pytest.raises(Superseded):
            await desk.commit(alone(append(run, thoughts("late"), "k")))
        record = await store.read_run(run.run_id)
        assert record is not None
        assert record.head_seq == 1
        assert await store.read_key("scope", "k") is None

    async def test_create_then_read(self, store: JournalStore, desk: Desk) -> None:
        """A new run is running, its first event is run.started, its record has the topic's position."""
        run = facts(1, name="mine", org_id=ORG)
        outcome = await desk.one(create(run))
        assert isinstance(outcome, Answered)
        answer = CreateRunResponse.FromString(outcome.message)
        record = await store.read_run(run.run_id)
        assert record is not None
        assert record.facts == run
        assert record.state is RunState.RUNNING
        assert record.finished_at_us is None
        assert record.created_at_us == answer.run.created_at_us > 0
        assert (record.head_seq, record.lineage) == (1, LINEAGE)
        assert record.head_chain == answer.ack.chain == answer.run.watermark.chain
        page = await store.read_events(run.topic, after_seq=0, limit=10, max_bytes=1_000)
        assert page is not None
        assert [event.kind for event in page.events] == ["run.started"]
        assert await store.read_run(make_id("run", 99)) is None

    async def test_appends_are_contiguous_and_chained(self, store: JournalStore, desk: Desk) -> None:
        """Acks, log, heads and chain agree, over batches and over requests within one."""
        run = await desk.make_run()
        outcomes = await desk.commit(
            alone(append(run, thoughts("a", "b")), append(run, thoughts("c")))
        ) + await desk.commit(alone(append(run, thoughts("d"))))
        acks = [
            ack for (outcome,) in outcomes if isinstance(outcome, Appended) for ack in outcome.parts[0].acks()
        ]
        assert [seq for _, seq, _ in acks] == [2, 3, 4, 5]
        page = await store.read_events(run.topic, after_seq=0, limit=100, max_bytes=10_000)
        assert page is not None
        chain = chain_start(run.topic)
        assert page.chain_before == chain
        chains = []
        for event in page.events:
            chain = chain_next(chain, event.seq, event.schema_version, event.kind, event.payload)
            chains.append(chain)
        assert [chain for _, _, chain in acks] == chains[1:]
        assert [event.event_id for event in page.events[1:]] == [event_id for event_id, _, _ in acks]
        assert page.last_chain == page.topic.head_chain == chain
        assert page.topic.head_seq == 5
        times = [event.committed_at_us for event in page.events]
        assert times == sorted(times)

    async def test_committed_topics_for_the_relay(self, desk: Desk) -> None:
        """What is handed to the relay continues the head before and holds exactly what was written."""
        run = await desk.make_run()
        await desk.commit(alone(append(run, thoughts("a")), append(run, thoughts("b"))))
        assert desk.last is not None
        (committed,) = desk.last.committed
        assert (committed.topic, committed.first_seq, committed.last_seq) == (run.topic, 2, 3)
        chain = committed.chain_before
        for index, payload in enumerate(committed.payloads):
            chain = chain_next(chain, 2 + index, 1, committed.kinds[index], payload)
            assert committed.chains[32 * index : 32 * index + 32] == chain

    async def test_several_topics_atomically(self, store: JournalStore, desk: Desk) -> None:
        """One request may write several topics; if one of them refuses, none is written."""
        runs = [await desk.make_run(number) for number in (1, 2, 3)]
        outcome = await desk.one(append_to_many(runs, "all"))
        assert isinstance(outcome, Appended)
        assert [(part.topic, part.first_seq) for part in outcome.parts] == [(run.topic, 2) for run in runs]
        assert isinstance(await desk.one(transition(runs[2], RunState.FAILED)), Answered)
        refused = await desk.one(append_to_many(runs, "none"))
        assert isinstance(refused, Refused)
        heads = await store.read_topics([run.topic for run in runs])
        assert [heads[run.topic].head_seq for run in runs] == [2, 2, 3]

    async def test_retry_returns_the_original(self, store: JournalStore, desk: Desk) -> None:
        """The same key with the same request gives the same answer and writes nothing."""
        run = await desk.make_run()
        events = thoughts("once")
        first = await desk.one(append(run, events, "k"))
        assert isinstance(first, Appended)
        assert await desk.one(append(run, events, "k")) == first
        stored = await store.read_key("scope", "k")
        assert stored is not None
        head = await store.read_topic(run.topic)
        assert head is not None
        assert head.head_seq == 2

    async def test_same_key_other_request(self, store: JournalStore, desk: Desk) -> None:
        """The same key with another request is a conflict; the stored answer stays."""
        run = await desk.make_run()
        events = thoughts("once")
        first = await desk.one(append(run, events, "k"))
        outcome = await desk.one(append(run, thoughts("twice"), "k"))
        assert isinstance(outcome, Refused)
        assert outcome.reason is reason_codes.IDEMPOTENCY_CONFLICT
        assert await desk.one(append(run, events, "k")) == first
        head = await store.read_topic(run.topic)
        assert head is not None
        assert head.head_seq == 2

    async def test_equal_keys_in_one_batch_join(self, desk: Desk) -> None:
        """Requests with one key in one batch get one answer; another body among them is a conflict."""
        run = await desk.make_run()
        events = thoughts("once")
        outcomes = await desk.commit(
            alone(
                append(run, events, "k"),
                append(run, events, "k"),
                append(run, thoughts("other"), "k"),
                append(run, events, "k"),
            )
        )
        first, second, third, fourth = (outcome for (outcome,) in outcomes)
        assert isinstance(first, Appended)
        assert first == second == fourth
        assert isinstance(third, Refused)
        assert third.reason is reason_codes.IDEMPOTENCY_CONFLICT

    async def test_key_of_a_failure_is_free_within_the_batch(self, store: JournalStore, desk: Desk) -> None:
        """A key that was refused may be used by another request of the same batch, and is its key then."""
        run = await desk.make_run()
        good = thoughts("good")
        outcomes = await desk.commit(
            alone(
                append(run, thoughts("bad"), "k", expected_seq=9),
                append(run, good, "k"),
                append(run, good, "k"),
                append(run, thoughts("bad"), "k", expected_seq=9),
            )
        )
        first, second, third, fourth = (outcome for (outcome,) in outcomes)
        assert isinstance(first, Refused)
        assert first.reason is reason_codes.SEQ_CONFLICT
        assert isinstance(second, Appended)
        assert third == second
        assert isinstance(fourth, Refused)
        assert fourth.reason is reason_codes.IDEMPOTENCY_CONFLICT
        assert await desk.one(append(run, good, "k")) == second

    async def test_failures_are_not_remembered(self, store: JournalStore, desk: Desk) -> None:
        """The key of a refused request is free, also when others of its batch were committed."""
        run, other = await desk.make_run(1), await desk.make_run(2)
        events = thoughts("x")
        outcomes = await desk.commit(
            alone(append(run, events, "k", expected_seq=7), append(other, thoughts("fine")))
        )
        assert isinstance(outcomes[0][0], Refused)
        assert isinstance(outcomes[1][0], Appended)
        assert await store.read_key("scope", "k") is None
        assert isinstance(await desk.one(append(run, thoughts("else"), "k")), Appended)

    async def test_expired_keys_are_new(self, store: JournalStore, desk: Desk) -> None:
        """A key whose lifetime is over counts as new, before and after its row is deleted."""
        run = await desk.make_run()
        expired = attrs.evolve(append(run, thoughts("a")), key=key("k", b"1", lifetime_s=0))
        assert isinstance(await desk.one(expired), Appended)
        assert await store.read_key("scope", "k") is None
        again = attrs.evolve(append(run, thoughts("b")), key=key("k", b"2", lifetime_s=0))
        outcome = await desk.one(again)
        assert isinstance(outcome, Appended)
        assert outcome.parts[0].first_seq == 3
        assert await store.delete_expired_keys(10) == 1
        assert await store.delete_expired_keys(10) == 0
        assert await store.read_key("scope", "nothing") is None

    async def test_expected_seq(self, desk: Desk) -> None:
        """An append with expected_seq succeeds at exactly that head, seen in the batch's own order."""
        run = await desk.make_run()
        outcomes = await desk.commit(
            alone(
                append(run, thoughts("a"), expected_seq=1),
                append(run, thoughts("b"), expected_seq=1),
                append(run, thoughts("c"), expected_seq=2),
            )
        )
        kinds = [type(outcome) for (outcome,) in outcomes]
        assert kinds == [Appended, Refused, Appended]
        refused = outcomes[1][0]
        assert isinstance(refused, Refused)
        assert refused.reason is reason_codes.SEQ_CONFLICT
        assert refused.details == {"expected_seq": "1", "head_seq": "2"}

    async def test_transitions(self, store: JournalStore, desk: Desk) -> None:
        """Transitions move the run and write their event; a finished run accepts nothing more."""
        run = await desk.make_run()
        outcomes = await desk.commit(
            alone(
                transition(run, RunState.PAUSED),
                transition(run, RunState.SUCCEEDED),
                transition(run, RunState.CANCELLED),
                append(run, thoughts("late")),
            )
        )
        kinds = [type(outcome) for (outcome,) in outcomes]
        assert kinds == [Answered, Refused, Answered, Refused]
        paused_to_succeeded, late = outcomes[1][0], outcomes[3][0]
        assert isinstance(paused_to_succeeded, Refused)
        assert paused_to_succeeded.reason is reason_codes.INVALID_TRANSITION
        assert paused_to_succeeded.details == {"from": "paused", "to": "succeeded"}
        assert isinstance(late, Refused)
        assert late.reason is reason_codes.RUN_FINISHED
        cancelled = outcomes[2][0]
        assert isinstance(cancelled, Answered)
        answer = TransitionRunResponse.FromString(cancelled.message)
        record = await store.read_run(run.run_id)
        assert record is not None
        assert record.state is RunState.CANCELLED
        assert record.finished_at_us == answer.run.finished_at_us > 0
        assert (record.head_seq, answer.ack.seq) == (3, 3)
        page = await store.read_events(run.topic, after_seq=0, limit=10, max_bytes=10_000)
        assert page is not None
        assert [event.kind for event in page.events] == ["run.started", "run.state_changed", "run.finished"]

    async def test_unknown_run(self, store: JournalStore, desk: Desk) -> None:
        """A command on a run that does not exist is refused and leaves no trace, also beside others."""
        ghost, run = facts(99), await desk.make_run()
        outcomes = await desk.commit(
            alone(
                append(ghost, thoughts("x")),
                transition(ghost, RunState.FAILED),
                append_to_many([run, ghost], "y"),
                append(run, thoughts("fine")),
            )
        )
        assert isinstance(outcomes.pop()[0], Appended)
        for (outcome,) in outcomes:
            assert isinstance(outcome, Refused)
            assert outcome.reason is reason_codes.NOT_FOUND
        assert await store.read_topic(ghost.topic) is None

    async def test_names_are_unique_per_owner(self, store: JournalStore, desk: Desk) -> None:
        """A name is taken once per owner, across batches and within one; no name is no conflict."""
        first = await desk.make_run(1, name="n")
        outcomes = await desk.commit(
            alone(
                create(facts(2, name="n")),
                create(facts(3, name="n", owner=OTHER_USER)),
                create(facts(4, name="m")),
                create(facts(5, name="m")),
                create(facts(6)),
                create(facts(7)),
            )
        )
        kinds = [type(outcome) for (outcome,) in outcomes]
        assert kinds == [Refused, Answered, Answered, Refused, Answered, Answered]
        taken = outcomes[0][0]
        assert isinstance(taken, Refused)
        assert taken.reason is reason_codes.NAME_TAKEN
        assert taken.details == {"run_id": first.run_id}
        assert await store.read_run(make_id("run", 2)) is None
        assert await store.read_topic(facts(2).topic) is None

    async def test_retried_create_makes_one_run(self, store: JournalStore, desk: Desk) -> None:
        """A create that is retried with another candidate id returns the first run, also in one batch."""
        identity = key("k", b"same")
        outcomes = await desk.commit(
            alone(create(facts(1, name="n"), identity), create(facts(2, name="n"), identity))
        )
        later = await desk.one(create(facts(3, name="n"), identity))
        assert outcomes[0] == outcomes[1] == [later]
        assert isinstance(later, Answered)
        assert CreateRunResponse.FromString(later.message).run.run_id == make_id("run", 1)
        assert await store.read_run(make_id("run", 2)) is None
        assert await store.read_run(make_id("run", 3)) is None

    async def test_content_that_is_refused(self, store: JournalStore, desk: Desk) -> None:
        """What the database cannot hold fails the whole transaction, and nothing of it stays."""
        run = await desk.make_run()
        poison = append(run, thoughts("x"), "poisoned", actor="a\x00b")
        with pytest.raises(DatabaseError) as refused:
            await desk.commit(alone(append(run, thoughts("fine"), "k"), poison))
        assert refused.value.sqlstate.startswith("22")
        assert await store.read_key("scope", "k") is None
        assert isinstance(await desk.one(append(run, thoughts("fine"), "k")), Appended)

    async def test_submission_stops_at_the_first_refusal(self, desk: Desk) -> None:
        """Of a submission, what follows a refused request is skipped; known keys are passed over."""
        run = await desk.make_run()
        once = thoughts("once")
        await desk.one(append(run, once, "k"))
        (outcomes,) = await desk.commit(
            [
                Submission(
                    (
                        append(run, once, "k"),
                        append(run, thoughts("new")),
                        append(run, thoughts("wrong"), expected_seq=1),
                        append(run, thoughts("never")),
                    )
                )
            ]
        )
        assert [type(outcome) for outcome in outcomes] == [Appended, Appended, Refused, Skipped]
        first, second = outcomes[0], outcomes[1]
        assert isinstance(first, Appended)
        assert isinstance(second, Appended)
        assert (first.parts[0].first_seq, second.parts[0].first_seq) == (2, 3)

    async def test_pages_of_events(self, store: JournalStore, desk: Desk) -> None:
        """Pages are cut by count and by bytes, never below one event, and carry the chain around them."""
        run = await desk.make_run()
        await desk.one(append(run, thoughts("a" * 10, "b" * 10, "c" * 10)))
        size = len(thoughts("a" * 10).payloads[0])
        by_count = await store.read_events(run.topic, after_seq=1, limit=2, max_bytes=10_000)
        by_bytes = await store.read_events(run.topic, after_seq=1, limit=9, max_bytes=2 * size)
        one_less = await store.read_events(run.topic, after_seq=1, limit=9, max_bytes=2 * size - 1)
        at_least_one = await store.read_events(run.topic, after_seq=1, limit=9, max_bytes=1)
        at_head = await store.read_events(run.topic, after_seq=4, limit=9, max_bytes=1)
        pages = (by_count, by_bytes, one_less, at_least_one, at_head)
        seqs = [[event.seq for event in page.events] for page in pages if page is not None]
        assert seqs == [[2, 3], [2, 3], [2], [2], []]
        assert by_count is not None
        assert at_head is not None
        rest = await store.read_events(run.topic, after_seq=3, limit=9, max_bytes=10_000)
        assert rest is not None
        assert rest.chain_before == by_count.last_chain
        assert at_head.chain_before == at_head.last_chain == rest.last_chain == rest.topic.head_chain
        assert await store.read_events(facts(99).topic, after_seq=0, limit=9, max_bytes=1) is None

    async def test_pages_of_messages(self, store: JournalStore, desk: Desk) -> None:
        """Frames as nodes replay them: cut by count and by encoded bytes, with the chains around the page."""
        run = await desk.make_run()
        appended = await desk.one(append(run, thoughts("a", "b", "c")))
        assert isinstance(appended, Appended)
        chains = [chain for _, _, chain in appended.parts[0].acks()]
        everything = await store.read_messages(run.topic, after_seq=0, limit=9, max_bytes=10_000)
        assert everything is not None
        frames = decode_entries(everything.entries)
        assert [frame.seq for frame in frames] == [1, 2, 3, 4]
        assert (everything.last_seq, everything.last_chain) == (4, chains[2])
        assert (everything.start.head_seq, everything.topic.head_seq) == (4, 4)
        assert everything.start.chain_before == b""
        template = EntryTemplate(run.topic)
        size = len(template.entry(2, "thought", thoughts("a").payloads[0], 1))
        for limit, max_bytes, last_seq in ((2, 10_000, 3), (9, 2 * size, 3), (9, 2 * size - 1, 2), (9, 1, 2)):
            page = await store.read_messages(run.topic, after_seq=1, limit=limit, max_bytes=max_bytes)
            assert page is not None
            assert (page.last_seq, page.last_chain) == (last_seq, chains[last_seq - 2])
        middle = await store.read_messages(run.topic, after_seq=2, limit=1, max_bytes=1)
        assert middle is not None
        assert middle.start.chain_before == chains[0]
        at_head = await store.read_messages(run.topic, after_seq=4, limit=9, max_bytes=1)
        assert at_head is not None
        assert (at_head.entries, at_head.last_seq, at_head.last_chain) == (b"", 4, b"")
        assert at_head.start.chain_before == chains[2]
        assert await store.read_messages(facts(99).topic, after_seq=0, limit=9, max_bytes=1) is None

    async def test_list_of_runs(self, store: JournalStore, desk: Desk) -> None:
        """Own runs and those of one's orgs, newest first, each once, in pages without overlap."""
        for number in range(1, 6):
            await desk.make_run(number, org_id=ORG if number % 2 else None)
        await desk.one(create(facts(6, owner=OTHER_USER)))
        await desk.one(create(facts(7, owner=OTHER_USER, org_id=ORG)))

        async def page(before: str | None, limit: int) -> list[str]:
            found = await store.list_runs(user_id=USER, org_ids=[ORG], before_run_id=before, limit=limit)
            return [record.facts.run_id for record in found]

        wanted = [make_id("run", number) for number in (7, 5, 4, 3, 2, 1)]
        assert await page(None, 10) == wanted
        assert await page(None, 2) == wanted[:2]
        assert await page(wanted[1], 3) == wanted[2:5]
        assert await page(wanted[-1], 3) == []
        assert await store.list_runs(user_id=make_id("usr", 9), org_ids=[], before_run_id=None, limit=9) == []

    async def test_retained_bytes(self, store: JournalStore, desk: Desk) -> None:
        """head_bytes_total is the sum of the lengths of all entries."""
        run = await desk.make_run()
        events = thoughts("a", "b" * 300)
        await desk.one(append(run, events))
        template = EntryTemplate(run.topic)
        entries = [template.entry(1, "run.started", b"", 1)]
        entries += [
            template.entry(seq, "thought", payload, 1) for seq, payload in enumerate(events.payloads, 2)
        ]
        head = await store.read_topic(run.topic)
        assert head is not None
        assert head.head_bytes_total == sum(map(len, entries))
        assert (head.floor_seq, head.floor_bytes_total, head.floor_reason) == (1, 0, "none")
        assert head.floor_chain == chain_start(run.topic)
        assert (head.owner_user_id, head.org_id, head.topic_class) == (USER, None, "run_events")
