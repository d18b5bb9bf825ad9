"""Tells the nodes what was committed: sealed copies through the fan-out driver, after the commit.

Started by app.py; fed by the appender with a synchronous call that never waits, so a slow or broken
driver delays no commit. Whatever gets lost here is found by the nodes' position checks, twice a second;
so nothing is announced when a runtime starts either: what its predecessor committed and did not tell is
found the same way (INV-20).

What a commit offers goes to the driver in that very step if the driver can take it so and nothing waits before
it; a turn of our task, of the driver's and of its connection's would each come after everybody else's. The task
publishes what is left. A driver with a second way for hints (``HintsBeside``) is told of each commit before all that,
also during a pause: it knows best whether nodes miss its first one.

Invariants:
1. Records of one topic are published in the order of their seqs among what is waiting.
2. At most ``relay_bytes_max`` bytes of copies and TOPICS_MAX topics wait (INV-7). Beyond the bytes, a
   topic's copies shrink to one pure hint; beyond the topics, news of further topics is dropped.
3. One record occupies the driver for at most PUBLISH_TIMEOUT_S. A driver that takes nothing is left alone
   for a pause that doubles up to RETRY_MAX_S, or until it says that it is healthy again; meanwhile every
   topic's news is one hint. No jitter: one runtime publishes, and drivers reconnect by themselves.
4. An exception in the news of one topic costs that topic its copies and no other topic anything
   (INV-21): no pause either. Only when the driver itself has failed for CRASHED_TOPICS_MAX topics and
   taken nothing meanwhile, it is the driver's fault, and pauses as in 3.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import trio

from fanout_drivers.base import HintsBeside, PublishesAtOnce
from khala_service.errors import Unavailable
from khala_service.failpoints import hit
from khala_service.logs import get_logger
from runtime.core.record_copies import TopicNews, hint_of_head, join_hints
from runtime.core.relayed_records import RelayedRecords

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fanout_drivers.base import FanoutDriver
    from khala_contracts.fanout_records import FanoutRecord, RecordSigner
    from khala_contracts.topics import Lineage, TopicName
    from runtime.core.batch_commit import CommittedTopic
    from runtime.ports import Clock, CommitListener, RelayMetrics, TopicRecord

__all__ = ["TOPICS_MAX", "Relay"]

# Topics with news that wait at once. A driver that is this far behind is down.
TOPICS_MAX: Final = 10_000
# A driver never waits for a broker (fanout_drivers/base.py). Longer: one that does holds up every topic.
PUBLISH_TIMEOUT_S: Final = 1.0
# A driver reconnects by itself; these are the pauses before we try one that does not say how it is.
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 30.0
# Fewer: topics whose news no driver can take delay the others. More: more tracebacks between two pauses.
CRASHED_TOPICS_MAX: Final = 3
# Topics of one commit that are told in its step. More: its callers wait for their answers, each 0.1 ms.
AT_ONCE_TOPICS_MAX: Final = 16
# Longer: copies come back later after a broker has. A check is a look at what the driver knows.
HEALTH_CHECK_S: Final = 0.5
_US_PER_S: Final = 1_000_000

_log = get_logger(__name__)


class _DriverAway(Exception):
    """The driver did not take a record: nothing is wrong with the record."""


class Relay:
    """Bounded waiting room between the commits and the driver."""

    def __init__(
        self,
        driver: FanoutDriver,
        signer: RecordSigner,
        *,
        clock: Clock,
        metrics: RelayMetrics,
        bytes_max: int,
        relayed: RelayedRecords | None = None,
    ) -> None:
        self._driver = driver
        self._at_once = driver if isinstance(driver, PublishesAtOnce) else None
        self._beside = driver if isinstance(driver, HintsBeside) else None
        self._signer = signer
        self._clock = clock
        self._metrics = metrics
        self.bytes_max = bytes_max
        self._relayed = relayed if relayed is not None else RelayedRecords()
        # In the order in which the topics got news.
        self._news: dict[TopicName, TopicNews] = {}
        self._listeners: list[CommitListener] = []
        # Invariant: the sum of size_bytes over all news.
        self._waiting_bytes = 0
        self._has_news = trio.Event()
        # What the driver has in its hands.
        self._publishing: TopicNews | None = None
        # Whether the driver takes nothing, as far as we know.
        self._is_failing = False
        self._retry_in_s = RETRY_FIRST_S
        # When to try it again; None: now.
        self._retry_at: float | None = None
        # What it said last; to be compared with what it says next.
        self._was_healthy = True
        # Topics for which the driver itself has failed since it took something, or paused.
        self._crashed_topics: set[TopicName] = set()

    @property
    def waiting_bytes(self) -> int:
        """Payload bytes of the copies that wait."""
        return self._waiting_bytes

    @property
    def waiting_topics(self) -> int:
        """Topics with news that wait."""
        return len(self._news)

    @property
    def lag_s(self) -> float:
        """Age of the oldest news that the driver has not taken, seconds; 0 if there is none."""
        waiting = [news.seen_at for news in self._news.values()]
        if self._publishing is not None:
            waiting.append(self._publishing.seen_at)
        return trio.current_time() - min(waiting) if waiting else 0.0

    def listen(self, listener: CommitListener) -> None:
        """Tell another part of this process, too, what is committed from now on."""
        self._listeners.append(listener)

    def offer(self, committed: Sequence[CommittedTopic], *, lineage: Lineage) -> None:
        """Take what one transaction committed to this lineage. Never waits, never fails."""
        for listener in self._listeners:
            listener.offer(committed, lineage=lineage)
        self._hint_beside()
        seen_at_us = self._now_us()
        for commit in committed:
            news = self._news_of(commit.topic, lineage, seen_at_us)
            if news is not None:
                self._add(news, commit)
        if self._at_once is not None and not self._is_failing and self._publishing is None:
            for topic in tuple(islice(self._news, AT_ONCE_TOPICS_MAX)):
                if not self._publish_at_once(self._at_once, topic):
                    break
        if self._news:
            self._has_news.set()

    def offer_heads(self, heads: Iterable[TopicRecord]) -> None:
        """Take the positions of topics that have moved by nobody knows what. Never waits, never fails."""
        self._hint_beside()
        seen_at_us = self._now_us()
        for head in heads:
            if not head.head_seq:
                continue
            news = self._news_of(head.topic, head.lineage, seen_at_us)
            if news is not None:
                hint = hint_of_head(
                    head.topic,
                    lineage=head.lineage,
                    head_seq=head.head_seq,
                    head_chain=head.head_chain,
                    seen_at_us=seen_at_us,
                )
                self._shrink(news)
                news.hint = join_hints(news.hint, hint)
        self._has_news.set()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Publish what is offered, until cancelled. What still waits then is dropped."""
        task_status.started()
        while True:
            while not self._news:
                self._has_news = trio.Event()
                await self._has_news.wait()
            if self._retry_at is not None:
                await self._wait_driver(self._retry_at)
            topic = next(iter(self._news))
            news = self._publishing = self._news.pop(topic)
            self._waiting_bytes -= news.size_bytes
            try:
                await self._publish_contained(topic, news)
                if len(self._crashed_topics) >= CRASHED_TOPICS_MAX:
                    self._begin_pause("driver_crashed")
            except _DriverAway as away:
                self._begin_absence(topic, news, str(away))
            finally:
                self._publishing = None

    def _hint_beside(self) -> None:
        """Let a driver that is away or heals tell nodes by its second way; what it does then is its own affair."""
        if self._beside is None:
            return
        try:
            self._beside.hint_beside_nowait()
        except Exception:  # noqa: BLE001 - a driver may be anybody's; a hint less is no loss
            _log.exception("hint_beside_failed", driver=self._driver.name)

    def _publish_at_once(self, driver: PublishesAtOnce, topic: TopicName) -> bool:
        """Hand a topic's news over without waiting; return False if the task must do it, perhaps again.

        Only a single record: of several the driver may take the first and not the second.
        """
        news, started = self._news[topic], trio.current_time()
        entries_max_bytes = self._driver.entries_max_bytes
        if news.size_bytes > entries_max_bytes:
            return False
        try:
            records = list(islice(news.records(entries_max_bytes=entries_max_bytes), 2))
            if len(records) != 1 or not driver.publish_nowait(topic, self._signer.seal(records[0])):
                return False
            self._note_published(records[0], started)
        except Exception:  # noqa: BLE001 - the task meets the same, and contains it
            return False
        self._waiting_bytes -= news.size_bytes
        del self._news[topic]
        return True

    async def _publish_contained(self, topic: TopicName, news: TopicNews) -> None:
        """Publish a topic's news; if that fails because of its content, the bare range of it."""
        for is_second_try in (False, True):
            try:
                if is_second_try:
                    news.shrink()
                for record in news.records(entries_max_bytes=self._driver.entries_max_bytes):
                    await self._publish(topic, record)
            except _DriverAway:
                raise
            except Exception as error:  # noqa: BLE001 - the one place that contains a topic's news
                self._metrics.poisoned()
                self._metrics.copies_dropped(max(1, len(news.copies)))
                _log.error(
                    "relay_poisoned",
                    topic=topic,
                    driver=self._driver.name,
                    error=type(error).__name__,
                    # Once for the same piece of news.
                    exc_info=None if is_second_try else error,
                )
                if not news.copies:
                    return
            else:
                return

    async def _publish(self, topic: TopicName, record: FanoutRecord) -> None:
        """Hand one record over.

        Raises:
            _DriverAway: The driver did not take it.
        """
        sealed = self._signer.seal(record)
        started = trio.current_time()
        try:
            with trio.fail_after(PUBLISH_TIMEOUT_S):
                await self._driver.publish(topic, sealed)
        except trio.TooSlowError as error:
            self._metrics.publish_failed("timeout")
            raise _DriverAway("timeout") from error
        except Unavailable as error:
            self._metrics.publish_failed("unavailable")
            raise _DriverAway(error.reason) from error
        except Exception:
            self._crashed_topics.add(topic)
            raise
        if self._is_failing:
            _log.info("driver_back", driver=self._driver.name)
        self._is_failing = False
        self._retry_in_s = RETRY_FIRST_S
        self._was_healthy = True
        self._note_published(record, started)

    def _note_published(self, record: FanoutRecord, started: float) -> None:
        self._crashed_topics.clear()
        hit("runtime.after_hint")
        self._metrics.published(is_copy=bool(record.entries), duration_s=trio.current_time() - started)
        self._relayed.add(record, driver=self._driver.name, published_at_us=self._now_us())

    def _begin_absence(self, topic: TopicName, news: TopicNews, reason: str) -> None:
        """Keep of everything that waits what a driver will want to know once it is back."""
        if news.copies:
            self._metrics.copies_dropped(len(news.copies))
        news.shrink()
        later = self._news.pop(topic, None)
        if later is not None:
            self._shrink(later)
            if later.hint is not None:
                news.hint = join_hints(news.hint, later.hint)
        if len(self._news) < TOPICS_MAX:
            # The first again: it has waited for longest.
            self._news = {topic: news, **self._news}
        self._begin_pause(reason)

    def _begin_pause(self, reason: str) -> None:
        """Leave the driver alone for a while; every topic that waits becomes one hint."""
        for waiting in self._news.values():
            self._shrink(waiting)
        self._crashed_topics.clear()
        _log.warning(
            "driver_away",
            driver=self._driver.name,
            reason=reason,
            topics=len(self._news),
            retry_in_s=self._retry_in_s,
        )
        self._is_failing = True
        self._retry_at = trio.current_time() + self._retry_in_s

    async def _wait_driver(self, retry_at: float) -> None:
        """Wait until the driver has become healthy since it said last that it is not, or until this time."""
        with trio.move_on_at(retry_at) as pause:
            while True:
                was_healthy, self._was_healthy = self._was_healthy, await self._is_healthy()
                if self._was_healthy and not was_healthy:
                    break
                await trio.sleep(HEALTH_CHECK_S)
        self._retry_at = None
        self._retry_in_s = min(2 * self._retry_in_s, RETRY_MAX_S) if pause.cancelled_caught else RETRY_FIRST_S

    async def _is_healthy(self) -> bool:
        try:
            return await self._driver.check_health()
        except Exception:  # noqa: BLE001 - a driver may be anybody's; broken means not healthy
            return False

    def _news_of(self, topic: TopicName, lineage: Lineage, seen_at_us: int) -> TopicNews | None:
        """Return what waits for a topic, to be added to; None if there is no room for another topic."""
        news = self._news.get(topic)
        if news is None:
            if len(self._news) >= TOPICS_MAX:
                self._metrics.copies_dropped(1)
                return None
            news = self._news[topic] = TopicNews(lineage, seen_at_us, trio.current_time())
        return news

    def _add(self, news: TopicNews, commit: CommittedTopic) -> None:
        size_bytes = sum(map(len, commit.payloads))
        news.copies.append(commit)
        # Two writers may hand over the same topic's commits in the wrong order.
        if len(news.copies) > 1 and news.copies[-2].first_seq > commit.first_seq:
            news.copies.sort(key=lambda copy: copy.first_seq)
        news.size_bytes += size_bytes
        self._waiting_bytes += size_bytes
        if news.hint is not None or self._is_failing or self._waiting_bytes > self.bytes_max:
            self._shrink(news)

    def _shrink(self, news: TopicNews) -> None:
        """Replace the copies of a topic that waits by the range that they cover."""
        if news.copies:
            self._metrics.copies_dropped(len(news.copies))
        self._waiting_bytes -= news.size_bytes
        news.shrink()

    def _now_us(self) -> int:
        return int(self._clock.now() * _US_PER_S)
