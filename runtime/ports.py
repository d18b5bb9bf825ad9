"""The seams of the runtime: what the actors and the HTTP adapter need from outside.

Each port has an adapter under `runtime.adapters` and a fake under `tests`; JournalStore has one suite
that both pass (tests/integration/runtime/journal_store_suite.py). Operating errors are those of
`khala_service.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from khala_contracts.topics import Lineage, TopicName
    from runtime.core.batch_commit import BatchCommit, CommittedTopic
    from runtime.core.commands import RunFacts
    from runtime.core.journal_calls import StoredKey
    from runtime.core.message_pages import PageStart
    from runtime.core.principals import Principal
    from runtime.core.projection_step import ProjectionStep, SourcePage, SourceRead
    from runtime.core.projections import RunSummary
    from runtime.core.run_state_machine import RunState
    from runtime.core.run_transfer import RunTransfer

__all__ = [
    "PROJECTION_FAILURES",
    "AppendMetrics",
    "Authority",
    "Clock",
    "CommitListener",
    "EventPage",
    "EventRow",
    "Ids",
    "JournalStore",
    "JournalWriter",
    "MembershipDirectory",
    "MessagePage",
    "PrincipalResolver",
    "ProjectionMetrics",
    "ProjectionStore",
    "RelayMetrics",
    "RunRecord",
    "SourcePosition",
    "StoredSummary",
    "Superseded",
    "TopicRecord",
    "TransferStore",
]


class Superseded(Exception):
    """Another runtime has taken over the generation; this one must not write again."""


class Clock(Protocol):
    """Wall time."""

    def now(self) -> float:
        """Return Unix time in seconds."""


class Ids(Protocol):
    """Identifiers made by the server."""

    def new(self, prefix: str) -> str:
        """Return a new identifier with a registered prefix."""


@attrs.frozen
class Authority:
    """What makes this process the writer: its generation, and the lineage it writes."""

    generation: int
    lineage: Lineage


@attrs.frozen
class TopicRecord:
    """A head row, and the lineage that was current when it was read."""

    topic: TopicName
    topic_class: str
    lineage: Lineage
    head_seq: int
    head_chain: bytes
    head_bytes_total: int
    floor_seq: int
    floor_chain: bytes
    floor_bytes_total: int
    floor_reason: str
    owner_user_id: str | None
    org_id: str | None


@attrs.frozen
class RunRecord:
    """A run with the position of its topic, read in one statement."""

    facts: RunFacts
    state: RunState
    created_at_us: int
    finished_at_us: int | None
    lineage: Lineage
    head_seq: int
    head_chain: bytes


@attrs.frozen
class EventRow:
    """One row of the event log."""

    event_id: str
    seq: int
    kind: str
    payload: bytes = attrs.field(repr=False)
    schema_version: int
    actor: str
    request_id: str
    committed_at_us: int


@attrs.frozen
class EventPage:
    """Committed events after a position, ascending, without a hole.

    Attributes:
        chain_before: Chain at the position after which the page starts; b"" if the journal no
            longer has it.
        last_chain: Chain at the last event of the page (at the start, if the page is empty).
    """

    topic: TopicRecord
    events: tuple[EventRow, ...]
    chain_before: bytes
    last_chain: bytes


@attrs.frozen
class MessagePage:
    """Retained frames after a position as nodes replay them, with the observation of the same moment.

    Attributes:
        start: The same observation, as the rules of staleness see it.
        entries: The encoded frames, joined; b"" if there is none.
        last_seq: Position of the last of them; the start if there is none.
        last_chain: Chain at ``last_seq``; b"" if there is no frame.
    """

    topic: TopicRecord
    start: PageStart
    entries: bytes = attrs.field(repr=False)
    last_seq: int
    last_chain: bytes


@attrs.frozen
class SourcePosition:
    """A source topic of a projector, and how much of it is applied."""

    topic: TopicName
    head_seq: int
    applied_seq: int


@attrs.frozen
class StoredSummary:
    """A source topic with its checkpoint and its row of the read model, None if there is none."""

    topic: TopicName
    owner_user_id: str
    org_id: str | None
    head_seq: int
    checkpoint_seq: int
    summary: RunSummary | None


class JournalWriter(Protocol):
    """One connection of the authority; used by one task."""

    async def commit_batch(self, batch: BatchCommit) -> None:
        """Carry out one batch in one transaction: lock, decide, append, finish, commit.

        Returns without an effect on the database if the batch has nothing to write.

        Raises:
            Superseded: The generation is no longer ours. Nothing was written.
            Unavailable: ``outcome_unknown`` iff the connection broke during COMMIT; otherwise
                nothing was written.
            SerializationTrouble: Nothing was written; run the whole batch again.
            DatabaseError: The content was refused; nothing was written.
        Cancellation: rolls back, or waits for the answer to COMMIT.
        """


class JournalStore(Protocol):
    """The runtime's database."""

    async def take_authority(self, *, holder: str, lineage_candidate: str) -> Authority:
        """Become the writer: take the next generation and settle the lineage.

        Waits for transactions of the previous writer; none of them commits afterwards.

        Args:
            holder: Name of this process, for people.
            lineage_candidate: Id of a new lineage, used only if one is needed.
        """

    def open_writer(self, generation: int) -> AbstractAsyncContextManager[JournalWriter]:
        """Open a writer that commits under this generation only.

        Raises:
            Unavailable: no connection.
        """

    async def read_generation(self) -> int:
        """Return the current generation."""

    async def read_key(self, scope: str, key: str) -> StoredKey | None:
        """Return what was answered under a key, None if it is new or has expired."""

    async def read_run(self, run_id: str) -> RunRecord | None:
        """Return a run, None if there is none."""

    async def list_runs(
        self, *, user_id: str, org_ids: Sequence[str], before_run_id: str | None, limit: int
    ) -> list[RunRecord]:
        """Return runs that the user owns or that belong to the orgs, newest first.

        Args:
            user_id: Owner.
            org_ids: Orgs whose runs are listed too.
            before_run_id: Position in the list: only runs after it; None from the newest.
            limit: Most runs returned.
        """

    async def read_topic(self, topic: TopicName) -> TopicRecord | None:
        """Return a topic's head row, None if nothing was ever written to it."""

    async def read_topics(self, topics: Iterable[TopicName]) -> Mapping[TopicName, TopicRecord]:
        """Return the head rows of those topics that have one."""

    async def read_events(
        self, topic: TopicName, *, after_seq: int, limit: int, max_bytes: int
    ) -> EventPage | None:
        """Return a page of the log, None if nothing was ever written to the topic.

        Args:
            topic: The topic.
            after_seq: Position after which the page starts; 0 from the beginning.
            limit: Most events.
            max_bytes: Most payload bytes; the first event is returned whatever its size.
        """

    async def read_messages(
        self, topic: TopicName, *, after_seq: int, limit: int, max_bytes: int
    ) -> MessagePage | None:
        """Return a page of the journal, None if nothing was ever written to the topic.

        Frames below the floor are never returned. Arguments: as `read_events`; bytes are encoded ones.
        """

    async def delete_expired_keys(self, limit: int) -> int:
        """Delete at most ``limit`` expired idempotency keys and return how many there were."""

    async def check(self) -> str | None:
        """Return None if the database answers and has the revision of this build, else a word why.

        Raises:
            Unavailable: it does not answer.
        """


