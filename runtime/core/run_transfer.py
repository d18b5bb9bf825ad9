"""One change of a run's owner on its way through a transaction, and what its caller is told.

Pure: `TransferStore.run_transfer` calls `decide`, `event` and `finish` between its database calls, all of
them synchronous. An instance serves one attempt. Who may transfer is decided here, on the owner as
locked: of two transfers that meet, the second is judged by what the first has made of the run.

The order of the tests is part of the contract: the key was used before; the run; the right; the wanted
owner has it already, which writes nothing. A run that has ended may be transferred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from khala_contracts import http_messages as m
from khala_contracts import kinds, reason_codes
from khala_contracts.topics import parse_topic
from runtime.core.access_policy import Ownership, can_read, can_transfer
from runtime.core.batch_commit import CommittedTopic
from runtime.core.decisions import RUN_CLASS, target_of
from runtime.core.journal_calls import AppendCall, FinishCall, LockCall, StoredKey
from runtime.core.outcomes import Answered, Refused, decode_answer, encode_answer
from runtime.core.projection_step import ProjectionStep, list_targets, user_list
from runtime.core.responses import run_message
from runtime.core.run_state_machine import KIND_TRANSFERRED

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala_contracts.topics import Lineage
    from runtime.core.commands import IdempotencyKey, RunFacts, TopicTarget
    from runtime.core.journal_calls import AppendResult, KeyId, Locked
    from runtime.core.principals import Principal
    from runtime.core.run_state_machine import RunState

__all__ = ["RunTransfer", "TransferOrder", "TransferredRun", "decide_repeat", "decide_right"]


@attrs.frozen
class TransferOrder:
    """Give a run to another user.

    Attributes:
        owner_user_id: The new owner; control said that it is a member of the run's org.
        key: Every request has one; see IdempotencyKey.
    """

    principal: Principal
    run_id: str
    owner_user_id: str
    request_id: str
    key: IdempotencyKey


@attrs.frozen
class TransferredRun:
    """A run as it is found under the lock of its row; its topic cannot move meanwhile."""

    facts: RunFacts
    state: RunState
    created_at_us: int
    finished_at_us: int | None
    lineage: Lineage
    head_seq: int
    head_chain: bytes

    def message(self) -> m.Run:
        """Return it as callers see it."""
        return run_message(
            self.facts,
            self.state,
            created_at_us=self.created_at_us,
            finished_at_us=self.finished_at_us,
            lineage=self.lineage,
            head_seq=self.head_seq,
            head_chain=self.head_chain,
        )


class RunTransfer:
    """The pure half of one transaction.

    Attributes:
        outcome: What the caller is told; None until it is known.
        is_repeat: The answer is that of an earlier request with the key.
    """

    def __init__(self, order: TransferOrder, *, new_event_id: Callable[[], str]) -> None:
        self._order = order
        self._new_event_id = new_event_id
        self._before: TransferredRun | None = None
        self._step: ProjectionStep | None = None
        self._event: CommittedTopic | None = None
        self.outcome: Answered | Refused | None = None
        self.is_repeat = False
        self.lock_call = LockCall({self._key_id: order.key}, (order.run_id,), (), ())

    @property
    def run_id(self) -> str:
        """The run."""
        return self._order.run_id

    @property
    def owner_user_id(self) -> str:
        """Its new owner."""
        return self._order.owner_user_id

    @property
    def committed(self) -> list[CommittedTopic]:
        """What was added to the run's topic and to the lists; after the commit."""
        if self._event is None or self._step is None:
            return []
        return [self._event, *self._step.committed]

    def decide(self, locked: Locked, run: TransferredRun | None) -> bool:
        """Return whether the run is to get its new owner; False: roll back, `outcome` says why.

        Args:
            locked: What was found under the lock of the key.
            run: The run under the lock of its row; None if there is none.
        """
        stored = locked.known_keys.get(self._key_id)
        if stored is not None:
            self.outcome = decide_repeat(stored, self._order.key)
            self.is_repeat = isinstance(self.outcome, Answered)
            return False
        self.outcome = decide_right(self._order.principal, None if run is None else run.facts)
        if self.outcome is not None:
            return False
        assert run is not None, "what does not exist is refused"
        if run.facts.owner_user_id == self._order.owner_user_id:
            self.outcome = _answer(m.TransferRunResponse(run=run.message()))
            return False
        self._before = run
        return True

    def refuse_name(self, holder: str) -> None:
        """Note that the new owner has another run with this name; roll back."""
        self.outcome = Refused(reason_codes.NAME_TAKEN, {"run_id": holder})

    def targets(self) -> list[TopicTarget]:
        """Return every topic that is written, the run's own first."""
        run = self._transferred()
        lists = list_targets(self._order.owner_user_id, run.org_id)
        return [target_of(run), *lists, user_list(self._owner_before())]

    def event(self) -> AppendCall:
        """Return the event that tells it in the run's own topic."""
        data: dict[str, object] = {
            "from_user_id": self._owner_before(),
            "to_user_id": self._order.owner_user_id,
        }
        return AppendCall(
            targets=(target_of(self._transferred()),),
            event_counts=[1],
            event_ids=[self._new_event_id()],
            kinds=[KIND_TRANSFERRED],
            payloads=[kinds.encode_payload(RUN_CLASS, KIND_TRANSFERRED, data)],
            schema_versions=[kinds.payload_type(RUN_CLASS, KIND_TRANSFERRED).schema_version],
            actors=[self._order.principal.principal_id],
            request_ids=[self._order.request_id],
        )

    def step(self) -> ProjectionStep:
        """Return the step that tells the lists, once the event is appended."""
        topic = self._transferred().topic
        self._step = ProjectionStep(
            [topic], new_event_id=self._new_event_id, former_owners={topic: self._owner_before()}
        )
        return self._step

    def finish(self, call: AppendCall, appended: AppendResult) -> FinishCall:
        """Return the answer to remember."""
        facts = self._transferred()
        self._event = event = CommittedTopic(
            topic=facts.topic,
            topic_class=RUN_CLASS,
            first_seq=appended.seqs_before[0] + 1,
            kinds=call.kinds,
            payloads=call.payloads,
            schema_versions=call.schema_versions,
            chains=appended.chains,
            chain_before=appended.chains_before[0],
            committed_at_us=appended.committed_at_us,
        )
        assert self._before is not None
        run = attrs.evolve(self._before, facts=facts, head_seq=event.last_seq, head_chain=event.chains)
        ack = m.Ack(
            event_id=call.event_ids[0],
            topic=facts.topic,
            seq=event.last_seq,
            lineage=run.lineage,
            chain=event.chains,
        )
        answer = self.outcome = _answer(m.TransferRunResponse(run=run.message(), ack=ack))
        stored = StoredKey(self._order.key.fingerprint, encode_answer(answer))
        return FinishCall({self._key_id: stored}, ())

    @property
    def _key_id(self) -> KeyId:
        return self._order.key.scope, self._order.key.key

    def _owner_before(self) -> str:
        assert self._before is not None, "only a transfer that was decided is carried out"
        return self._before.facts.owner_user_id

    def _transferred(self) -> RunFacts:
        assert self._before is not None, "only a transfer that was decided is carried out"
        return attrs.evolve(self._before.facts, owner_user_id=self._order.owner_user_id)


def decide_repeat(stored: StoredKey, key: IdempotencyKey) -> Answered | Refused:
    """Return what the second request with a key is told."""
    if stored.fingerprint != key.fingerprint:
        return Refused(reason_codes.IDEMPOTENCY_CONFLICT, {})
    try:
        answer = decode_answer(stored.answer)
    except ValueError:
        return Refused(reason_codes.INTERNAL, {})
    assert isinstance(answer, Answered), "the scope of the key names this route"
    return answer


def decide_right(principal: Principal, run: RunFacts | None) -> Refused | None:
    """Return why the principal may not give the run away, None if it may.

    A run that it may not see looks as if it did not exist.
    """
    if run is None:
        return Refused(reason_codes.NOT_FOUND, {})
    ownership = Ownership(run.owner_user_id, run.org_id)
    if can_transfer(principal, ownership):
        return None
    is_seen = can_read(principal, parse_topic(run.topic), ownership)
    return Refused(reason_codes.FORBIDDEN if is_seen else reason_codes.NOT_FOUND, {})


def _answer(response: m.TransferRunResponse) -> Answered:
    return Answered(response.SerializeToString(deterministic=True))
