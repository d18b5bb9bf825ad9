"""The rows of the runtime's database, as its migrations define them: what is committed, and nothing else.

Pure; the transactions of database_session.py are the only writers. ``TopicRow`` holds what `topic_heads`,
`events` and `journal` hold of one topic; a draft is what one transaction would add to it.

Invariants of a topic, at every moment:
    len(events) == len(entries) == head_seq, len(chains) == len(bytes_totals) == head_seq + 1
    1 <= floor_seq <= head_seq + 1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from khala.core.classification import CursorRow, HeadRights, Observation
from khala.core.pages import Page
from khala_contracts.chain import chain_next, chain_start
from khala_contracts.codec import EntryTemplate, StaleReason
from runtime.core.message_pages import PageStart
from runtime.ports import EventPage, EventRow, MessagePage, TopicRecord

if TYPE_CHECKING:
    from khala_contracts.topics import Lineage, TopicName
    from runtime.core.commands import RunFacts
    from runtime.core.journal_calls import KeyId
    from runtime.core.projections import RunSummary
    from runtime.core.run_state_machine import RunState
    from runtime.core.summary_pace import Published

__all__ = ["CheckpointRow", "KeyRow", "RunRow", "Tables", "TopicDraft", "TopicRow"]

NO_FLOOR_REASON = "none"


@attrs.define(eq=False)
class TopicRow:
    """One topic: its head, its log and its journal.

    Attributes:
        chains: ``chains[n]`` is the chain at seq n; 0 is the start.
        bytes_totals: Likewise the running bytes of the entries.
        lost: Retained rows of the journal that are gone, against its contract.
    """

    topic: TopicName
    topic_class: str
    owner_user_id: str | None
    org_id: str | None
    floor_seq: int = 1
    floor_reason: str = NO_FLOOR_REASON
    events: list[EventRow] = attrs.field(factory=list)
    entries: list[bytes] = attrs.field(factory=list)
    chains: list[bytes] = attrs.field(factory=list)
    bytes_totals: list[int] = attrs.field(factory=lambda: [0])
    compaction_keys: list[str | None] = attrs.field(factory=list)
    lost: dict[int, None] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        """Begin with the chain of an empty topic."""
        if not self.chains:
            self.chains.append(chain_start(self.topic))

    @property
    def head_seq(self) -> int:
        """Newest committed event."""
        return len(self.events)

    def copy(self) -> TopicRow:
        """Return the row as it is now, whatever is written later."""
        return attrs.evolve(
            self,
            events=list(self.events),
            entries=list(self.entries),
            chains=list(self.chains),
            bytes_totals=list(self.bytes_totals),
            compaction_keys=list(self.compaction_keys),
            lost=dict(self.lost),
        )

    def record(self, lineage: Lineage) -> TopicRecord:
        """Return the head row as the runtime reads it."""
        before_floor = self.floor_seq - 1
        return TopicRecord(
            topic=self.topic,
            topic_class=self.topic_class,
            lineage=lineage,
            head_seq=self.head_seq,
            head_chain=self.chains[-1],
            head_bytes_total=self.bytes_totals[-1],
            floor_seq=self.floor_seq,
            floor_chain=self.chains[before_floor],
            floor_bytes_total=self.bytes_totals[before_floor],
            floor_reason=self.floor_reason,
            owner_user_id=self.owner_user_id,
            org_id=self.org_id,
        )

    def observation(self, lineage: str) -> Observation:
        """Return the head row as nodes read it."""
        before_floor = self.floor_seq - 1
        is_whole = self.floor_reason == NO_FLOOR_REASON
        return Observation(
            topic=self.topic,
            lineage=lineage,
            exists=True,
            head_seq=self.head_seq,
            head_chain=self.chains[-1],
            head_bytes_total=self.bytes_totals[-1],
            floor_seq=self.floor_seq,
            floor_chain=self.chains[before_floor],
            floor_bytes_total=self.bytes_totals[before_floor],
            floor_reason=StaleReason.RETENTION_EXPIRED if is_whole else StaleReason(self.floor_reason),
            rights=HeadRights(self.owner_user_id, self.org_id),
        )

    def cursor_row(self, seq: int) -> CursorRow | None:
        """Return the journal's row at a seq; rows below the floor have been deleted."""
        if not max(1, self.floor_seq) <= seq <= self.head_seq or seq in self.lost:
            return None
        return CursorRow(self.chains[seq], self.bytes_totals[seq])

    def journal_chain(self, seq: int) -> bytes:
        """Return the chain of the journal's row at a seq, b"" if there is none."""
        row = self.cursor_row(seq)
        return b"" if row is None else row.chain

    def event_page(self, lineage: Lineage, after_seq: int, limit: int, max_bytes: int) -> EventPage:
        """Return a page of the log; see JournalStore.read_events."""
        page: list[EventRow] = []
        size = 0
        for event in self.events[after_seq : after_seq + limit]:
            size += len(event.payload)
            if page and size > max_bytes:
                break
            page.append(event)
        is_at_floor = after_seq in (0, self.floor_seq - 1)
        before = self.chains[after_seq] if is_at_floor else self.journal_chain(after_seq)
        last = self.journal_chain(page[-1].seq) if page else before
        return EventPage(self.record(lineage), tuple(page), before, last)

    def message_page(self, lineage: Lineage, after_seq: int, limit: int, max_bytes: int) -> MessagePage:
        """Return a page of the journal; see JournalStore.read_messages."""
        entries, first = self._retained(max(after_seq, self.floor_seq - 1), limit, max_bytes)
        last_seq = first + len(entries) if entries else after_seq
        head = self.record(lineage)
        start = PageStart(
            self.topic, lineage, head.head_seq, head.floor_seq, head.floor_chain, head.floor_reason,
            self.journal_chain(after_seq),
        )  # fmt: skip
        return MessagePage(
            head, start, b"".join(entries), last_seq, self.chains[last_seq] if entries else b""
        )

    def page(self, lineage: str, after_seq: int, limit: int, max_bytes: int) -> Page | None:
        """Return a page as nodes read it; None if a retained row is missing, which is trouble."""
        entries: list[bytes] = []
        if after_seq + 1 >= self.floor_seq:
            entries, _ = self._retained(after_seq, limit, max_bytes)
        last_seq = after_seq + len(entries)
        if self.lost and any(seq in self.lost for seq in range(after_seq + 1, last_seq + 1)):
            return None
        return Page.from_sizes(
            after_seq,
            b"".join(entries),
            [len(entry) for entry in entries],
            last_chain=self.chains[last_seq] if entries else b"",
            observation=self.observation(lineage),
        )

    def _retained(self, after_seq: int, limit: int, max_bytes: int) -> tuple[list[bytes], int]:
        """Return at least one entry after a position, then as many as fit; and that position."""
        found = self.entries[after_seq : after_seq + limit]
        size = 0
        for count, entry in enumerate(found):
            size += len(entry)
            if count and size > max_bytes:
                return found[:count], after_seq
        return found, after_seq