class ProjectionStore(Protocol):
    """What projectors read and write."""

    async def run_step(self, step: ProjectionStep, *, generation: int) -> None:
        """Carry out one step in one transaction: lock, read, fold, append, write checkpoints, commit.

        Raises:
            Superseded: The generation is no longer ours. Nothing was written.
            Unavailable: ``outcome_unknown`` iff the connection broke during COMMIT. A step may be
                run again in any case: its checkpoints say whether it was committed.
            SerializationTrouble, DatabaseError: Nothing was written.
            ProjectionFailed: An event cannot be applied. Nothing was written.
        Cancellation: rolls back, or waits for the answer to COMMIT.
        """

    async def read_sources(self, reads: Sequence[SourceRead]) -> list[SourcePage]:
        """Return a page of each source that has an event there, in any order."""

    async def find_behind(self, *, after_topic: str, limit: int) -> list[SourcePosition]:
        """Return sources after a topic whose events are not all applied, or not all told about."""

    async def list_summaries(self, *, after_topic: str, limit: int) -> list[StoredSummary]:
        """Return sources after a topic, ascending, with their rows of the read model."""


class TransferStore(Protocol):
    """What transfers of runs write."""

    async def run_transfer(self, transfer: RunTransfer, *, generation: int) -> None:
        """Carry out one transfer in one transaction: lock, decide, change the owner, append, tell, commit.

        Returns without an effect on the database if the transfer decides so; its outcome is set either way.

        Raises:
            Superseded: The generation is no longer ours. Nothing was written.
            Unavailable: ``outcome_unknown`` iff the connection broke during COMMIT.
            SerializationTrouble, DatabaseError: Nothing was written.
            ProjectionFailed: The run's events cannot be folded. Nothing was written.
        Cancellation: rolls back, or waits for the answer to COMMIT.
        """


class MembershipDirectory(Protocol):
    """Knows who belongs to an org."""

    async def is_member(self, org_id: str, user_id: str) -> bool:
        """Return whether the user is a member of the org now.

        Raises:
            Unavailable: control does not answer.
        """


class PrincipalResolver(Protocol):
    """Knows who the bearer of a credential is."""

    async def resolve(self, credential: str) -> Principal | None:
        """Return the principal, None if the credential is not valid (any more).

        The answer is at most one second old.

        Raises:
            Unavailable: control does not answer.
        """


class RelayMetrics(Protocol):
    """What the relay reports."""

    def copies_dropped(self, count: int) -> None:
        """Count copies that the relay replaced by a hint or lost."""

    def published(self, *, is_copy: bool, duration_s: float) -> None:
        """Count one record that the driver took."""

    def publish_failed(self, reason: str) -> None:
        """Count one record that the driver did not take: ``timeout`` or ``unavailable``."""

    def poisoned(self) -> None:
        """Count one attempt that failed because of the news of one topic."""


class AppendMetrics(Protocol):
    """What commands and the appender report."""

    def committed(self, *, requests: int, events: int, duplicates: int, duration_s: float) -> None:
        """Count one committed batch."""

    def refused(self, reason: str) -> None:
        """Count one refused request by reason code."""

    def retried(self, reason: str) -> None:
        """Count one batch that had to be run again."""

    def task_restarted(self, kind: str) -> None:
        """Count one task that crashed and is started again, by kind of task."""


class CommitListener(Protocol):
    """Hears what was committed, right after the commit."""

    def offer(self, committed: Sequence[CommittedTopic], *, lineage: Lineage) -> None:
        """Take what one transaction committed to this lineage. Never waits, never fails."""


# Why a step of a projector was not committed.
PROJECTION_FAILURES: Final = ("database", "locked", "poison", "crash", "sweep")


class ProjectionMetrics(Protocol):
    """What projectors report."""

    def applied(self, *, events: int, summaries: int, duration_s: float) -> None:
        """Count one committed step: events applied, summary frames written."""

    def failed(self, reason: str) -> None:
        """Count one step that was not committed; the reason is one of PROJECTION_FAILURES."""
