"""Batching is invisible: however requests are put together, they are answered as one after the other.

Mutants of core/decisions.py that die here: the batch's own heads or states not carried on; keys of the
batch not joined; a refused request that changes state; tokens not counted within a batch; transitions
decided against the state before the batch. tests/integration/runtime has the same on PostgreSQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from khala_contracts import http_messages as m
from khala_contracts.kinds import decode_payload
from khala_contracts.topics import Lineage
from runtime.core.batch_commit import BatchCommit
from runtime.core.commands import IdempotencyKey, Request, Submission
from runtime.core.outcomes import Answered, Appended, Refused
from runtime.core.rate_limit import Rate, RateLimiter
from runtime.core.run_state_machine import RunState, fold_state
from tests.actors.runtime.memory_journal_store import MemoryJournalStore
from tests.actors.runtime.rig import LINEAGE, append, append_to_many, create, facts, thoughts, transition

if TYPE_CHECKING:
    from runtime.core.outcomes import Outcome

RUNS = [facts(number) for number in (1, 2, 3)]
# A bucket that some histories empty.
RATES = {"run_events": Rate(1.0, 5.0)}


@attrs.frozen
class Wish:
    """One request in the words of a strategy."""

    verb: str
    run: int
    key: int
    count: int
    expected_seq: int | None
    to_state: RunState

    def request(self, position: int) -> Request:
        """Return the request; keys 1 and 2 always stand for the same one, key 3 is used carelessly."""
        run = RUNS[self.run]
        match self.verb:
            case "append":
                request = append(run, thoughts(*["x"] * self.count), expected_seq=self.expected_seq)
            case "append_many":
                request = append_to_many(RUNS, "y")
            case "create":
                request = create(RUNS[2])
            case _:
                request = transition(run, self.to_state)
        name = f"key-{self.key}" if self.key else f"only-{position}"
        if self.verb == "create":
            # Ids of runs are never made twice: making one again is a retry.
            name = "create"
        careless = f"{self}" if name == "key-3" else ""
        return attrs.evolve(request, key=IdempotencyKey("scope", name, (name + careless).encode(), 60))


wishes = st.builds(
    Wish,
    verb=st.sampled_from(["append", "append", "append", "append_many", "create", "transition", "transition"]),
    run=st.sampled_from([0, 0, 0, 1, 2]),
    key=st.sampled_from([0, 0, 0, 1, 2, 3]),
    count=st.integers(1, 3),
    expected_seq=st.sampled_from([None, None, None, 1, 2, 3]),
    to_state=st.sampled_from([RunState.PAUSED, RunState.RUNNING, RunState.FAILED, RunState.SUCCEEDED]),
)


def requests_of(wished: list[Wish]) -> list[Request]:
    """Return the requests; the same key gives the very same request again."""
    made: dict[bytes, Request] = {}
    requests: list[Request] = []
    for position, wish in enumerate(wished):
        request = wish.request(position)
        requests.append(made.setdefault(request.key.fingerprint, request))
    return requests


async def play(batches: list[list[Submission]]) -> tuple[list[list[Outcome]], MemoryJournalStore]:
    """Return the outcomes of the batches, and the store they leave."""
    store = MemoryJournalStore()
    limiter = RateLimiter(RATES)
    authority = await store.take_authority(holder="test", lineage_candidate=LINEAGE)
    outcomes: list[list[Outcome]] = []
    async with store.open_writer(authority.generation) as writer:
        for submissions in batches:
            batch = BatchCommit(submissions, limiter=limiter, now=0.0, lineage=Lineage(LINEAGE))
            await writer.commit_batch(batch)
            batch.take_tokens()
            outcomes += batch.outcomes()
    return outcomes, store


async def state_of(store: MemoryJournalStore) -> list[object]:
    """Return everything that a store holds."""
    held: list[object] = [store.key_count()]
    for run in RUNS:
        held.append(await store.read_run(run.run_id))
        held.append(await store.read_events(run.topic, after_seq=0, limit=10_000, max_bytes=1 << 30))
    return held


def run(scenario: object, *args: object) -> None:
    """Run a trio scenario inside a @given test."""
    trio.run(scenario, *args, clock=MockClock(autojump_threshold=0))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=150)
@given(wished=st.lists(wishes, min_size=6, max_size=24), cuts=st.lists(st.integers(1, 6), max_size=24))
def test_batching_is_invisible(wished: list[Wish], cuts: list[int]) -> None:
    """ARC: requests decided together get the outcomes, and leave the state, of one after the other."""
    requests = [create(RUNS[0]), *requests_of(wished)]
    submissions = [Submission((request,)) for request in requests]
    batches: list[list[Submission]] = []
    rest = submissions
    for size in [*cuts, len(submissions)]:
        batches.append(rest[:size])
        rest = rest[size:]

    async def scenario() -> None:
        together, joint = await play([batch for batch in batches if batch])
        apart, separate = await play([[submission] for submission in submissions])
        assert together == apart
        assert await state_of(joint) == await state_of(separate)

    run(scenario)


@settings(deadline=None, max_examples=100)
@given(wished=st.lists(wishes, min_size=6, max_size=24))
def test_histories_replay_to_the_state(wished: list[Wish]) -> None:
    """RT-03, RT-05: each topic is 1..N, its fold is the run's state, nothing follows a terminal state."""
    requests = [create(fact) for fact in RUNS[:2]] + requests_of(wished)

    async def scenario() -> None:
        outcomes, store = await play([[Submission((request,))] for request in requests])
        for fact in RUNS:
            record = await store.read_run(fact.run_id)
            page = await store.read_events(fact.topic, after_seq=0, limit=10_000, max_bytes=1 << 30)
            if record is None or page is None:
                assert (record, page) == (None, None)
                continue
            assert [event.seq for event in page.events] == list(range(1, record.head_seq + 1))
            state: RunState | None = None
            for event in page.events:
                assert state is None or not state.is_terminal
                state = fold_state(state, event.kind, _to_state(event.kind, event.payload))
            assert state is record.state
        acks = [
            (part.topic, seq)
            for (outcome,) in outcomes
            if isinstance(outcome, Appended)
            for part in outcome.parts
            for _, seq, _ in part.acks()
        ]
        # A position is acknowledged twice only to a retry.
        retries = len(requests) - len({request.key.fingerprint for request in requests})
        assert len(acks) - len(set(acks)) <= 3 * retries

    run(scenario)


@settings(deadline=None, max_examples=100)
@given(wished=st.lists(wishes.filter(lambda wish: wish.verb.startswith("append")), min_size=1, max_size=12))
def test_a_submission_stops_at_its_first_refusal(wished: list[Wish]) -> None:
    """A submission's requests are answered up to the first refusal, as if the rest had not been sent."""
    requests = requests_of(wished)
    made = create(RUNS[0])

    async def scenario() -> None:
        (_, outcomes), store = await play([[Submission((made,))], [Submission(tuple(requests))]])
        refusals = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Refused)]
        end = refusals[0] if refusals else len(requests)
        assert all(isinstance(outcome, Appended | Answered) for outcome in outcomes[:end])
        alone, separate = await play([[Submission((request,))] for request in (made, *requests[:end])])
        assert [outcome for (outcome,) in alone[1:]] == outcomes[:end]
        assert await state_of(store) == await state_of(separate)

    run(scenario)


def _to_state(kind: str, payload: bytes) -> RunState | None:
    data = decode_payload(kind, payload)
    name = data.get("to_state") or data.get("state")
    if not isinstance(name, str) or kind not in {"run.state_changed", "run.finished"}:
        return None
    return RunState(m.RUN_STATES.word(m.RunState.Value(name)))
