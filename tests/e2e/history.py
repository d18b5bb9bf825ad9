"""Runs that are written to while tests follow them, and what their writers were told."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.checker import check_positions
from khala_contracts.codec import CursorStart, FromStart, SubscribeFrom
from tests.e2e.wire import BEGINNING, NOW, Api, Follower, Person, Position, thought

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from khala_contracts.topics import TopicName

WRITERS: Final = 3
# SPEC section 6: events of one append request.
BATCH_MAX: Final = 500


@attrs.define
class History:
    """What the writers of one run were told: position by seq."""

    topic: TopicName
    acked: dict[int, Position] = attrs.field(factory=dict, repr=False)
    is_over: bool = False

    @property
    def head(self) -> Position:
        """The newest acknowledged position."""
        return self.acked[max(self.acked)]

    def note(self, acks: list[Position]) -> None:
        """Take the acknowledgements of one request."""
        self.acked |= {ack.seq: ack for ack in acks}

    def check(self, follower: Follower) -> None:
        """What was received is what was acknowledged, position by position."""
        assert follower.position == self.head.seq
        assert follower.chain == self.head.chain
        seqs = [frame.seq for frame in follower.frames]
        start, head_seq = follower.subscribed.start_seq, self.head.seq
        assert check_positions(self.topic, seqs, source="follower", after_seq=start, head_seq=head_seq) == []


async def begin_history(api: Api, person: Person, events: int = 0) -> History:
    """Make a run with so many thoughts."""
    topic = await api.create_run(person)
    history = History(topic)
    history.note([await api.watermark(person, topic)])
    for first in range(0, events, BATCH_MAX):
        batch = [thought(f"old {number}") for number in range(first, min(first + BATCH_MAX, events))]
        history.note(await api.append(person, topic, *batch))
    return history


async def write(
    api: Api, person: Person, history: History, *, requests: int, batch: int, every_s: float
) -> None:
    """Append from several writers at once, at a steady pace."""
    async with trio.open_nursery() as writers:
        for writer in range(WRITERS):
            writers.start_soon(_write_one, api, person, history, writer, requests // WRITERS, batch, every_s)
    history.is_over = True


async def _write_one(
    api: Api, person: Person, history: History, writer: int, requests: int, batch: int, every_s: float
) -> None:
    began = trio.current_time()
    for number in range(requests):
        await trio.sleep_until(began + number * every_s)
        events = [thought(f"new {writer} {number} {index}") for index in range(batch)]
        history.note(await api.append(person, history.topic, *events, key=f"{writer}-{number}"))


@asynccontextmanager
async def being_written(
    api: Api, person: Person, history: History, *, events_per_s: float = 100
) -> AsyncIterator[None]:
    """Append one by one for a block; afterwards nothing is under way, so that the head is the head."""
    is_over = trio.Event()

    async def append_on() -> None:
        while not is_over.is_set():
            history.note(await api.append(person, history.topic, thought("on")))
            with trio.move_on_after(WRITERS / events_per_s):
                await is_over.wait()

    async with trio.open_nursery() as writers:
        for _ in range(WRITERS):
            writers.start_soon(append_on)
        yield
        is_over.set()


def random_start(history: History, draw: float) -> CursorStart | FromStart:
    """Begin anywhere: by a word, at the newest, at 0, or after any event, with or without its chain."""
    if draw < 0.1:
        return NOW
    if draw < 0.2:
        return BEGINNING
    if draw < 0.25:
        return FromStart(SubscribeFrom.EARLIEST)
    if draw < 0.35:
        return history.head.start
    position = history.acked[1 + int((draw - 0.35) / 0.65 * (history.head.seq - 1))]
    return position.start if int(draw * 1000) % 2 else CursorStart(position.seq, position.lineage)
