"""Tells the nodes what was committed: sealed copies through the fan-out driver, after the commit.

Started by app.py; fed by the appender with a synchronous call that never waits, so a slow or broken
driver delays no commit. Whatever gets lost here is found by the nodes' position checks.

Invariants:
1. Records of one topic are published in the order of their seqs among what is waiting.
2. At most ``relay_bytes_max`` bytes of copies and TOPICS_MAX topics wait (INV-7). Beyond the bytes, a
   topic's copies shrink to one pure hint; beyond the topics, news of further topics is dropped.
3. A record holds at most RECORD_ENTRIES_MAX_BYTES of entries; more travels as several records, each
   of which continues the previous one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from fanout_drivers.base import RECORD_ENTRIES_MAX_BYTES
from khala_contracts.chain import CHAIN_BYTES
from khala_contracts.codec import EntryTemplate
from khala_contracts.fanout_records import FanoutRecord
from khala_service.errors import Unavailable
from khala_service.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fanout_drivers.base import FanoutDriver
    from khala_contracts.fanout_records import RecordSigner
    from khala_contracts.topics import Lineage, TopicName
    from runtime.core.batch_commit import CommittedTopic
    from runtime.ports import AppendMetrics, Clock

__all__ = ["TOPICS_MAX", "Relay", "records_of"]

# Topics with news that wait at once. A driver that is this far behind is down.
TOPICS_MAX: Final = 10_000
_US_PER_S: Final = 1_000_000

_log = get_logger(__name__)


@attrs.define
class _News:
    """What waits for one topic: copies, or the bare range once they have been dropped.

    Invariant: ``size_bytes == sum of the payload bytes of copies``; copies ascend by first_seq.
    """

    copies: list[CommittedTopic]
    size_bytes: int
    lineage: Lineage
    seen_at_us: int
    hint: FanoutRecord | None = None


class Relay:
    """Bounded waiting room between the commits and the driver."""

    def __init__(
        self,
        driver: FanoutDriver,
        signer: RecordSigner,
        *,
        clock: Clock,
        metrics: AppendMetrics,
        bytes_max: int,
    ) -> None:
        self._driver = driver
        self._signer = signer
        self._clock = clock
        self._metrics = metrics
        self._bytes_max = bytes_max
        # In the order in which the topics got news.
        self._news: dict[TopicName, _News] = {}
        # Invariant: the sum of size_bytes over all news.
        self._waiting_bytes = 0
        self._has_news = trio.Event()

    @property
    def waiting_bytes(self) -> int:
        """Payload bytes of the copies that wait."""
        return self._waiting_bytes

    @property
    def waiting_topics(self) -> int:
        """Topics with news that wait."""
        return len(self._news)

    def offer(self, committed: Sequence[CommittedTopic], *, lineage: Lineage) -> None:
        """Take what one transaction committed to this lineage. Never waits, never fails."""
        seen_at_us = int(self._clock.now() * _US_PER_S)
        for commit in committed:
            self._add(commit, lineage, seen_at_us)
        self._has_news.set()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Publish what is offered, until cancelled. What still waits then is dropped."""
        task_status.started()
        while True:
            while not self._news:
                self._has_news = trio.Event()
                await self._has_news.wait()
            topic = next(iter(self._news))
            news = self._news.pop(topic)
            self._waiting_bytes -= news.size_bytes
            for record in self._records(news):
                try:
                    await self._driver.publish(topic, self._signer.seal(record))
                except Unavailable as error:
                    self._metrics.copies_dropped(1)
                    _log.warning("publish_failed", driver=self._driver.name, reason=error.reason)

    def _add(self, commit: CommittedTopic, lineage: Lineage, seen_at_us: int) -> None:
        news = self._news.get(commit.topic)
        if news is None:
            if len(self._news) >= TOPICS_MAX:
                self._metrics.copies_dropped(1)
                return
            news = self._news[commit.topic] = _News([], 0, lineage, seen_at_us)
        size_bytes = sum(map(len, commit.payloads))
        news.copies.append(commit)
        # Two writers may hand over the same topic's commits in the wrong order.
        if len(news.copies) > 1 and news.copies[-2].first_seq > commit.first_seq:
            news.copies.sort(key=lambda copy: copy.first_seq)
        news.size_bytes += size_bytes
        self._waiting_bytes += size_bytes
        if news.hint is not None or self._waiting_bytes > self._bytes_max:
            self._shrink(news)

    def _shrink(self, news: _News) -> None:
        """Replace the copies of a topic by the range that they cover."""
        self._metrics.copies_dropped(len(news.copies))
        for commit in news.copies:
            news.hint = self._hint(news, commit)
        self._waiting_bytes -= news.size_bytes
        news.copies.clear()
        news.size_bytes = 0

    def _hint(self, news: _News, commit: CommittedTopic) -> FanoutRecord:
        earlier = news.hint
        after = commit.chains[-CHAIN_BYTES:]
        if earlier is None:
            return FanoutRecord(
                commit.topic, news.lineage, commit.first_seq, commit.last_seq, commit.chain_before, after,
                (), news.seen_at_us,
            )  # fmt: skip
        if commit.last_seq <= earlier.last_seq:
            return earlier
        return attrs.evolve(earlier, last_seq=commit.last_seq, chain_after=after)

    def _records(self, news: _News) -> Iterator[FanoutRecord]:
        if news.hint is not None:
            yield news.hint
        yield from records_of(news.copies, lineage=news.lineage, seen_at_us=news.seen_at_us)


def records_of(
    copies: Sequence[CommittedTopic], *, lineage: Lineage, seen_at_us: int
) -> Iterator[FanoutRecord]:
    """Yield the copies of one topic as records, joining neighbours and splitting at the size limit.

    Pure. A single entry above the limit becomes a pure hint.
    """
    entries: list[bytes] = []
    size = first_seq = last_seq = 0
    chain_before = chain_after = b""

    def record() -> FanoutRecord:
        kept = tuple(entries) if size <= RECORD_ENTRIES_MAX_BYTES else ()
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
            if entries and (seq != last_seq + 1 or size + len(entry) > RECORD_ENTRIES_MAX_BYTES):
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
