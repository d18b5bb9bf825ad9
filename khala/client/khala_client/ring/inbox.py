"""What waits for one follower: events and news, in order, with a bound on the events.

The link puts without waiting. A follower that is slower than its topic fills the inbox, which then
asks the node to stop (pause) and to go on (resume) when half of it was taken. So memory stays
bounded, other topics of the same connection are not held up, and nothing is lost: what the node
stopped sending is sent after the cursor later.

Invariants:
    waiting events and bytes <= EVENTS_MAX, BYTES_MAX + what was on the wire when the pause was asked
    between two waiting events there is at most one item of each other type: the newest
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import anyio
import attrs

from khala_client.core.happenings import Delivered, Happening, Live, Replaying, TopicEnded
from khala_client.events import Event
from khala_client.notices import GapSeen, HeadSeen, Lagged, Notice, Released, Retrying

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala_client.core.cursor import Cursor
    from khala_client.errors import KhalaError

__all__ = ["EVENTS_MAX", "Ended", "Inbox", "InboxItem", "Started"]

# About a second of the fastest replay. More: memory. Less: pausing in the middle of ordinary bursts.
EVENTS_MAX: Final = 4_096
BYTES_MAX: Final = 8 * 1024 * 1024


@attrs.frozen
class Started:
    """Everything after this item follows ``cursor``."""

    cursor: Cursor


@attrs.frozen
class Ended:
    """Nothing follows; ``error`` says why."""

    error: KhalaError


InboxItem = Event | Started | Ended | Notice


class Inbox:
    """A Sink that one follower takes from."""

    def __init__(self, *, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause = pause
        self._resume = resume
        self._items: deque[InboxItem] = deque()
        self._events = 0
        self._bytes = 0
        self._is_paused = False
        self._arrived = anyio.Event()

    def put_happening(self, happening: Happening) -> None:
        """See Sink.put_happening."""
        match happening:
            case Delivered():
                for applied in happening.applied:
                    self._events += 1
                    self._bytes += len(applied.frame.payload)
                    self._items.append(Event.from_frame(applied.frame, chain=applied.chain))
                if not self._is_paused and (self._events >= EVENTS_MAX or self._bytes >= BYTES_MAX):
                    self._is_paused = True
                    self._pause()
            case Replaying():
                self._put_latest(Started(happening.cursor))
                self._put_latest(happening)
            case TopicEnded():
                self._items.append(Ended(happening.error))
            case Live() | HeadSeen() | Lagged() | GapSeen() | Released() | Retrying():
                self._put_latest(happening)
            case _:
                return
        self._arrived.set()

    def put_events(self, events: tuple[Event, ...]) -> None:
        """Add a page of history; it was asked for because the inbox is empty."""
        self._events += len(events)
        self._bytes += sum(len(event.payload) for event in events)
        self._items.extend(events)
        self._arrived.set()

    def put_notice(self, notice: Notice) -> None:
        """See Sink.put_notice."""
        self._put_latest(notice)
        self._arrived.set()

    def _put_latest(self, item: InboxItem) -> None:
        for place in range(len(self._items) - 1, -1, -1):
            if isinstance(self._items[place], Event | Ended):
                break
            if type(self._items[place]) is type(item):
                del self._items[place]
                break
        self._items.append(item)

    def take_nowait(self) -> InboxItem | None:
        """Return the next item, None if there is none now."""
        if not self._items:
            return None
        item = self._items.popleft()
        if isinstance(item, Event):
            self._events -= 1
            self._bytes -= len(item.payload)
            if self._is_paused and self._events <= EVENTS_MAX // 2 and self._bytes <= BYTES_MAX // 2:
                self._is_paused = False
                self._resume()
        return item

    async def wait_item(self) -> None:
        """Return when there is something to take.

        No deadline: how long a topic is silent is the application's business; the connection below
        has its own. Cancellation: safe; nothing is consumed.
        """
        while not self._items:
            # One-shot: replaced before the wait, and there is no checkpoint in between.
            self._arrived = anyio.Event()
            await self._arrived.wait()