@attrs.define(eq=False)
class TopicDraft:
    """What one transaction adds to a topic; the transaction holds the head's lock."""

    topic: TopicName
    topic_class: str
    owner_user_id: str | None
    org_id: str | None
    head_seq: int
    head_chain: bytes
    bytes_total: int
    events: list[EventRow] = attrs.field(factory=list)
    entries: list[bytes] = attrs.field(factory=list)
    chains: list[bytes] = attrs.field(factory=list)
    bytes_totals: list[int] = attrs.field(factory=list)
    compaction_keys: list[str | None] = attrs.field(factory=list)

    def add(self, event: EventRow, compaction_key: str | None, template: EntryTemplate) -> bytes:
        """Add one event, whose seq is the next; return its chain."""
        assert event.seq == self.head_seq + 1, "seq is allocated under the head's lock"
        entry = template.entry(event.seq, event.kind, event.payload, event.schema_version)
        self.head_seq = event.seq
        self.head_chain = chain_next(
            self.head_chain, event.seq, event.schema_version, event.kind, event.payload
        )
        self.bytes_total += len(entry)
        self.events.append(event)
        self.entries.append(entry)
        self.chains.append(self.head_chain)
        self.bytes_totals.append(self.bytes_total)
        self.compaction_keys.append(compaction_key)
        return self.head_chain


@attrs.define(eq=False)
class RunRow:
    """A row of `runs`."""

    facts: RunFacts
    state: RunState
    created_at_us: int
    finished_at_us: int | None = None


@attrs.frozen
class KeyRow:
    """A row of `idempotency_keys`."""

    fingerprint: bytes
    answer: bytes
    expires_at_us: int


@attrs.frozen
class CheckpointRow:
    """A row of `projector_checkpoints`."""

    applied_seq: int = 0
    published: Published | None = None


@attrs.define(eq=False)
class Tables:
    """Everything committed."""

    generation: int = 0
    lineage: Lineage | None = None
    topics: dict[TopicName, TopicRow] = attrs.field(factory=dict)
    runs: dict[str, RunRow] = attrs.field(factory=dict)
    # By (owner, name): the index `runs_name_unique_per_owner`.
    names: dict[tuple[str, str], str] = attrs.field(factory=dict)
    keys: dict[KeyId, KeyRow] = attrs.field(factory=dict)
    checkpoints: dict[TopicName, CheckpointRow] = attrs.field(factory=dict)
    summaries: dict[str, RunSummary] = attrs.field(factory=dict)

    def copy(self) -> Tables:
        """Return everything as it is now, whatever is written later."""
        return Tables(
            self.generation,
            self.lineage,
            {name: row.copy() for name, row in self.topics.items()},
            {run_id: attrs.evolve(row) for run_id, row in self.runs.items()},
            dict(self.names),
            dict(self.keys),
            dict(self.checkpoints),
            dict(self.summaries),
        )
