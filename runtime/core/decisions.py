"""Decides the requests of one batch, one after the other, against the locked state.

Pure. The order of the tests for one request is part of the contract:

    1. its key was used before   the stored answer, or idempotency_conflict
    2. its key is in this batch  the answer of the earlier request with that key, or conflict
    3. the run                   not_found, name_taken, run_finished, invalid_transition
    4. expected_seq              seq_conflict with the head
    5. rate                      rate_limited with the time to wait

So a retry is answered before any limit or transition is looked at, and nothing is written for a
request that is refused. Each request sees what the accepted ones before it did; a refused one leaves
the state as it was (tests/properties/test_runtime_decisions.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from khala_contracts import kinds, reason_codes
from runtime.core.commands import AppendEvents, CreateRun, TopicEvents, TopicTarget, TransitionRun
from runtime.core.events import EventColumns
from runtime.core.outcomes import Refused, decode_answer
from runtime.core.run_state_machine import KIND_FINISHED, Invalid, RunState, decide_transition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khala_contracts.topics import TopicName
    from runtime.core.commands import Request, RunFacts, Submission
    from runtime.core.journal_calls import KeyId, Locked
    from runtime.core.outcomes import Answer
    from runtime.core.rate_limit import RateLimiter

__all__ = ["Accepted", "Decision", "Duplicate", "Joined", "NotDecided", "decide_requests", "target_of"]

_MS_PER_S: Final = 1_000
RUN_CLASS: Final = "run_events"


@attrs.frozen
class Accepted:
    """The request will be written: these events, and this state of its run if it changes."""

    parts: tuple[TopicEvents, ...]
    to_state: RunState | None = None


@attrs.frozen
class Duplicate:
    """The request was answered before."""

    answer: Answer


@attrs.frozen
class Joined:
    """The same request is earlier in this batch; it gets the same outcome."""

    index: int


@attrs.frozen
class NotDecided:
    """An earlier request of the same submission was refused."""


Decision = Accepted | Duplicate | Joined | NotDecided | Refused


@attrs.define
class _Progress:
    """The locked state as the accepted requests of this batch have left it."""

    locked: Locked
    limiter: RateLimiter
    now: float
    head_seqs: dict[TopicName, int]
    run_states: dict[str, RunState]
    # Events accepted for a topic in this batch, whose tokens are not taken yet.
    pending: dict[TopicName, int] = attrs.field(factory=dict)
    # Keys used in this batch: index, request and decision of the last one that was decided by itself.
    uses: dict[KeyId, tuple[int, Request, Accepted | Refused]] = attrs.field(factory=dict)


def decide_requests(
    submissions: Sequence[Submission], locked: Locked, *, limiter: RateLimiter, now: float
) -> list[Decision]:
    """Return one decision for each request of the submissions, in their order.

    Args:
        submissions: The batch.
        locked: State under the locks of this transaction.
        limiter: Asked, not changed: tokens are taken after the commit.
        now: Seconds of the limiter's clock.
    """
    progress = _Progress(locked, limiter, now, dict(locked.head_seqs), dict(locked.run_states))
    decisions: list[Decision] = []
    for submission in submissions:
        is_stopped = False
        for request in submission.requests:
            if is_stopped:
                decisions.append(NotDecided())
                continue
            decision = _decide(request, len(decisions), progress)
            is_stopped = isinstance(decision, Refused)
            decisions.append(decision)
            if isinstance(decision, Accepted):
                _apply(request, decision, progress)
    return decisions


def target_of(facts: RunFacts) -> TopicTarget:
    """Return the topic of a run as a target."""
    return TopicTarget(facts.topic, RUN_CLASS, facts.owner_user_id, facts.org_id, facts.run_id)


def _decide(request: Request, index: int, progress: _Progress) -> Decision:
    key = request.key
    key_id = key.scope, key.key
    stored = progress.locked.known_keys.get(key_id)
    if stored is not None:
        if stored.fingerprint != key.fingerprint:
            return Refused(reason_codes.IDEMPOTENCY_CONFLICT, {})
        try:
            return Duplicate(decode_answer(stored.answer))
        except ValueError:
            # A newer runtime's row, or a damaged one: this request cannot be answered, others can.
            return Refused(reason_codes.INTERNAL, {})
    use = progress.uses.get(key_id)
    if use is not None:
        first_index, first, decision = use
        # A failure is not remembered: the key is free again. Only a new run cannot be decided twice,
        # because it was inserted, or not, for the first request with the key.
        is_free = isinstance(decision, Refused) and not isinstance(request.command, CreateRun)
        if not is_free and first.key.fingerprint != key.fingerprint:
            return Refused(reason_codes.IDEMPOTENCY_CONFLICT, {})
        if not is_free:
            return decision if isinstance(decision, Refused) else Joined(first_index)
    decision = _decide_command(request, progress)
    progress.uses[key_id] = index, request, decision
    return decision


def _decide_command(request: Request, progress: _Progress) -> Accepted | Refused:
    match request.command:
        case AppendEvents() as append:
            return _decide_append(append, progress)
        case CreateRun() as create:
            return _decide_create(create, progress)
        case TransitionRun() as transition:
            return _decide_transition(transition, progress)


def _decide_append(command: AppendEvents, progress: _Progress) -> Accepted | Refused:
    for part in command.parts:
        run_id = part.target.run_id
        if run_id is None:
            continue
        state = progress.run_states.get(run_id)
        if state is None:
            return Refused(reason_codes.NOT_FOUND, {})
        if state.is_terminal:
            return Refused(reason_codes.RUN_FINISHED, {"state": state.value})
    first = command.parts[0].target
    head_seq = progress.head_seqs[first.topic]
    if command.expected_seq is not None and command.expected_seq != head_seq:
        details = {"expected_seq": str(command.expected_seq), "head_seq": str(head_seq)}
        return Refused(reason_codes.SEQ_CONFLICT, details)
    for part in command.parts:
        wait_s = progress.limiter.wait_s(
            part.target.topic,
            part.target.topic_class,
            len(part.events),
            now=progress.now,
            pending=progress.pending.get(part.target.topic, 0),
        )
        if wait_s > 0:
            return refuse_rate(part.target.topic_class, wait_s, progress.limiter)
    return Accepted(command.parts)


def refuse_rate(topic_class: str, wait_s: float, limiter: RateLimiter) -> Refused:
    """Return the refusal of events that come too fast."""
    # Rounded up: a caller that waits exactly this long must not be refused again for a fraction.
    retry_after_ms = int(wait_s * _MS_PER_S) + 1
    details = {
        "topic_class": topic_class,
        "limit": "publish_rate_per_s",
        "max": limiter.rate_text(topic_class),
    }
    return Refused(reason_codes.RATE_LIMITED, details, retry_after_ms)


def _decide_create(command: CreateRun, progress: _Progress) -> Accepted | Refused:
    facts = command.facts
    holder = progress.locked.name_holders[facts.run_id]
    if holder != facts.run_id:
        return Refused(reason_codes.NAME_TAKEN, {"run_id": holder})
    return Accepted((TopicEvents(target_of(facts), command.started),))


def _decide_transition(command: TransitionRun, progress: _Progress) -> Accepted | Refused:
    from_state = progress.run_states.get(command.facts.run_id)
    if from_state is None:
        return Refused(reason_codes.NOT_FOUND, {})
    decided = decide_transition(from_state, command.to_state)
    if isinstance(decided, Invalid):
        details = {"from": from_state.value, "to": command.to_state.value}
        return Refused(reason_codes.INVALID_TRANSITION, details)
    events = _transition_event(command, from_state, decided.kind)
    return Accepted((TopicEvents(target_of(command.facts), events),), command.to_state)


def _transition_event(command: TransitionRun, from_state: RunState, kind: str) -> EventColumns:
    to_word = f"RUN_STATE_{command.to_state.name}"
    data: dict[str, object]
    if kind == KIND_FINISHED:
        data = {"state": to_word, "reason": command.reason, "result": command.result}
        if command.exit_status is not None:
            data["exit_status"] = command.exit_status
    else:
        from_word = f"RUN_STATE_{from_state.name}"
        data = {"from_state": from_word, "to_state": to_word, "reason": command.reason}
    payload = kinds.encode_payload(RUN_CLASS, kind, data)
    version = kinds.KINDS[RUN_CLASS, kind].schema_version
    return EventColumns((command.event_id,), (kind,), (payload,), (version,))


def _apply(request: Request, accepted: Accepted, progress: _Progress) -> None:
    for part in accepted.parts:
        topic, count = part.target.topic, len(part.events)
        progress.head_seqs[topic] = progress.head_seqs.get(topic, 0) + count
        if isinstance(request.command, AppendEvents):
            progress.pending[topic] = progress.pending.get(topic, 0) + count
    match request.command:
        case CreateRun(facts=facts):
            progress.run_states[facts.run_id] = RunState.RUNNING
        case TransitionRun(facts=facts) if accepted.to_state is not None:
            progress.run_states[facts.run_id] = accepted.to_state
        case _:
            pass
