"""One batch on its way through a transaction: what to lock, what to append, what to remember.

Pure: `JournalStore.commit_batch` calls `decide` with the locked state and `finish` with what
append_v1 returned, both between its database calls and both synchronous. An instance serves one
attempt; a batch that is tried again gets a new one, so nothing of a failed attempt can leak.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from khala_contracts.chain import CHAIN_BYTES
from runtime.core.commands import AppendEvents, CreateRun, TransitionRun
from runtime.core.decisions import Accepted, Duplicate, Joined, NotDecided, decide_requests, target_of
from runtime.core.journal_calls import AppendCall, FinishCall, LockCall, NewRun, RunUpdate, StoredKey
from runtime.core.outcomes import Answered, Appended, AppendedPart, Refused, Skipped, encode_answer
from runtime.core.responses import create_response, transition_response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khala_contracts.topics import Lineage, TopicName
    from runtime.core.commands import IdempotencyKey, Request, Submission, TopicEvents, TopicTarget
    from runtime.core.decisions import Decision
    from runtime.core.journal_calls import AppendResult, KeyId, Locked
    from runtime.core.outcomes import Answer, Outcome
    from runtime.core.rate_limit import RateLimiter

__all__ = ["BatchCommit", "CommittedTopic"]


@attrs.frozen
class CommittedTopic:
    """What one transaction added to one topic, for those who follow it live.

    Attributes:
        chains: The 32-byte chain of each event, joined.
        chain_before: Chain at ``first_seq - 1``.
    """

    topic: TopicName
    topic_class: str
    first_seq: int
    kinds: Sequence[str]
    payloads: Sequence[bytes] = attrs.field(repr=False)
    schema_versions: Sequence[int]
    chains: bytes = attrs.field(repr=False)
    chain_before: bytes
    committed_at_us: int

    @property
    def last_seq(self) -> int:
        """Position of the last event."""
        return self.first_seq + len(self.kinds) - 1


@attrs.define
class _TopicColumns:
    """The events of one topic, collected from all requests of the batch."""

    target: TopicTarget
    event_ids: list[str] = attrs.field(factory=list)
    kinds: list[str] = attrs.field(factory=list)
    payloads: list[bytes] = attrs.field(factory=list)
    schema_versions: list[int] = attrs.field(factory=list)
    actors: list[str] = attrs.field(factory=list)
    request_ids: list[str] = attrs.field(factory=list)
    # Known after the append.
    seq_before: int = 0
    chains: bytes = b""


class BatchCommit:
    """The pure half of one transaction."""

    def __init__(
        self, submissions: Sequence[Submission], *, limiter: RateLimiter, now: float, lineage: Lineage
    ) -> None:
        self._submissions = submissions
        self._requests: list[Request] = [r for submission in submissions for r in submission.requests]
        self._limiter = limiter
        self._now = now
        self._lineage = lineage
        self._locked_at_us = 0
        self._decisions: list[Decision] = []
        self._topics: dict[TopicName, _TopicColumns] = {}
        # Per accepted request: (topic, offset among the topic's events in this batch, count).
        self._places: dict[int, list[tuple[TopicName, int, int]]] = {}
        self._answers: dict[int, Answer] = {}
        self.lock_call = _lock_call(self._requests)
        self.committed: list[CommittedTopic] = []

    @property
    def duplicate_count(self) -> int:
        """How many requests were answered from an earlier one."""
        return sum(isinstance(decision, Duplicate | Joined) for decision in self._decisions)

    def decide(self, locked: Locked) -> AppendCall | None:
        """Return what to append; None: nothing is to be written, roll back."""
        self._locked_at_us = locked.locked_at_us
        self._decisions = decide_requests(self._submissions, locked, limiter=self._limiter, now=self._now)
        for index, (request, decision) in enumerate(zip(self._requests, self._decisions, strict=True)):
            if isinstance(decision, Accepted):
                self._places[index] = [self._collect(request, part) for part in decision.parts]
        if not self._topics:
            return None
        columns = list(self._topics.values())
        return AppendCall(
            targets=tuple(topic.target for topic in columns),
            event_counts=[len(topic.event_ids) for topic in columns],
            event_ids=[item for topic in columns for item in topic.event_ids],
            kinds=[item for topic in columns for item in topic.kinds],
            payloads=[item for topic in columns for item in topic.payloads],
            schema_versions=[item for topic in columns for item in topic.schema_versions],
            actors=[item for topic in columns for item in topic.actors],
            request_ids=[item for topic in columns for item in topic.request_ids],
        )

    def finish(self, appended: AppendResult) -> FinishCall:
        """Return the answers to remember and the new states of runs."""
        self._place_topics(appended)
        answers: dict[KeyId, StoredKey | None] = {}
        updates: dict[str, RunUpdate] = {}
        for index, (request, decision) in enumerate(zip(self._requests, self._decisions, strict=True)):
            key_id = request.key.scope, request.key.key
            if isinstance(decision, Accepted):
                answer = self._answer(index, request, appended.committed_at_us, updates)
                self._answers[index] = answer
                answers[key_id] = StoredKey(request.key.fingerprint, encode_answer(answer))
            elif isinstance(decision, Refused | NotDecided):
                answers.setdefault(key_id, None)
        return FinishCall(answers, tuple(updates.values()))

    def outcomes(self) -> list[list[Outcome]]:
        """Return the outcomes of each submission; call after the commit, or after nothing to write."""
        flat: list[Outcome] = []
        for index, decision in enumerate(self._decisions):
            match decision:
                case Accepted():
                    flat.append(self._answers[index])
                case Duplicate(answer=answer):
                    flat.append(answer)
                case Joined(index=first):
                    flat.append(flat[first])
                case Refused():
                    flat.append(decision)
                case NotDecided():
                    flat.append(Skipped())
        grouped: list[list[Outcome]] = []
        start = 0
        for submission in self._submissions:
            grouped.append(flat[start : start + len(submission.requests)])
            start += len(submission.requests)
        return grouped

    def take_tokens(self) -> None:
        """Take the tokens of what was committed; transitions and new runs are exempt."""
        for request, decision in zip(self._requests, self._decisions, strict=True):
            if isinstance(request.command, AppendEvents) and isinstance(decision, Accepted):
                for part in decision.parts:
                    target = part.target
                    self._limiter.take(target.topic, target.topic_class, len(part.events), now=self._now)

    def _collect(self, request: Request, part: TopicEvents) -> tuple[TopicName, int, int]:
        """Add the part's events to its topic's columns and return their place there."""
        topic = self._topics.get(part.target.topic)
        if topic is None:
            topic = self._topics[part.target.topic] = _TopicColumns(part.target)
        place = part.target.topic, len(topic.event_ids), len(part.events)
        topic.event_ids += part.events.event_ids
        topic.kinds += part.events.kinds
        topic.payloads += part.events.payloads
        topic.schema_versions += part.events.schema_versions
        topic.actors += [request.actor] * len(part.events)
        topic.request_ids += [request.request_id] * len(part.events)
        return place

    def _place_topics(self, appended: AppendResult) -> None:
        start = 0
        for ordinal, (name, topic) in enumerate(self._topics.items()):
            end = start + len(topic.event_ids) * CHAIN_BYTES
            topic.seq_before = appended.seqs_before[ordinal]
            topic.chains = appended.chains[start:end]
            start = end
            self.committed.append(
                CommittedTopic(
                    topic=name,
                    topic_class=topic.target.topic_class,
                    first_seq=topic.seq_before + 1,
                    kinds=topic.kinds,
                    payloads=topic.payloads,
                    schema_versions=topic.schema_versions,
                    chains=topic.chains,
                    chain_before=appended.chains_before[ordinal],
                    committed_at_us=appended.committed_at_us,
                )
            )

    def _placed(self, index: int) -> tuple[AppendedPart, ...]:
        parts: list[AppendedPart] = []
        for name, offset, count in self._places[index]:
            topic = self._topics[name]
            chains = topic.chains[offset * CHAIN_BYTES : (offset + count) * CHAIN_BYTES]
            event_ids = tuple(topic.event_ids[offset : offset + count])
            first_seq = topic.seq_before + offset + 1
            parts.append(AppendedPart(name, self._lineage, first_seq, event_ids, chains))
        return tuple(parts)

    def _answer(
        self, index: int, request: Request, committed_at_us: int, updates: dict[str, RunUpdate]
    ) -> Answer:
        parts = self._placed(index)
        match request.command:
            case AppendEvents():
                return Appended(parts)
            case CreateRun(facts=facts):
                message = create_response(facts, created_at_us=self._locked_at_us, part=parts[0])
                return Answered(message)
            case TransitionRun() as command:
                state, run_id = command.to_state, command.facts.run_id
                finished_at_us = committed_at_us if state.is_terminal else None
                # Several transitions of one run in a batch: the last accepted one stays.
                updates[run_id] = RunUpdate(run_id, state, finished_at_us)
                message = transition_response(
                    command.facts,
                    state,
                    created_at_us=command.created_at_us,
                    finished_at_us=finished_at_us,
                    part=parts[0],
                )
                return Answered(message)


def _lock_call(requests: Sequence[Request]) -> LockCall:
    keys: dict[KeyId, IdempotencyKey] = {}
    runs: dict[str, None] = {}
    new_runs: list[NewRun] = []
    targets: dict[TopicName, TopicTarget] = {}
    for request in requests:
        key_id = request.key.scope, request.key.key
        is_first_use = key_id not in keys
        keys.setdefault(key_id, request.key)
        match request.command:
            case AppendEvents(parts=parts):
                for part in parts:
                    targets[part.target.topic] = part.target
                    if part.target.run_id is not None:
                        runs[part.target.run_id] = None
            case CreateRun() as create:
                # A second use of the key joins the first; its run is never made.
                if is_first_use:
                    new_runs.append(NewRun(key_id, create))
            case TransitionRun(facts=facts):
                targets[facts.topic] = target_of(facts)
                runs[facts.run_id] = None
    return LockCall(keys, tuple(runs), tuple(new_runs), tuple(targets.values()))
