"""The live topics of a node: started by the first subscriber, checked together, kept apart.

Three tasks serve all topics: the record pump (driver messages to their topics), the position
check (one query every ``position_check_interval_s`` over all live topics, which finds whatever a
driver lost), and the linger sweep. Ten thousand cold topics cost no task. A crash inside a topic
is contained: counted, logged, and the topic starts again from the journal with backoff, while its
subscribers keep their positions (INV-9).
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

import trio

from fanout_drivers.base import PositionUnknown
from khala.actors.topic import TopicActor
from khala.ports import JournalUnavailableError
from khala_contracts.codec import WireError

if TYPE_CHECKING:
    from fanout_drivers.base import FanoutSubscriber, RecordCopy
    from khala.actors.topic import PageRequests
    from khala.core.counters import NodeCounters
    from khala.core.limits import NodeLimits
    from khala.core.ranges import RangeCache
    from khala.ports import JournalReader
    from khala_contracts.fanout_records import RecordVerifier
    from khala_contracts.topics import ParsedTopic, TopicName

RESTART_FIRST_S: Final = 0.1
RESTART_MAX_S: Final = 10.0
# Records handed over before their topics get a turn; below what an inbox holds, or a burst that has
# arrived whole would be read from the journal again.
_RECORDS_PER_TURN: Final = 32


class TopicLog(Protocol):
    """Where a contained crash is reported."""

    def topic_crashed(self, topic: str, restart_in_s: float, exc: BaseException) -> None:
        """Report a crash of one topic's task."""


