"""What subscribes see of the journal, read for many connections by one statement: a group commit of reads.

A statement costs the node about 0.4 ms whatever it asks, so in a storm of reconnects one for each subscribe would
cost more than the rest of the hello. Whoever asks while nothing is under way is read for at once; whoever asks
meanwhile, or within ``PAUSE_S`` of the last statement, travels with the next one.

``run`` is a worker; ``WORKERS`` of them run, so that one connection to the database that answers nothing holds up
those that wait with it and nobody else. Every statement begins after everything that it answers was asked: who
notes where a topic stands and asks then is answered from no earlier than that.

Keeps INV-7: a connection runs one command at a time, so at most one ask for each connection waits.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from khala.ports import JournalUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khala.core.counters import NodeCounters
    from khala.ports import ObservedTopic
    from khala_contracts.topics import TopicName

WORKERS: Final = 2
# Topics of one statement; one subscribe, of 64 topics at most, is never split. More: everybody
# waits for the slowest of many. Fewer: more statements.
TOPICS_MAX: Final = 1024
# Between the beginnings of two statements. Longer: subscribes wait for nothing. Shorter: a storm of them, each just
# too late for the one before it, has a statement each.
PAUSE_S: Final = 0.010
# A statement that ended in a bug of ours; its subscribes are told to come back.
_RETRY_AFTER_S: Final = 1.0


class ObservationSource(Protocol):
    """Where observations come from; see JournalReader."""

    async def observe(self, asked: Sequence[tuple[TopicName, int]]) -> list[ObservedTopic]:
        """Return, in the order asked, each topic and its journal row at the seq."""


@attrs.define(eq=False)
class _Ask:
    topics: Sequence[tuple[TopicName, int]]
    answered: trio.Event = attrs.field(factory=trio.Event)
    seen: list[ObservedTopic] | None = None
    retry_after_s: float = _RETRY_AFTER_S
    is_given_up: bool = False


class GroupedObservations:
    """Asks for many; see the module docstring."""

    def __init__(
        self, source: ObservationSource, *, pause_s: float = PAUSE_S, counters: NodeCounters | None = None
    ) -> None:
        """Ask ``source``, with so many seconds between two statements; nothing is answered before ``run`` runs."""
        self._source = source
        self._counters = counters
        self._pause_s = pause_s
        self._waiting: deque[_Ask] = deque()
        self._asked = trio.lowlevel.ParkingLot()
        self._not_before = -float("inf")

    async def observe(self, asked: Sequence[tuple[TopicName, int]]) -> list[ObservedTopic]:
        """Return, in the order asked, each topic and its journal row at the seq, all seen by one statement.

        Raises:
            JournalUnavailableError: No answer. Retry is safe.
        Cancellation: safe; others that travel with it are answered all the same.
        """
        ask = _Ask(asked)
        self._waiting.append(ask)
        self._asked.unpark()
        try:
            await ask.answered.wait()
        finally:
            ask.is_given_up = True
        if ask.seen is None:
            raise JournalUnavailableError(ask.retry_after_s)
        return ask.seen

    async def run(self) -> None:
        """Answer until cancelled; may run several times at once."""
        while True:
            if not self._waiting:
                await self._asked.park()
            elif trio.current_time() < self._not_before:
                # And then from the top: meanwhile another worker may have begun a statement.
                await trio.sleep_until(self._not_before)
            elif asks := self._take():
                self._not_before = trio.current_time() + self._pause_s
                await self._answer(asks)

    def _take(self) -> list[_Ask]:
        """Take what fits into one statement; the first ask fits always."""
        asks: list[_Ask] = []
        room = TOPICS_MAX
        while self._waiting and (not asks or len(self._waiting[0].topics) <= room):
            ask = self._waiting.popleft()
            if not ask.is_given_up:
                asks.append(ask)
                room -= len(ask.topics)
        return asks

    async def _answer(self, asks: list[_Ask]) -> None:
        try:
            # Once each: in a storm many resume the same topic from the same place.
            wanted = list(dict.fromkeys(one for ask in asks for one in ask.topics))
            if self._counters is not None:
                self._counters.observations_read += 1
            seen = dict(zip(wanted, await self._source.observe(wanted), strict=True))
            for ask in asks:
                ask.seen = [seen[one] for one in ask.topics]
        except JournalUnavailableError as exc:
            for ask in asks:
                ask.retry_after_s = exc.retry_after_s
        finally:
            for ask in asks:
                ask.answered.set()
