"""Commits as records for the nodes: copies joined and split at the size limit, and the bare news of a range.

Pure. A record holds at most ``entries_max_bytes`` of entries, the driver's bound; more travels as several
records, each of which continues the previous one. A hint has no entries: it says only that a topic has
reached ``last_seq``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from fanout_drivers.base import RECORD_ENTRIES_MAX_BYTES
from khala_contracts.chain import CHAIN_BYTES, chain_start
from khala_contracts.codec import EntryTemplate
from khala_contracts.fanout_records import FanoutRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from khala_contracts.topics import Lineage, TopicName
    from runtime.core.batch_commit import CommittedTopic

__all__ = ["TopicNews", "hint_of_commit", "hint_of_head", "join_hints", "records_of"]


@attrs.define
class TopicNews:
    """What waits for one topic: copies, or the bare range once they have been dropped.

    Invariant: ``size_bytes == sum of the payload bytes of copies``; copies ascend by first_seq.

    Attributes:
        seen_at_us: When the first of it was committed: Unix microseconds, for the nodes' figures.
        seen_at: The same as monotonic seconds, for our own.
    """

    lineage: Lineage
    seen_at_us: int
    seen_at: float
    copies: list[CommittedTopic] = attrs.field(factory=list)
    size_bytes: int = 0
    hint: FanoutRecord | None = None

    def records(self, *, entries_max_bytes: int = RECORD_ENTRIES_MAX_BYTES) -> Iterator[FanoutRecord]:
        """Yield what is to be published, in order."""
        if self.hint is not None:
            yield self.hint
        yield from records_of(
            self.copies,
            lineage=self.lineage,
            seen_at_us=self.seen_at_us,
            entries_max_bytes=entries_max_bytes,
        )

    def shrink(self) -> None:
        """Replace the copies by the range that they cover."""
        for commit in self.copies:
            hint = hint_of_commit(commit, lineage=self.lineage, seen_at_us=self.seen_at_us)
            self.hint = join_hints(self.hint, hint)
        self.copies.clear()
        self.size_bytes = 0


def records_of(
    copies: Sequence[CommittedTopic],
    *,
    lineage: Lineage,
    seen_at_us: int,
    entries_max_bytes: int = RECORD_ENTRIES_MAX_BYTES,
) -> Iterator[FanoutRecord]:
    """Yield the copies of one topic as records, joining neighbours and splitting at the size limit.

    Pure. A single entry above the limit becomes a pure hint.
    """
    entries: list[bytes] = []
    size = first_seq = last_seq = 0
    chain_before = chain_after = b""

    def record() -> FanoutRecord:
        kept = tuple(entries) if size <= entries_max_bytes else ()
        return FanoutRecord(
            copies[0].topic, lineage, first_seq, last_seq, chain_before, chain_after, kept, seen_at_us
        )

    for copy in copies:
        template = EntryTemplate(copy.topic)
        previous = copy.chain_before
        columns = zip(copy.kinds, copy.payloads, copy.schema_versions, strict=True)
        for index, (kind, payload, version) in enumerate(columns):
            seq = copy.first_seq + index
            entry = template.entry(seq, kind, payload, version)
            if entries and (seq != last_seq + 1 or size + len(entry) > entries_max_bytes):
                yield record()
                entries.clear()
            if not entries:
                size, first_seq, chain_before = 0, seq, previous
            entries.append(entry)
            size += len(entry)
            last_seq = seq
            start = index * CHAIN_BYTES
            previous = chain_after = copy.chains[start : start + CHAIN_BYTES]
    if entries:
        yield record()


def hint_of_commit(commit: CommittedTopic, *, lineage: Lineage, seen_at_us: int) -> FanoutRecord:
    """Return the range of one commit without its entries."""
    return FanoutRecord(
        commit.topic, lineage, commit.first_seq, commit.last_seq, commit.chain_before,
        commit.chains[-CHAIN_BYTES:], (), seen_at_us,
    )  # fmt: skip


def hint_of_head(
    topic: TopicName, *, lineage: Lineage, head_seq: int, head_chain: bytes, seen_at_us: int
) -> FanoutRecord:
    """Return the news that a topic has reached its head, for whoever does not know what was added."""
    return FanoutRecord(topic, lineage, 1, head_seq, chain_start(topic), head_chain, (), seen_at_us)


def join_hints(earlier: FanoutRecord | None, later: FanoutRecord) -> FanoutRecord:
    """Return one hint for the whole range of both, in whatever order they came, seen with the first."""
    if earlier is None:
        return later
    lower = min(earlier, later, key=lambda hint: hint.first_seq)
    upper = max(earlier, later, key=lambda hint: hint.last_seq)
    return attrs.evolve(
        earlier,
        first_seq=lower.first_seq,
        chain_before=lower.chain_before,
        last_seq=upper.last_seq,
        chain_after=upper.chain_after,
    )