class TopicRegistry:
    """Owns the topics; ``run`` owns their tasks."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        subscriber: FanoutSubscriber,
        verifier: RecordVerifier,
        journal: JournalReader,
        pages: PageRequests,
        ranges: RangeCache,
        limits: NodeLimits,
        counters: NodeCounters,
        log: TopicLog,
    ) -> None:
        """Run topics in ``nursery``, which outlives every connection."""
        self._nursery = nursery
        self._subscriber = subscriber
        self._verifier = verifier
        self._journal = journal
        self._pages = pages
        self._ranges = ranges
        self._limits = limits
        self._counters = counters
        self._log = log
        self._topics: dict[TopicName, TopicActor] = {}
        self._scopes: dict[TopicName, trio.CancelScope] = {}
        # Least recently written first; what is trimmed when all windows together are too large.
        self._by_use: OrderedDict[TopicName, TopicActor] = OrderedDict()
        self._windows_bytes = 0
        # Monotonic time of the last position check that was answered.
        self.checked_at = -float("inf")

    # -- topics ------------------------------------------------------------------------------

    @property
    def windows_bytes(self) -> int:
        """Bytes of the windows of all topics."""
        return self._windows_bytes

    def __len__(self) -> int:
        """Number of live topics."""
        return len(self._topics)

    async def open(self, parsed: ParsedTopic) -> TopicActor:
        """Return the live topic, subscribed at the driver; ``release`` must follow.

        The driver is subscribed before the caller reads the head. In the other order a record
        committed between the two would be above the head that was read, and its hint would have
        gone to nobody.

        Cancellation: safe.
        """
        topic = self._topics.get(parsed.name)
        if topic is None:
            topic = TopicActor(
                parsed,
                limits=self._limits,
                counters=self._counters,
                journal=self._journal,
                pages=self._pages,
                ranges=self._ranges,
                budget=self,
            )
            self._topics[parsed.name] = topic
            self._counters.topics_live = len(self._topics)
            self._nursery.start_soon(self._supervise, topic)
        topic.pending_joins += 1
        try:
            await self._subscriber.subscribe(parsed.name)
        except BaseException:
            self.release(topic)
            raise
        return topic

    def release(self, topic: TopicActor) -> None:
        """Say that a subscribe that opened the topic has joined it or has been refused."""
        topic.pending_joins -= 1

    def grew(self, topic: TopicActor, byte_count: int) -> None:
        """Account for a window; drop the oldest frames of the least recently written ones."""
        self._windows_bytes += byte_count
        self._by_use[topic.parsed.name] = topic
        self._by_use.move_to_end(topic.parsed.name)
        while self._windows_bytes > self._limits.windows_max_bytes and self._by_use:
            _, oldest = next(iter(self._by_use.items()))
            freed = oldest.window.drop_oldest(max(1, len(oldest.window) // 2))
            self._windows_bytes -= freed
            if not len(oldest.window):
                del self._by_use[oldest.parsed.name]

    async def _supervise(self, topic: TopicActor) -> None:
        restart_in_s = RESTART_FIRST_S
        with trio.CancelScope() as scope:
            self._scopes[topic.parsed.name] = scope
            while True:
                started_at = trio.current_time()
                try:
                    await topic.run()
                except Exception as exc:  # noqa: BLE001 - the one place that contains a topic's crash
                    if trio.current_time() - started_at > RESTART_MAX_S:
                        restart_in_s = RESTART_FIRST_S
                    self._counters.task_restarts["topic"] += 1
                    self._log.topic_crashed(topic.parsed.name, restart_in_s, exc)
                    await trio.sleep(restart_in_s)
                    restart_in_s = min(restart_in_s * 2, RESTART_MAX_S)
                    topic.position_unknown()

    # -- the three tasks -----------------------------------------------------------------------

    async def run_pump(self) -> None:
        """Hand driver messages to their topics until the driver closes."""
        for count in itertools.count(1):
            if count % _RECORDS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            delivery = await self._subscriber.receive()
            if isinstance(delivery, PositionUnknown):
                self._counters.position_unknown += 1
                for name in tuple(delivery.topics if delivery.topics is not None else self._topics):
                    topic = self._topics.get(name)
                    if topic is not None and topic.is_initialised:
                        topic.position_unknown()
            else:
                self._take_copy(delivery)

    def _take_copy(self, copy: RecordCopy) -> None:
        topic = self._topics.get(copy.topic)
        if topic is None:
            return
        try:
            record = self._verifier.open_untrusted(copy.data)
        except WireError:
            self._counters.records_forged += 1
            return
        if record.topic != copy.topic:
            # Sealed by the runtime, but for another topic: somebody replays it elsewhere.
            self._counters.records_forged += 1
            return
        topic.offer_record(record)

    async def run_position_check(self) -> None:
        """Compare all live topics with the journal at a fixed interval."""
        while True:
            await trio.sleep(self._limits.position_check_interval_s)
            await self.check_positions()

    async def check_positions(self) -> None:
        """Compare all live topics with the journal once; trouble is counted and left."""
        asked = [topic for topic in self._topics.values() if topic.is_initialised]
        if not asked:
            self.checked_at = trio.current_time()
            return
        since = [topic.begin_read() for topic in asked]
        try:
            observations = await self._journal.read_heads([t.parsed.name for t in asked])
        except JournalUnavailableError:
            self._counters.position_check_failures += 1
            return
        self._counters.position_checks += 1
        self.checked_at = trio.current_time()
        for topic, start, seen in zip(asked, since, observations, strict=True):
            if self._topics.get(topic.parsed.name) is not topic:
                continue  # stopped while the journal answered; its window is accounted for already
            if topic.learn(seen, start):
                topic.check_rights(seen)
                topic.end_below_floor(seen)

    async def run_linger(self) -> None:
        """Stop topics that nobody has followed for ``topic_linger_s``."""
        while True:
            await trio.sleep(min(1.0, self._limits.topic_linger_s))
            now = trio.current_time()
            for topic in tuple(self._topics.values()):
                since = topic.empty_since
                is_idle = since is not None and now - since >= self._limits.topic_linger_s
                if is_idle and not topic.pending_joins:
                    await self._stop(topic)

    async def _stop(self, topic: TopicActor) -> None:
        name = topic.parsed.name
        self._windows_bytes -= topic.window.size_bytes
        self._by_use.pop(name, None)
        del self._topics[name]
        self._counters.topics_live = len(self._topics)
        self._scopes.pop(name).cancel()
        await self._subscriber.unsubscribe(name)
        # Race: a new subscriber opens the topic while the driver is still leaving it.
        #   stop:  del _topics[name] ... unsubscribe(name) ........ done
        #   open:                              new topic, subscribe(name)
        # Without the repetition the new topic would live on position checks alone.
        reopened = self._topics.get(name)
        if reopened is not None:
            await self._subscriber.subscribe(name)
            reopened.position_unknown()
