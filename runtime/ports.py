"""The seams of the runtime: what the actors and the HTTP adapter need from outside.

Each port has an adapter under `runtime.adapters` and a fake under `tests`; JournalStore has one suite
that both pass (tests/integration/runtime/journal_store_suite.py). Operating errors are those of
`khala_service.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from khala_contracts.topics import Lineage, TopicName
    from runtime.core.batch_commit import BatchCommit
    from runtime.core.commands import RunFacts
    from runtime.core.journal_calls import StoredKey
    from runtime.core.principals import Principal
    from runtime.core.run_state_machine import RunState

__all__ = [
    "AppendMetrics",
    "Authority",
    "Clock",
    "EventPage",
    "EventRow",
    "Ids",
    "JournalStore",
    "JournalWriter",
    "PrincipalResolver",
    "RunRecord",
    "Superseded",
    "TopicRecord",
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

    async def delete_expired_keys(self, limit: int) -> int:
        """Delete at most ``limit`` expired idempotency keys and return how many there were."""

    async def check(self) -> str | None:
        """Return None if the database answers and has the revision of this build, else a word why.

        Raises:
            Unavailable: it does not answer.
        """


class PrincipalResolver(Protocol):
    """Knows who the bearer of a credential is."""

    async def resolve(self, credential: str) -> Principal | None:
        """Return the principal, None if the credential is not valid (any more).

        The answer is at most one second old.

        Raises:
            Unavailable: control does not answer.
        """


class AppendMetrics(Protocol):
    """What commands, the appender and the relay report."""

    def committed(self, *, requests: int, events: int, duplicates: int, duration_s: float) -> None:
        """Count one committed batch."""

    def refused(self, reason: str) -> None:
        """Count one refused request by reason code."""

    def retried(self, reason: str) -> None:
        """Count one batch that had to be run again."""

    def copies_dropped(self, count: int) -> None:
        """Count copies that the relay replaced by a hint."""
