"""The order of the tests for one request, and what a batch carries on from request to request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from khala_contracts import reason_codes
from khala_contracts.kinds import decode_payload
from khala_contracts.topics import Lineage
from runtime.core.commands import Submission
from runtime.core.decisions import Accepted, Duplicate, Joined, NotDecided, decide_requests
from runtime.core.journal_calls import Locked, StoredKey
from runtime.core.outcomes import Appended, AppendedPart, Refused, encode_answer
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

if TYPE_CHECKING:
    from runtime.core.commands import Request
    from runtime.core.decisions import Decision

RUN, OTHER = facts(1), facts(2)
ANSWER = Appended((AppendedPart(RUN.topic, Lineage(LINEAGE), 9, ("e",), b"c" * 32),))


def locked(
    *, state: RunState | None = RunState.RUNNING, head_seq: int = 1, known: dict[str, bytes] | None = None
) -> Locked:
    """Return the locked state of RUN and OTHER; `known` maps keys to fingerprints."""
    states = {} if state is None else {RUN.run_id: state, OTHER.run_id: state}
    stored = {
        ("scope", name): StoredKey(fingerprint, encode_answer(ANSWER))
        for name, fingerprint in (known or {}).items()
    }
    heads = {} if state is None else {RUN.topic: head_seq, OTHER.topic: head_seq}
    return Locked(stored, states, {}, heads, 0)


def decide(
    requests: list[Request], state: Locked | None = None, *, burst: float = 1e9, per_s: float = 1.0
) -> list[Decision]:
    """Return the decisions of requests that each stand alone."""
    limiter = RateLimiter({"run_events": Rate(per_s, burst)})
    return decide_requests(alone(*requests), state or locked(), limiter=limiter, now=0.0)


def reasons(decisions: list[Decision]) -> list[str]:
    """Return a word for each decision: its reason code if it is a refusal."""
    return [
        decision.reason.name if isinstance(decision, Refused) else type(decision).__name__
        for decision in decisions
    ]


def test_key_before_everything() -> None:
    """A known key is answered whatever the run, the position and the rate say."""
    request = append(RUN, thoughts("x"), "k", expected_seq=77)
    known = {"k": request.key.fingerprint}
    for state in (RunState.FAILED, None, RunState.RUNNING):
        (decision,) = decide([request], locked(state=state, known=known), burst=0.5)
        assert decision == Duplicate(ANSWER)
    (decision,) = decide([request], locked(known={"k": b"other"}))
    assert reasons([decision]) == ["idempotency_conflict"]


def test_answer_that_cannot_be_read() -> None:
    """A row that this build does not understand fails its own request, and writes nothing for it."""
    request = append(RUN, thoughts("x"), "k")
    stored = {("scope", "k"): StoredKey(request.key.fingerprint, b"\xffnewer")}
    decisions = decide([request, append(RUN, thoughts("y"))], attrs.evolve(locked(), known_keys=stored))
    assert reasons(decisions) == ["internal", "Accepted"]


@pytest.mark.parametrize(
    ("state", "expected_seq", "burst", "reason"),
    [
        (None, 9, 0.5, "not_found"),
        (RunState.FAILED, 9, 0.5, "run_finished"),
        (RunState.SUCCEEDED, None, 9.0, "run_finished"),
        (RunState.CANCELLED, None, 9.0, "run_finished"),
        (RunState.RUNNING, 9, 0.5, "seq_conflict"),
        (RunState.RUNNING, 1, 0.5, "rate_limited"),
        (RunState.RUNNING, 1, 9.0, "Accepted"),
        (RunState.PAUSED, None, 9.0, "Accepted"),
        (RunState.CREATED, None, 9.0, "Accepted"),
    ],
)
def test_order_for_an_append(
    state: RunState | None, expected_seq: int | None, burst: float, reason: str
) -> None:
    """The run, then the position, then the rate."""
    limiter = RateLimiter({"run_events": Rate(1.0, burst)})
    if burst < 1:
        limiter.take(RUN.topic, "run_events", 5, now=0.0)
    request = append(RUN, thoughts("x"), expected_seq=expected_seq)
    decisions = decide_requests(alone(request), locked(state=state), limiter=limiter, now=0.0)
    assert reasons(decisions) == [reason]


def test_refusals_say_what_is_there() -> None:
    """Details name the state, the positions and the time to wait."""
    finished, position = decide([append(RUN, thoughts("x"))], locked(state=RunState.FAILED)) + decide(
        [append(RUN, thoughts("x"), expected_seq=5)]
    )
    assert isinstance(finished, Refused)
    assert finished.details == {"state": "failed"}
    assert isinstance(position, Refused)
    assert position.details == {"expected_seq": "5", "head_seq": "1"}
    _, limited = decide([append(RUN, thoughts(*"abcd")), append(RUN, thoughts("x"))], burst=4.0, per_s=4.0)
    assert isinstance(limited, Refused)
    assert limited.details == {"topic_class": "run_events", "limit": "publish_rate_per_s", "max": "4"}
    assert limited.retry_after_ms == 251


def test_each_sees_the_ones_before() -> None:
    """Positions, states and tokens of a batch are those that its accepted requests leave."""
    decisions = decide(
        [
            append(RUN, thoughts("a", "b"), expected_seq=1),
            append(RUN, thoughts("c"), expected_seq=1),
            append(RUN, thoughts("c"), expected_seq=3),
            append_to_many([RUN, OTHER], "d"),
            append(OTHER, thoughts("e"), expected_seq=2),
            transition(RUN, RunState.PAUSED),
            transition(RUN, RunState.SUCCEEDED),
            transition(RUN, RunState.CANCELLED),
            append(RUN, thoughts("f")),
            append_to_many([OTHER, RUN], "g"),
            append(OTHER, thoughts("h"), expected_seq=3),
        ]
    )
    assert reasons(decisions) == [
        "Accepted", "seq_conflict", "Accepted", "Accepted", "Accepted", "Accepted", "invalid_transition",
        "Accepted", "run_finished", "run_finished", "Accepted",
    ]  # fmt: skip


def test_tokens_within_a_batch() -> None:
    """Tokens decided away are gone for the next request, per topic; transitions need none."""
    decisions = decide(
        [
            append(RUN, thoughts("a", "b")),
            append(RUN, thoughts("c", "d")),
            append(RUN, thoughts("e")),
            append(OTHER, thoughts("f", "g", "h")),
            transition(RUN, RunState.FAILED),
        ],
        burst=3.0,
    )
    assert reasons(decisions) == ["Accepted", "rate_limited", "Accepted", "Accepted", "Accepted"]


def test_equal_keys_of_a_batch() -> None:
    """The same request joins; another one conflicts; after a refusal the key is free."""
    good, bad = thoughts("good"), thoughts("bad")
    decisions = decide(
        [
            append(RUN, bad, "k", expected_seq=9),
            append(RUN, good, "k"),
            append(RUN, good, "k"),
            append(RUN, bad, "k", expected_seq=9),
            append(RUN, good, "k"),
        ]
    )
    assert reasons(decisions) == ["seq_conflict", "Accepted", "Joined", "idempotency_conflict", "Joined"]
    assert decisions[2] == decisions[4] == Joined(1)


def test_new_runs() -> None:
    """A run that was inserted is accepted; a taken name is refused, also for whoever joins it."""
    new, taken = facts(3, name="n"), facts(4, name="m")
    state = attrs.evolve(locked(), name_holders={new.run_id: new.run_id, taken.run_id: RUN.run_id})
    identity, other = key("k", b"1"), key("l", b"2")
    decisions = decide(
        [create(new, identity), create(new, identity), create(taken, other), create(facts(5), other),
         create(facts(6), attrs.evolve(other, fingerprint=b"3")), append(new, thoughts("x"), expected_seq=1)],
        state,
    )  # fmt: skip
    assert reasons(decisions) == [
        "Accepted", "Joined", "name_taken", "name_taken", "idempotency_conflict", "Accepted",
    ]  # fmt: skip
    refused = decisions[2]
    assert isinstance(refused, Refused)
    assert refused.details == {"run_id": RUN.run_id}


def test_events_of_transitions() -> None:
    """The payload says from where to where, or how it ended."""
    paused, failed = decide([transition(RUN, RunState.PAUSED), transition(RUN, RunState.FAILED)])
    assert isinstance(paused, Accepted)
    assert isinstance(failed, Accepted)
    assert (paused.to_state, failed.to_state) == (RunState.PAUSED, RunState.FAILED)
    found = []
    for accepted in (paused, failed):
        events = accepted.parts[0].events
        found.append((events.kinds[0], decode_payload(events.kinds[0], events.payloads[0])))
    assert found == [
        (
            "run.state_changed",
            {"from_state": "RUN_STATE_RUNNING", "to_state": "RUN_STATE_PAUSED", "reason": "because"},
        ),
        ("run.finished", {"state": "RUN_STATE_FAILED", "reason": "because", "result": ""}),
    ]


def test_submission_stops() -> None:
    """After a refusal the rest of the submission is not decided; the next submission is."""
    submissions = [
        Submission(
            (
                append(RUN, thoughts("a")),
                append(RUN, thoughts("b"), expected_seq=1),
                append(RUN, thoughts("c")),
            )
        ),
        Submission((append(RUN, thoughts("d"), expected_seq=2),)),
    ]
    decisions = decide_requests(submissions, locked(), limiter=RateLimiter({}), now=0.0)
    assert reasons(decisions) == ["Accepted", "seq_conflict", "NotDecided", "Accepted"]
    assert decisions[2] == NotDecided()


def test_illegal_input_changes_nothing() -> None:
    """Deciding changes neither the locked state nor the limiter: only a commit takes tokens."""
    state, limiter = locked(), RateLimiter({"run_events": Rate(1.0, 3.0)})
    before = attrs.asdict(state)
    for _ in range(3):
        decisions = decide_requests(
            alone(append(RUN, thoughts("a", "b")), append(RUN, thoughts("c"), expected_seq=7)),
            state,
            limiter=limiter,
            now=0.0,
        )
        assert reasons(decisions) == ["Accepted", "seq_conflict"]
    assert attrs.asdict(state) == before
    assert limiter.topic_count == 0
    assert reason_codes.SEQ_CONFLICT.http_status == 409
