"""The three calls of a batch: what is locked, how columns are laid out, what is remembered."""

from __future__ import annotations

from khala_contracts.http_messages import CreateRunResponse
from khala_contracts.topics import Lineage
from runtime.core.batch_commit import BatchCommit
from runtime.core.commands import Submission
from runtime.core.journal_calls import AppendResult, Locked, RunUpdate
from runtime.core.outcomes import Answered, Appended, Refused, Skipped, decode_answer
from runtime.core.rate_limit import Rate, RateLimiter
from runtime.core.run_state_machine import RunState
from tests.actors.runtime.rig import (
    LINEAGE,
    alone,
    append,
    append_to_many,
    create,
    facts,
    key,
    thoughts,
    transition,
)

RUN, OTHER, NEW = facts(1), facts(2), facts(3)


def batch_of(submissions: list[Submission], limiter: RateLimiter | None = None) -> BatchCommit:
    """Return a batch."""
    return BatchCommit(
        submissions,
        limiter=RateLimiter({}) if limiter is None else limiter,
        now=0.0,
        lineage=Lineage(LINEAGE),
    )


def locked() -> Locked:
    """Return the state in which RUN and OTHER run, with heads at 10 and 20, and NEW was inserted."""
    running = RunState.RUNNING
    return Locked(
        {}, {RUN.run_id: running, OTHER.run_id: running}, {NEW.run_id: NEW.run_id},
        {RUN.topic: 10, OTHER.topic: 20}, 1_000,
    )  # fmt: skip


def chains(count: int) -> bytes:
    """Return that many different chains."""
    return b"".join(bytes([number]) * 32 for number in range(1, count + 1))


def test_lock_call_is_distinct() -> None:
    """Keys, runs and topics are locked once, however often the batch names them."""
    identity = key("k", b"1")
    batch = batch_of(
        alone(
            append(RUN, thoughts("a"), "a"),
            append(RUN, thoughts("b"), "b"),
            append_to_many([OTHER, RUN], "c"),
            transition(OTHER, RunState.PAUSED, "d"),
            create(NEW, identity),
            create(facts(4), identity),
        )
    )
    call = batch.lock_call
    assert len(call.keys) == 5
    assert call.run_ids == (RUN.run_id, OTHER.run_id)
    assert [target.topic for target in call.targets] == [RUN.topic, OTHER.topic]
    # The second create joins the first: its run is never inserted.
    assert [new.command.facts for new in call.new_runs] == [NEW]


def test_columns_are_grouped_by_topic() -> None:
    """Events are appended topic after topic, in order of decision; answers find theirs again."""
    first, second = thoughts("a", "b"), thoughts("c")
    both = append_to_many([OTHER, RUN], "d")
    batch = batch_of(
        alone(append(RUN, first), both, append(RUN, second), append(RUN, second, expected_seq=1))
    )
    call = batch.decide(locked())
    assert call is not None
    assert [target.topic for target in call.targets] == [RUN.topic, OTHER.topic]
    assert call.event_counts == [4, 1]
    assert call.event_ids[:2] + call.event_ids[3:4] == [*first.event_ids, *second.event_ids]
    columns = (
        call.event_ids, call.kinds, call.payloads, call.schema_versions, call.actors, call.request_ids,
    )  # fmt: skip
    assert {len(column) for column in columns} == {5}
    finish = batch.finish(AppendResult([10, 20], [b"r" * 32, b"o" * 32], chains(5), 2_000))
    outcomes = [outcome for (outcome,) in batch.outcomes()]
    placed = [
        [(part.topic, part.first_seq, part.chains[:1]) for part in outcome.parts]
        for outcome in outcomes
        if isinstance(outcome, Appended)
    ]
    assert placed == [
        [(RUN.topic, 11, b"\x01")],
        [(OTHER.topic, 21, b"\x05"), (RUN.topic, 13, b"\x03")],
        [(RUN.topic, 14, b"\x04")],
    ]
    assert isinstance(outcomes[3], Refused)
    remembered = [stored and decode_answer(stored.answer) for stored in finish.answers.values()]
    assert remembered == [*outcomes[:3], None]
    committed = [
        (topic.topic, topic.first_seq, topic.last_seq, topic.chain_before, len(topic.chains))
        for topic in batch.committed
    ]
    assert committed == [
        (RUN.topic, 11, 14, b"r" * 32, 4 * 32),
        (OTHER.topic, 21, 21, b"o" * 32, 32),
    ]


def test_runs_move_once() -> None:
    """Of several transitions of one run the last accepted state is written, with its time."""
    batch = batch_of(
        alone(
            transition(RUN, RunState.PAUSED),
            transition(RUN, RunState.RUNNING),
            transition(RUN, RunState.FAILED),
            transition(OTHER, RunState.PAUSED),
            create(NEW),
        )
    )
    assert batch.decide(locked()) is not None
    finish = batch.finish(AppendResult([10, 20, 0], [b"x" * 32] * 3, chains(5), 2_000))
    assert finish.run_updates == (
        RunUpdate(RUN.run_id, RunState.FAILED, 2_000),
        RunUpdate(OTHER.run_id, RunState.PAUSED, None),
    )
    created = batch.outcomes()[4][0]
    assert isinstance(created, Answered)
    answer = CreateRunResponse.FromString(created.message)
    assert (answer.run.created_at_us, answer.ack.seq) == (1_000, 1)


def test_nothing_to_write() -> None:
    """A batch of refusals appends nothing and still has its outcomes."""
    batch = batch_of([Submission((append(RUN, thoughts("a"), expected_seq=1), append(RUN, thoughts("b"))))])
    assert batch.decide(locked()) is None
    refused, skipped = batch.outcomes()[0]
    assert isinstance(refused, Refused)
    assert isinstance(skipped, Skipped)
    assert batch.committed == []
    assert batch.duplicate_count == 0


def test_tokens() -> None:
    """Tokens are taken for accepted appends only, when the commit is there."""
    limiter = RateLimiter({"run_events": Rate(1.0, 10.0)})
    batch = batch_of(
        alone(
            append(RUN, thoughts("a", "b"), "k"),
            append(RUN, thoughts("c"), expected_seq=1),
            transition(OTHER, RunState.PAUSED),
        ),
        limiter,
    )
    assert batch.decide(locked()) is not None
    assert limiter.topic_count == 0
    batch.take_tokens()
    assert limiter.wait_s(RUN.topic, "run_events", 8, now=0.0) == 0.0
    assert limiter.wait_s(RUN.topic, "run_events", 9, now=0.0) == 1.0
    assert limiter.topic_count == 1
