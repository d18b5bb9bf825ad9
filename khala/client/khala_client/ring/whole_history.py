"""A topic from its oldest retained event to its head, once, verified on the way.

Of runs and app topics the event log is read by pages over HTTP: it is never pruned, so everything is
there. Other topics are followed from their floor. In both cases the chain is compared with what the
authority states about floor and head on another way, and the read ends at the head that was stated first.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Self

import anyio

from khala_client.core.cursor import Cursor
from khala_client.errors import ChainMismatch, Unavailable
from khala_client.http import history_path
from khala_client.ring.paging import HistoryPages
from khala_client.ring.retry import Retry
from khala_contracts.chain import chain_after, chain_start
from khala_contracts.errors import WireError
from khala_contracts.topics import Seq

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala_client.events import Event
    from khala_client.resources import TopicInfo
    from khala_client.ring.khala import Khala
    from khala_contracts.topics import TopicName

__all__ = ["WholeHistory"]


class WholeHistory:
    """One read of one topic.

    Attributes:
        first_seq: Where it begins: 1, or the floor of a topic without a log.
        chain_before: Chain before that.
        seq: Where it stands; after ``read``, the head.
        chain: Chain there.
    """

    def __init__(self, khala: Khala, info: TopicInfo, *, silence_max_s: float) -> None:
        """Use ``open``."""
        self._khala = khala
        self._info = info
        self._silence_max_s = silence_max_s
        self._has_log = history_path(info.topic) is not None
        self.first_seq = 1 if self._has_log else info.floor_seq
        self.chain_before = chain_start(info.topic) if self.first_seq == 1 else info.floor_chain
        self.seq, self.chain = self.first_seq - 1, self.chain_before

    @classmethod
    async def open(cls, khala: Khala, topic: TopicName, *, silence_max_s: float) -> Self:
        """Ask the authority where the topic stands.

        Args:
            khala: Inside its block.
            topic: What to read.
            silence_max_s: Longest time without an answer.

        Raises:
            KhalaError: ``not_found``, or no answer.
        """
        retry = Retry(random.SystemRandom(), patience_s=silence_max_s)
        info = await retry.attempt(lambda: khala.runtime.get_topic(topic))
        return cls(khala, info, silence_max_s=silence_max_s)

    async def read(self, take: Callable[[Event], None]) -> None:
        """Give every event to ``take``, in order, up to the stated head.

        Raises:
            ChainMismatch: what came is not the history that the authority states; ``seq`` says where.
            KhalaError: it cannot be read.
        Cancellation: safe; what was given was verified up to its own link.
        """
        self._compare()
        if self.seq >= self._info.head_seq:
            return
        if self._has_log:
            await self._read_pages(take)
        else:
            await self._follow(take)

    async def _read_pages(self, take: Callable[[Event], None]) -> None:
        pages = HistoryPages(self._khala.runtime, self._info.topic, rng=random.SystemRandom())
        while self.seq < self._info.head_seq:
            try:
                page = await pages.read_after(self._cursor())
            except ChainMismatch as error:
                first_bad_seq = await self._locate() or error.seq
                raise ChainMismatch(self._info.topic, first_bad_seq, lineage=self._info.lineage) from error
            if not page.events:
                # Pages end before the head that was stated: what lies between is missing.
                raise ChainMismatch(self._info.topic, self.seq + 1, lineage=self._info.lineage)
            for event in page.events:
                if self.seq < self._info.head_seq:
                    self._take(event, take)

    async def _locate(self) -> int | None:
        """Find where the page after our position leaves the chain that the authority states.

        A page states the chain at its ends alone; pages that begin inside it state it there.
        """
        topic, read = self._info.topic, self._khala.runtime.read_history
        page = await read(topic, after_seq=self.seq)
        chains = [page.chain_before]
        for stored in page.events:
            try:
                chains.append(chain_after(chains[-1], stored.frame))
            except WireError:
                return stored.frame.seq
        good, bad = 0, len(page.events)
        while bad - good > 1:
            middle = (good + bad) // 2
            stated = (await read(topic, after_seq=self.seq + middle, limit=1)).chain_before
            good, bad = (middle, bad) if stated == chains[middle] else (good, middle)
        return self.seq + bad if page.events else None

    async def _follow(self, take: Callable[[Event], None]) -> None:
        async with self._khala.subscribe(self._info.topic, after=self._cursor()) as events:
            while self.seq < self._info.head_seq:
                with anyio.move_on_after(self._silence_max_s):
                    self._take(await anext(events), take)
                    continue
                raise Unavailable(f"nothing came for {self._silence_max_s:.0f} s")

    def _cursor(self) -> Cursor:
        return Cursor(self._info.topic, Seq(self.seq), self._info.lineage, self.chain)

    def _take(self, event: Event, take: Callable[[Event], None]) -> None:
        take(event)
        self.seq, self.chain = event.seq, event.chain
        self._compare()

    def _compare(self) -> None:
        """Compare with the authority where it has stated a chain."""
        info = self._info
        for seq, chain in ((info.floor_seq - 1, info.floor_chain), (info.head_seq, info.head_chain)):
            if self.seq == seq and self.chain != chain:
                raise ChainMismatch(info.topic, seq, lineage=info.lineage)
