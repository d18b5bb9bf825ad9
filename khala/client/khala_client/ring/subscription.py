"""A followed topic as an asynchronous iterator of events.

    async with khala.subscribe(topic, after="saved") as events:
        async for event in events:
            ...

Every event of the topic comes in order and is applied to the store once per (topic, seq). An event
counts as processed when the next one is asked for, or when the block is left without an exception;
processed events and their cursor are committed together, before the iterator waits for the network
and at least every COMMIT_EVENTS_MAX. So after a crash the loop may see the last few again, it never
misses one; what a store's fold wrote is exactly once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Self

import anyio.lowlevel
import attrs

from khala_client.core.cursor import After, Cursor
from khala_client.errors import KhalaError, StaleCursor
from khala_client.events import Event
from khala_client.notices import HistoryRead, Live, Notice
from khala_client.ring.inbox import Ended, Inbox, Started
from khala_client.ring.store_calls import StoreCalls
from khala_contracts.chain import chain_start
from khala_contracts.topics import Lineage, Seq, TopicName

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from khala_client.core.apply import ApplyCounts
    from khala_client.ring.link import SyncLink
    from khala_client.ring.paging import HistoryPages
    from khala_client.store import Store

__all__ = ["Subscription"]

# A commit costs a transaction (tens of microseconds and more); an event that is not committed is
# repeated after a crash. More: more repeats. Fewer: a replay spends its time in SQLite.
COMMIT_EVENTS_MAX: Final = 256
# Reasons for which the event log, which is never pruned, still has what is not replayed.
_READABLE: Final = frozenset({"replay_budget_exceeded", "retention_expired", "compaction_boundary"})


class Subscription:
    """Made by Khala.subscribe; an asynchronous iterator for one task at a time."""

    def __init__(
        self,
        topic: TopicName,
        after: After,
        *,
        is_stored: bool,
        tasks: TaskGroup,
        link: SyncLink,
        store: Store,
        pages: HistoryPages | None = None,
        on_notice: Callable[[Notice], None] | None = None,
    ) -> None:
        """Follow ``topic`` after ``after``; ``is_stored``: that is where ``store`` stands.

        ``tasks`` are the client's: they make the calls of a store that waits for a disk.
        """
        self.topic = topic
        self._after = after
        self._is_begun = is_stored
        self._begin_at: Cursor | None = None
        self._link = link
        self._store = store
        self._calls = StoreCalls(tasks)
        self._pages = pages
        self._on_notice = on_notice
        self._inbox = Inbox(pause=lambda: link.pause(topic), resume=lambda: link.resume(topic))
        self._position: Cursor | None = after if isinstance(after, Cursor) else None
        self._given: Event | None = None
        self._processed: list[Event] = []
        self._is_live = False
        self._is_reading_pages = False
        self._error: KhalaError | None = None

    @property
    def cursor(self) -> Cursor | None:
        """Position after the event that was given last; None before the topic has answered."""
        return self._position

    @property
    def is_live(self) -> bool:
        """True once everything that was committed at the subscription was given."""
        return self._is_live

    @property
    def counts(self) -> ApplyCounts:
        """Exact numbers of frames that were applied, repeated or behind a gap, since the start."""
        return self._link.counts_of(self.topic)

    def start(self) -> None:
        """Begin to follow.

        Raises:
            ValueError: another subscription of this client follows the topic.
        """
        self._link.follow(self.topic, self._after, self._inbox)

    async def stop(self, *, is_clean: bool) -> None:
        """Leave the topic and commit what was processed; ``is_clean``: also the event given last.

        Cancellation: the caller shields it; a commit is begun and finished, or not begun.
        """
        self._link.leave(self.topic, self._inbox)
        await self._calls.settle()
        if is_clean:
            self._settle()
        await self._commit()

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> Event:
        """Return the next event.

        Raises:
            StaleCursor, ReauthRequired, UpgradeRequired, Forbidden, KhalaError: it is over.
            StoreConflict, StoreFailed: what was processed could not be kept.

        Cancellation: safe; the event is given to the next call. No deadline: how long a topic is
        silent is the application's business.
        """
        self._settle()
        # A call before this one may have been cancelled while the store was at work.
        await self._calls.settle()
        if len(self._processed) >= COMMIT_EVENTS_MAX:
            await self._commit()
        # What an item asks for is first noted and then awaited, so that a cancelled call loses nothing.
        while True:
            if self._begin_at is not None:
                await self._begin(self._begin_at)
            item = self._inbox.take_nowait()
            match item:
                case Event():
                    return self._give(item)
                case Started(cursor):
                    self._note_start(cursor)
                case Ended(error):
                    self._error = error
                case None:
                    await self._commit()
                    await self._wait_for_more()
                case _:
                    self._tell(item)

    def _settle(self) -> None:
        if self._given is not None:
            self._processed.append(self._given)
            self._given = None

    def _give(self, event: Event) -> Event:
        assert self._position is not None, "an event before its topic has started"
        self._given = event
        self._position = attrs.evolve(self._position, seq=Seq(event.seq), chain=event.chain)
        return event

    def _note_start(self, cursor: Cursor) -> None:
        position = self._position
        if position is not None and position.seq > 0 and position.chain is not None:
            # A later start (after a reconnect) stands where the inbox ends, not where we are.
            cursor = position
        # At seq 0 the lineage may be another one by now: nothing was applied that would contradict it.
        has_moved = position is None or position.lineage != cursor.lineage
        if not self._is_begun or has_moved:
            self._begin_at = cursor
        self._position = cursor

    async def _wait_for_more(self) -> None:
        if self._is_reading_pages:
            await self._read_page()
        elif self._error is None:
            await self._inbox.wait_item()
        elif not self._turn_to_pages(self._error):
            raise self._error

    def _turn_to_pages(self, error: KhalaError) -> bool:
        """Read on by pages if that is wanted and can help; ``error`` is settled then."""
        if self._pages is None or not isinstance(error, StaleCursor) or error.reason not in _READABLE:
            return False
        lineage = Lineage(error.lineage)
        if self._position is None:
            at_floor = self._after == "earliest"
            seq = Seq(error.floor_seq - 1 if at_floor else 0)
            chain = error.floor_chain if at_floor else chain_start(self.topic)
            self._position = Cursor(self.topic, seq, lineage, chain)
        elif self._position.seq > 0 and self._position.lineage != lineage:
            return False
        else:
            self._position = attrs.evolve(self._position, lineage=lineage)
        if not self._is_begun:
            self._begin_at = self._position
        self._error, self._is_reading_pages, self._is_live = None, True, False
        return True

    async def _read_page(self) -> None:
        assert self._pages is not None
        assert self._position is not None
        page = await self._pages.read_after(self._position)
        self._position = attrs.evolve(self._position, lineage=page.lineage, chain=page.chain_before)
        self._inbox.put_events(page.events)
        self._tell(HistoryRead(self.topic, page.through_seq, page.head_seq))
        if page.is_last:
            self._is_reading_pages = False
            self._link.follow(self.topic, page.cursor, self._inbox)

    async def _begin(self, cursor: Cursor) -> None:
        if self._store.is_blocking:
            await self._calls.make(partial(self._store.begin, cursor), then=self._note_begun)
        else:
            self._store.begin(cursor)
            self._note_begun()

    def _note_begun(self) -> None:
        self._is_begun, self._begin_at = True, None

    async def _commit(self) -> None:
        if not self._processed:
            return
        if self._store.is_blocking:
            commit = partial(self._store.commit, tuple(self._processed))
            await self._calls.make(commit, then=partial(self._note_committed, len(self._processed)))
        else:
            await anyio.lowlevel.checkpoint()
            self._store.commit(self._processed)
            self._note_committed(len(self._processed))

    def _note_committed(self, count: int) -> None:
        # Events may have been processed meanwhile: those stay for the next commit.
        del self._processed[:count]

    def _tell(self, notice: Notice) -> None:
        if isinstance(notice, Live):
            self._is_live = True
        if self._on_notice is not None:
            self._on_notice(notice)
