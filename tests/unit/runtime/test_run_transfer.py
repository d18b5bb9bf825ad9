"""One transfer: the order of its tests, and what it writes."""

from __future__ import annotations

import attrs
import pytest

from khala_contracts import http_messages as m
from khala_contracts import kinds, reason_codes
from khala_contracts.topics import Lineage, format_org_runs, format_user_runs
from runtime.core.commands import IdempotencyKey
from runtime.core.journal_calls import AppendResult, Locked, StoredKey
from runtime.core.outcomes import Answered, Refused, encode_answer
from runtime.core.run_state_machine import RunState
from runtime.core.run_transfer import RunTransfer, TransferOrder, TransferredRun
from tests.actors.runtime.rig import LINEAGE, ORG, OTHER_USER, USER, CountingIds, facts, person

KEY = IdempotencyKey("scope", "k", b"f", 60)
RUN = TransferredRun(facts(1, org_id=ORG), RunState.FAILED, 1, 2, Lineage(LINEAGE), 7, b"c" * 32)
ORDER = TransferOrder(person(), RUN.facts.run_id, OTHER_USER, "request", KEY)


def locked(stored: StoredKey | None = None) -> Locked:
    """Return what is found under the lock of the key."""
    return Locked({} if stored is None else {("scope", "k"): stored}, {}, {}, {}, 0)


def transfer(order: TransferOrder = ORDER) -> RunTransfer:
    """Return one attempt."""
    ids = CountingIds()
    return RunTransfer(order, new_event_id=lambda: ids.new("evt"))


def test_it_locks_its_key_and_its_run() -> None:
    """Heads come later: after the checkpoint."""
    call = transfer().lock_call
    assert (list(call.keys), call.run_ids, call.targets, call.new_runs) == (
        [("scope", "k")],
        (RUN.facts.run_id,),
        (),
        (),
    )


@pytest.mark.parametrize(
    ("stored", "outcome"),
    [
        (StoredKey(b"f", encode_answer(Answered(b"before"))), Answered(b"before")),
        (StoredKey(b"other", b""), Refused(reason_codes.IDEMPOTENCY_CONFLICT, {})),
        (StoredKey(b"f", b"\xff"), Refused(reason_codes.INTERNAL, {})),
    ],
)
def test_the_key_comes_first(stored: StoredKey, outcome: Answered | Refused) -> None:
    """Also where the run is not there, or not the caller's any more."""
    attempt = transfer()
    assert attempt.decide(locked(stored), None) is False
    assert attempt.outcome == outcome
    assert attempt.is_repeat is isinstance(outcome, Answered)
    assert attempt.committed == []


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (None, reason_codes.NOT_FOUND),
        (attrs.evolve(RUN, facts=facts(1, owner=OTHER_USER, org_id=None)), reason_codes.NOT_FOUND),
    ],
)
def test_the_right_is_judged_on_the_locked_owner(
    run: TransferredRun | None, reason: reason_codes.ReasonCode
) -> None:
    """Whoever is no owner any more is told that there is nothing."""
    attempt = transfer()
    assert attempt.decide(locked(), run) is False
    assert attempt.outcome == Refused(reason, {})


def test_a_member_sees_it_and_may_not() -> None:
    """What one may see is forbidden, not hidden."""
    member = attrs.evolve(ORDER, principal=person(OTHER_USER, {ORG: "member"}))
    attempt = transfer(member)
    assert attempt.decide(locked(), RUN) is False
    assert attempt.outcome == Refused(reason_codes.FORBIDDEN, {})


def test_to_its_owner_is_nothing_to_do() -> None:
    """Answered with the run as it is, without an event."""
    attempt = transfer(attrs.evolve(ORDER, owner_user_id=USER))
    assert attempt.decide(locked(), RUN) is False
    assert isinstance(attempt.outcome, Answered)
    answer = m.TransferRunResponse.FromString(attempt.outcome.message)
    assert (answer.run.owner_user_id, answer.run.watermark.seq, answer.HasField("ack")) == (USER, 7, False)


def test_what_is_written() -> None:
    """Four topics are locked; the event names both users; the answer stands after it."""
    attempt = transfer()
    assert attempt.decide(locked(), RUN)
    assert [target.topic for target in attempt.targets()] == [
        RUN.facts.topic, format_user_runs(OTHER_USER), format_org_runs(ORG), format_user_runs(USER),
    ]  # fmt: skip
    call = attempt.event()
    assert kinds.decode_payload(call.kinds[0], call.payloads[0]) == {
        "from_user_id": USER,
        "to_user_id": OTHER_USER,
    }
    assert (call.actors, call.request_ids, call.event_counts) == ([USER], ["request"], [1])
    finish = attempt.finish(call, AppendResult([7], [b"c" * 32], b"d" * 32, 5))
    attempt.step()
    assert [topic.first_seq for topic in attempt.committed] == [8]
    assert isinstance(attempt.outcome, Answered)
    answer = m.TransferRunResponse.FromString(attempt.outcome.message)
    assert (answer.run.owner_user_id, answer.run.state) == (OTHER_USER, m.RUN_STATE_FAILED)
    assert (answer.run.watermark.seq, answer.ack.seq, answer.ack.chain) == (8, 8, b"d" * 32)
    stored = finish.answers["scope", "k"]
    assert stored == StoredKey(b"f", encode_answer(attempt.outcome))
    assert finish.run_updates == ()


def test_a_taken_name() -> None:
    """Said with the run that has it."""
    attempt = transfer()
    assert attempt.decide(locked(), RUN)
    attempt.refuse_name("run_x")
    assert attempt.outcome == Refused(reason_codes.NAME_TAKEN, {"run_id": "run_x"})
