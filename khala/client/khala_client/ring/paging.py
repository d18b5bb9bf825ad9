"""History by pages over HTTP, for what is not replayed over the WebSocket any more.

An explicit read, not a live lane: it ends at the head that it finds, and the subscription follows
from there. Each page is verified: it must continue our chain, and its own frames must be consecutive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from khala_client.core.apply import Applied, ApplyRule
from khala_client.core.cursor import Cursor
from khala_client.errors import ChainMismatch, StaleCursor
from khala_client.events import Event
from khala_client.ring.retry import Retry
from khala_contracts.errors import WireError
from khala_contracts.topics import Lineage, Seq

if TYPE_CHECKING:
    from khala_client.core.backoff import Rng
    from khala_client.http import RuntimeClient
    from khala_client.resources import EventPage
    from khala_contracts.topics import TopicName

__all__ = ["HistoryPages", "Page"]

# Time without an answer after which the reader gives up; it goes on where it stopped when repeated.
_PATIENCE_S: Final = 120.0


@attrs.frozen
class Page:
    """Verified events after a position. ``cursor`` stands after the last of them."""

    events: tuple[Event, ...]
    cursor: Cursor
    lineage: Lineage
    chain_before: bytes = attrs.field(repr=False)
    head_seq: int
    is_last: bool

    @property
    def through_seq(self) -> int:
        """Position after the page."""
        return self.cursor.seq


class HistoryPages:
    """Reads the log of one topic that has one (``http.history_path``)."""

    def __init__(self, runtime: RuntimeClient, topic: TopicName, *, rng: Rng) -> None:
        self._runtime = runtime
        self._topic = topic
        self._rng = rng

    async def read_after(self, position: Cursor) -> Page:
        """Return the page after ``position``.

        Raises:
            ChainMismatch: the log has another history at ``position``, or the page does not hold.
            StaleCursor: the lineage changed.
            Unavailable: no answer for two minutes.
            KhalaError: refused.
        """
        read = await self._read_in_time(position.seq)
        if position.seq > 0 and read.cursor.lineage != position.lineage:
            raise StaleCursor(
                position.topic, "lineage_mismatch", lineage=read.cursor.lineage, head_seq=read.head_seq
            )
        if position.chain is not None and position.chain != read.chain_before:
            raise ChainMismatch(position.topic, position.seq, lineage=read.cursor.lineage)
        rule = ApplyRule(position.topic, seq=position.seq, chain=read.chain_before)
        events: list[Event] = []
        for stored in read.events:
            try:
                judged = rule.offer(stored.frame)
            except (WireError, ValueError) as error:
                raise ChainMismatch(position.topic, stored.frame.seq, lineage=read.cursor.lineage) from error
            if not isinstance(judged, Applied):
                raise ChainMismatch(position.topic, stored.frame.seq, lineage=read.cursor.lineage)
            events.append(Event.from_frame(stored.frame, chain=judged.chain))
        if read.cursor.seq == rule.seq and read.cursor.chain not in {None, rule.chain}:
            raise ChainMismatch(position.topic, rule.seq, lineage=read.cursor.lineage)
        return Page(
            events=tuple(events),
            cursor=Cursor(position.topic, Seq(rule.seq), read.cursor.lineage, rule.chain),
            lineage=read.cursor.lineage,
            chain_before=read.chain_before,
            head_seq=read.head_seq,
            is_last=not events or rule.seq >= read.head_seq,
        )

    async def _read_in_time(self, after_seq: int) -> EventPage:
        retry = Retry(self._rng, patience_s=_PATIENCE_S)
        return await retry.attempt(lambda: self._runtime.read_history(self._topic, after_seq=after_seq))
