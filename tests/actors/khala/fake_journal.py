"""The journal of the authority, in memory, and able to do harm.

Serves ``TopicLog``s. Every read sees its snapshot when it is called, as a statement does, and answers
later: after ``delay_s``, or when a held gate opens; so a slow answer is an old one. It can be down, fail a
number of reads, or show less than was committed.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs
import trio

from khala.core.classification import Observation
from khala.core.pages import Page
from khala.ports import JournalUnavailableError, ObservedTopic
from tests.topic_log import LINEAGE, TopicLog

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from khala_contracts.topics import ParsedTopic, TopicName


@attrs.define(eq=False)
class FakeJournal:
    """A JournalReader over logs that the test writes."""

    logs: dict[TopicName, TopicLog] = attrs.field(factory=dict)
    lineage: str = LINEAGE
    page_max_frames: int = 2_000
    page_max_bytes: int = 512 * 1024
    delay_s: float = 0.0
    is_down: bool = False
    # How many of the next reads of each kind fail: observe, read_heads, read_page.
    failures: Counter[str] = attrs.field(factory=Counter)
    retry_after_s: float = 1.0
    # Head that readers see at most, per topic: committed, and not visible yet.
    visible: dict[TopicName, int] = attrs.field(factory=dict)
    reads: Counter[str] = attrs.field(factory=Counter)
    pages_asked: list[tuple[TopicName, int]] = attrs.field(factory=list)
    # Retained rows that are gone, against the contract of the journal.
    lost_rows: set[tuple[TopicName, int]] = attrs.field(factory=set)
    # Reads in flight now, and the most that there have been at once.
    in_flight: int = 0
    in_flight_max: int = 0
    _gates: dict[str, trio.Event] = attrs.field(factory=dict)

    @classmethod
    def of(cls, logs: Iterable[TopicLog]) -> FakeJournal:
        """Serve these logs."""
        return cls({log.topic.name: log for log in logs})

    # -- harm ------------------------------------------------------------------------------------

    def hold(self, kind: str) -> None:
        """Let reads of this kind see what they see now, and answer only after ``open_gate``."""
        self._gates[kind] = trio.Event()

    def open_gate(self, kind: str) -> None:
        """Let held reads answer, and later ones at once."""
        self._gates.pop(kind).set()

    def restore(self, log: TopicLog, head_seq: int, *, lineage: str | None = None) -> TopicLog:
        """Put an older copy in the place of a log: the rest never happened.

        Returns:
            The log of the new history, to append to.
        """
        forked = log.copy()
        forked.cut(head_seq)
        if lineage is not None:
            self.lineage = forked.lineage = lineage
        self.logs[log.topic.name] = forked
        return forked

    # -- JournalReader -------------------------------------------------------------------------------

    async def observe(self, asked: Sequence[tuple[TopicName, int]]) -> list[ObservedTopic]:
        """Return each topic and its row; see JournalReader."""
        seen = [self._observed(topic, seq) for topic, seq in asked]
        await self._answer("observe")
        return seen

    async def read_heads(
        self, topics: Sequence[TopicName], known: Sequence[Observation | None] = ()
    ) -> list[Observation]:
        """Return each topic; see JournalReader."""
        del known
        seen = [self._observed(topic, 0).observation for topic in topics]
        await self._answer("read_heads")
        return seen

    async def read_page(self, topic: TopicName, after_seq: int) -> Page:
        """Return the frames after ``after_seq``; see JournalReader."""
        self.pages_asked.append((topic, after_seq))
        page = self._page(topic, after_seq)
        await self._answer("read_page")
        if any((topic, seq) in self.lost_rows for seq in range(after_seq + 1, page.last_seq + 1)):
            raise JournalUnavailableError(self.retry_after_s)
        return page

    def _page(self, topic: TopicName, after_seq: int) -> Page:
        if topic not in self.logs:
            nothing = Observation.absent(topic, self.lineage)
            return Page.from_sizes(after_seq, b"", (), last_chain=b"", observation=nothing)
        return self._visible(topic).page(
            after_seq, max_frames=self.page_max_frames, max_bytes=self.page_max_bytes
        )

    async def _answer(self, kind: str) -> None:
        self.reads[kind] += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        gate = self._gates.get(kind)
        has_failed = self.is_down or self.failures[kind] > 0 or not self.lineage
        if not self.is_down and self.failures[kind]:
            self.failures[kind] -= 1
        try:
            await trio.sleep(self.delay_s)
            if gate is not None:
                await gate.wait()
        finally:
            self.in_flight -= 1
        if has_failed:
            raise JournalUnavailableError(self.retry_after_s)

    def _visible(self, topic: TopicName) -> TopicLog:
        log = self.logs[topic]
        if topic not in self.visible:
            return log
        seen = log.copy()
        seen.cut(self.visible[topic])
        return seen

    def _observed(self, topic: TopicName, seq: int) -> ObservedTopic:
        if topic not in self.logs:
            return ObservedTopic(Observation.absent(topic, self.lineage), None)
        log = self._visible(topic)
        is_lost = (topic, seq) in self.lost_rows
        return ObservedTopic(log.observe(), None if is_lost else log.row(seq))


def log_of(topic: ParsedTopic, count: int, *, payload: bytes = b"x") -> TopicLog:
    """Return a log with ``count`` frames."""
    log = TopicLog(topic)
    if count:
        log.append(count, payload=payload)
    return log
