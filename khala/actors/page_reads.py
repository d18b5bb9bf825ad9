"""Reads of journal pages for a whole node: bounded, healing first, and each page judged once.

At most ``journal_readers_max`` reads at once (INV-7). Topics that heal and subscriptions that replay
share them: a heal waits for a read that is under way, never behind a replay that waits, and heals leave
a quarter of the readers to replays. First come, first served within each kind, one page per turn; so of
many topics that are behind none waits for another's second page.

A page ends before the first row that is not a frame of its topic at its seq (INV-9): what was stored is
otherwise sent unread. Such a row is counted and reported each time it is met; whoever needs it is ended.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from khala_contracts import codec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from khala.actors.supervision import Supervisor
    from khala.core.counters import NodeCounters
    from khala.core.pages import Page
    from khala.ports import JournalReader
    from khala_contracts.topics import TopicName


class UnreadableRowError(Exception):
    """A journal row whose bytes are not the frame that its seq says."""


class ReaderTurns:
    """Places for reads. Invariant: ``reading <= readers_max`` and ``healing <= heals_max``."""

    def __init__(self, readers_max: int) -> None:
        """Allow this many reads at once."""
        self._readers_max = readers_max
        self._heals_max = max(1, readers_max - readers_max // 4)
        self.reading = 0
        self.healing = 0
        self._heals = trio.lowlevel.ParkingLot()
        self._replays = trio.lowlevel.ParkingLot()

    async def enter(self, *, is_heal: bool) -> None:
        """Wait for a place; ``leave`` must follow. Cancellation: safe; no place is taken."""
        has_place = self.reading < self._readers_max and (not is_heal or self.healing < self._heals_max)
        if has_place:
            self._take(is_heal=is_heal)
            return
        # Whoever leaves takes the place for us before it wakes us, so nobody can come in between.
        await (self._heals if is_heal else self._replays).park()

    def leave(self, *, is_heal: bool) -> None:
        """Give the place to the next: a heal if one waits and may."""
        self.reading -= 1
        self.healing -= is_heal
        while self.reading < self._readers_max:
            if len(self._heals) and self.healing < self._heals_max:
                self._take(is_heal=True)
                self._heals.unpark()
            elif len(self._replays):
                self._take(is_heal=False)
                self._replays.unpark()
            else:
                return

    def _take(self, *, is_heal: bool) -> None:
        self.reading += 1
        self.healing += is_heal

    @contextmanager
    def held(self, *, is_heal: bool) -> Iterator[None]:
        """Leave at the end of the block; to be used right after ``enter``."""
        try:
            yield
        finally:
            self.leave(is_heal=is_heal)


class PageReads:
    """Reads pages in turn."""

    def __init__(
        self,
        journal: JournalReader,
        *,
        readers_max: int,
        counters: NodeCounters,
        supervisor: Supervisor,
    ) -> None:
        """Read from ``journal``, at most ``readers_max`` pages at once."""
        self._journal = journal
        self._counters = counters
        self._supervisor = supervisor
        self.turns = ReaderTurns(readers_max)

    async def read_page(self, topic: TopicName, after_seq: int, *, is_heal: bool) -> Page:
        """Return the page after ``after_seq``, cut before a row that cannot be read.

        Args:
            topic: Whose page.
            after_seq: The page starts at the next seq; see JournalReader.
            is_heal: True if live subscribers wait for it.

        Raises:
            JournalUnavailableError: No answer. Retry is safe.
        Cancellation: safe.
        """
        await self.turns.enter(is_heal=is_heal)
        with self.turns.held(is_heal=is_heal):
            page = await self._journal.read_page(topic, after_seq)
        return self._judged(topic, page)

    def _judged(self, topic: TopicName, page: Page) -> Page:
        sound = codec.count_sound_entries(page.blob, page.ends, topic=topic, first_seq=page.after_seq + 1)
        if sound == len(page.ends):
            return page
        self._counters.rows_unreadable += 1
        seq = page.after_seq + sound + 1
        self._supervisor.note_crash("page_read", topic, UnreadableRowError(f"topic={topic} seq={seq}"))
        return page.cut(sound)
