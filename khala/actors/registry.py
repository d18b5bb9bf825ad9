"""The live topics of a node: started by the first subscriber, checked together, kept apart.

Three tasks serve all topics: the record pump (driver messages to their topics), the position
check (one query over all live topics every ``position_check_interval_s``, and soon after a driver has
lost something), and the linger sweep. Ten thousand cold topics cost no task. A crash inside a topic
is contained: counted, logged, and the topic starts again from the journal with backoff, while its
subscribers keep their positions; a crash in one of the three leaves out what it met (INV-9).
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from fanout_drivers.base import PositionUnknown, RevocationsHint
from khala.actors.topic import ReadStart, TopicActor
from khala.core.delivery_trace import DeliveryTrace
from khala.ports import JournalUnavailableError
from khala_contracts.codec import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fanout_drivers.base import FanoutSubscriber, RecordCopy
    from khala.actors.actor_ports import PageRequests
    from khala.actors.page_reads import PageReads
    from khala.actors.supervision import Supervisor
    from khala.core.classification import Observation
    from khala.core.counters import NodeCounters
    from khala.core.limits import NodeLimits
    from khala.core.ranges import RangeCache
    from khala.ports import JournalReader
    from khala_contracts.fanout_records import RecordVerifier
    from khala_contracts.topics import ParsedTopic, TopicName

# Records handed over before their topics get a turn; below what an inbox holds, or a burst that has
# arrived whole would be read from the journal again.
_RECORDS_PER_TURN: Final = 32

# Topics compared with the journal before others get a turn, 5 microseconds each. More: all frames wait for it.
_TOPICS_PER_TURN: Final = 64

# Time between two looks at the age of windows. Longer: more memory while much is written. Shorter: who comes
# back after a moment reads the journal.
_AGEING_S: Final = 5.0

# Pause between two checks that are wanted, as a multiple of the time that the first of them took.
_CHECK_PAUSE: Final = 4.0


class TopicRegistry:
    """Owns the topics and their tasks; ``start`` starts the three that serve all of them."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        subscriber: FanoutSubscriber,
        verifier: RecordVerifier,
        journal: JournalReader,
        reads: PageReads,
        pages: PageRequests[TopicActor],
        ranges: RangeCache,
        limits: NodeLimits,
        counters: NodeCounters,
        supervisor: Supervisor,
        revocations_hinted: Callable[[], None] | None = None,
    ) -> None:
        """Run topics in ``nursery``, which outlives every connection.

        ``revocations_hinted`` is told of the driver's hints of revocations; it must not wait.
        """
        self._nursery = nursery
        self._subscriber = subscriber
        self._verifier = verifier
        self._journal = journal
        self._reads = reads
        self._pages = pages
        self._ranges = ranges
        self._limits = limits
        self._counters = counters
        self._supervisor = supervisor
        self._revocations_hinted = revocations_hinted
        self.trace = DeliveryTrace(limits, now=trio.current_time())
        self._topics: dict[TopicName, TopicActor] = {}
        self._scopes: dict[TopicName, trio.CancelScope] = {}
        # Least recently needed first: written, or sent from in turn (on the direct path it was written just
        # before). What is trimmed when all windows together are too large.
        self._by_use: OrderedDict[TopicName, TopicActor] = OrderedDict()
        self._windows_bytes = 0
        # Monotonic time of the last position check that was answered.
        self.checked_at = -float("inf")
        # Set when a driver has lost something that nobody can name.
        self._check_wanted = trio.Event()
        self._prompt_check_at = -float("inf")

    # -- topics ------------------------------------------------------------------------------

    @property
    def windows_bytes(self) -> int:
        """Memory of the windows of all topics."""
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
                reads=self._reads,
                pages=self._pages,
                ranges=self._ranges,
                budget=self,
                trace=self.trace.open_topic(parsed.name),
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

    def find(self, topic: TopicName) -> TopicActor | None:
        """Return a topic that is live now."""
        return self._topics.get(topic)

    def release(self, topic: TopicActor) -> None:
        """Say that a subscribe that opened the topic has joined it or has been refused."""
        topic.pending_joins -= 1

    def grew(self, topic: TopicActor, byte_count: int) -> None:
        """Account for a window; drop the oldest frames of the least recently needed ones."""
        self._windows_bytes += byte_count
        self._by_use[topic.parsed.name] = topic
        self._by_use.move_to_end(topic.parsed.name)
        while self._windows_bytes > self._limits.windows_max_bytes and self._by_use:
            _, oldest = next(iter(self._by_use.items()))
            freed = oldest.window.drop_oldest(max(1, len(oldest.window) // 2))
            self._windows_bytes -= freed
            if not len(oldest.window):
                del self._by_use[oldest.parsed.name]

    def needed(self, topic: TopicActor) -> None:
        """Keep the window of a topic that somebody sends from: its frames would be read from the journal."""
        if topic.parsed.name in self._by_use:
            self._by_use.move_to_end(topic.parsed.name)

    async def _supervise(self, topic: TopicActor) -> None:
        with trio.CancelScope() as scope:
            self._scopes[topic.parsed.name] = scope
            await self._supervisor.run_restarted(
                "topic", topic.parsed.name, topic.run, before_restart=topic.position_unknown
            )

    # -- the three tasks -----------------------------------------------------------------------

    def start(self) -> None:
        """Start them; each is started again after a crash."""
        for kind, task, before_restart in (
            # What a crash of the pump has taken from the driver is found by a check.
            ("pump", self.run_pump, self.want_check),
            ("position_check", self.run_position_check, None),
            ("linger", self.run_linger, None),
        ):
            run = partial(self._supervisor.run_restarted, kind, kind, task, before_restart=before_restart)
            self._nursery.start_soon(run)

    async def run_pump(self) -> None:
        """Hand driver messages to their topics until the driver closes."""
        for count in itertools.count(1):
            if count % _RECORDS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            delivery = await self._subscriber.receive()
            if isinstance(delivery, PositionUnknown):
                self._note_unknown(delivery)
                continue
            if isinstance(delivery, RevocationsHint):
                if self._revocations_hinted is not None:
                    self._revocations_hinted()
                continue
            try:
                self._take_copy(delivery)
            except Exception as exc:  # noqa: BLE001 - one record; the others must not wait for it
                self._supervisor.note_crash("record", delivery.topic, exc)
                self._note_unknown(PositionUnknown(frozenset({delivery.topic})))

    def _note_unknown(self, notice: PositionUnknown) -> None:
        self._counters.position_unknown += 1
        if notice.topics is None:
            self.want_check()
            return
        for name in notice.topics:
            topic = self._topics.get(name)
            if topic is not None:
                # Also while its first head is being read: perhaps from before what was lost.
                topic.position_unknown()

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

    def want_check(self) -> None:
        """Compare all live topics with the journal soon; what is behind is then read at once.

        Any number of calls before that check begins are answered by it, and a call after that by
        another one: whoever calls after a commit has it found.
        """
        self._check_wanted.set()

    async def run_position_check(self) -> None:
        """Compare all live topics with the journal at a fixed interval, and when it is wanted."""
        while True:
            with trio.move_on_after(self._limits.position_check_interval_s):
                await self._check_wanted.wait()
            is_prompt = self._check_wanted.is_set()
            if is_prompt:
                await trio.sleep_until(self._prompt_check_at)
                # Not later: a wish that comes while the journal answers is not answered by that.
                self._check_wanted = trio.Event()
            started_at = trio.current_time()
            pause_s = self._limits.position_check_interval_s
            try:
                await self.check_positions(is_record_expected=not is_prompt)
            except Exception as exc:  # noqa: BLE001 - the next round must come whatever this one met
                self._supervisor.note_crash("position_check", "", exc)
            else:
                # A driver that only rings a doorbell wants checks without end: with very many topics they
                # must leave most of the time, of the database too, to delivery.
                took_s = trio.current_time() - started_at
                pause_s = min(pause_s, max(1 / self._limits.position_checks_per_s, took_s * _CHECK_PAUSE))
            self._prompt_check_at = trio.current_time() + pause_s

    async def check_positions(self, *, is_record_expected: bool = True) -> None:
        """Compare all live topics with the journal once; trouble is counted and left."""
        asked = [topic for topic in self._topics.values() if topic.is_initialised]
        if not is_record_expected:
            for topic in self._topics.values():
                if not topic.is_initialised:
                    # Its first head is being read, perhaps from before what the driver has lost.
                    topic.position_unknown()
        if not asked:
            self.checked_at = trio.current_time()
            return
        # Not an object for each topic: with thousands of them, twice a second, the collector would walk through
        # what was made here, for tens of milliseconds.
        began_at = trio.current_time()
        heads, histories = [t.window.head_seq for t in asked], [t.history for t in asked]
        try:
            observations = await self._journal.read_heads(
                [t.parsed.name for t in asked], [t.observation for t in asked]
            )
        except JournalUnavailableError:
            self._counters.position_check_failures += 1
            return
        self._counters.position_checks += 1
        self.checked_at = trio.current_time()
        answers = zip(asked, heads, histories, observations, strict=True)
        for number, (topic, head_seq, history, seen) in enumerate(answers, start=1):
            if number % _TOPICS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            if self._topics.get(topic.parsed.name) is not topic:
                continue  # stopped while the journal answered; its window is accounted for already
            try:
                since = ReadStart(head_seq, history, began_at)
                _compare(topic, since, seen, is_record_expected=is_record_expected)
            except Exception as exc:  # noqa: BLE001 - one topic; those after it must be compared
                self._supervisor.note_crash("position_check", topic.parsed.name, exc)
                topic.position_unknown()

    async def run_linger(self) -> None:
        """Stop topics that nobody has followed for ``topic_linger_s``; age the windows."""
        heads: dict[TopicName, int] = {}
        age_at = trio.current_time()
        while True:
            await trio.sleep(min(1.0, self._limits.topic_linger_s))
            now = trio.current_time()
            if now >= age_at:
                heads = await self._age_windows(heads)
                age_at = now + _AGEING_S
            for topic in tuple(self._topics.values()):
                since = topic.empty_since
                is_idle = since is not None and now - since >= self._limits.topic_linger_s
                if not is_idle or topic.pending_joins:
                    continue
                try:
                    await self._stop(topic)
                except Exception as exc:  # noqa: BLE001 - one topic; the others are stopped all the same
                    self._supervisor.note_crash("linger", topic.parsed.name, exc)

    async def _age_windows(self, heads: Mapping[TopicName, int]) -> dict[TopicName, int]:
        """Drop what was there at the last look, while all windows together are above half their budget.

        The other half is for bursts: a city that streams all day holds what somebody who was away for
        a moment needs, and not everything that may be held. The least recently needed goes first.

        Args:
            heads: Of the windows, at the last look.

        Returns:
            The same now.
        """
        for number, (name, topic) in enumerate(tuple(self._by_use.items()), start=1):
            if self._windows_bytes <= self._limits.windows_max_bytes // 2:
                break
            if number % _TOPICS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            if self._topics.get(name) is topic and name in heads:
                window = topic.window
                self._windows_bytes -= window.drop_oldest(heads[name] - window.base_seq + 1)
        return {name: topic.window.head_seq for name, topic in self._by_use.items()}

    async def _stop(self, topic: TopicActor) -> None:
        name = topic.parsed.name
        self._windows_bytes -= topic.window.memory_bytes
        self._by_use.pop(name, None)
        del self._topics[name]
        self.trace.close_topic(name)
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


def _compare(topic: TopicActor, since: ReadStart, seen: Observation, *, is_record_expected: bool) -> None:
    if topic.learn(seen, since, is_record_expected=is_record_expected):
        topic.check_rights(seen)
        topic.end_below_floor(seen)
