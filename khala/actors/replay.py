"""Journal pages for subscriptions that stand behind the window, each page read once.

One read is in flight per (topic, position) however many wait for it (how many at once: page_reads.py),
and ``pages_max_bytes`` of pages are held (INV-7). The newest replay waits; live delivery never does,
since it reads the window. Trouble is retried here and nowhere else, with backoff and jitter, while the
subscriptions wait: their cursors stay valid. A read that crashes is repeated ``CRASHES_MAX`` times; then
the subscriptions that wait for it end with ``unavailable``, and no others (INV-9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from khala.core.subscription import EndedTrouble
from khala.ports import JournalUnavailableError
from khala_contracts import reason_codes

if TYPE_CHECKING:
    from khala.actors.page_reads import PageReads
    from khala.actors.supervision import Supervisor
    from khala.actors.topic import TopicActor
    from khala.core.counters import NodeCounters
    from khala.core.limits import NodeLimits
    from khala.core.pages import Page
    from khala.core.subscription import Subscription
    from khala.ports import Rng
    from khala_contracts.topics import TopicName

RETRY_FIRST_S: Final = 0.25
# Longer: a replay goes on late after an outage (SPEC: 5 s after the database is back).
RETRY_MAX_S: Final = 2.0
# Further attempts of one read after a bug in it.
CRASHES_MAX: Final = 3
# Subscriptions that get a page before others get a turn; each may send a quarter of a MiB at once, in about 0.1 ms.
HANDED_PER_TURN: Final = 16


class PageReader:
    """Reads pages in its nursery and hands them to whoever waits."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        reads: PageReads,
        limits: NodeLimits,
        counters: NodeCounters,
        supervisor: Supervisor,
        rng: Rng,
    ) -> None:
        """Read into ``nursery``, which outlives every connection."""
        self._nursery = nursery
        self._reads = reads
        self._limits = limits
        self._counters = counters
        self._supervisor = supervisor
        self._rng = rng
        # Replays that read, wait for room or for the next attempt; the newest wait for a place here, and
        # take a reader's turn for a read only.
        self._replays = trio.CapacityLimiter(limits.journal_readers_max)
        # By history, not by topic: a read that began before the journal was restored must not
        # answer a replay that began after it.
        self._waiting: dict[tuple[object, int], list[tuple[TopicActor, Subscription]]] = {}
        # Invariant: _held_bytes is the sum of len(page.blob) over all of _held.
        self._held: dict[tuple[object, int], Page] = {}
        self._held_bytes = 0
        self._freed = trio.Event()

    @property
    def held_bytes(self) -> int:
        """Bytes of pages that subscriptions still send from."""
        self._forget_unused()
        return self._held_bytes

    def request(self, topic: TopicActor, subscription: Subscription) -> None:
        """Bring the subscription the page after its position; see PageRequests."""
        # The page that it has read ahead for is the one that it waits for now.
        if not subscription.is_reading_ahead:
            self._ask((topic.history, subscription.position), topic, subscription)

    def read_ahead(self, topic: TopicActor, subscription: Subscription) -> None:
        """Bring the subscription the page after its page; see PageRequests.

        Only while half of the pages' bytes are free and no replay waits for its turn: what is read
        ahead for a client that then takes nothing must not keep others waiting.
        """
        assert subscription.page is not None
        is_spare = self._replays.available_tokens > 0 and 2 * self.held_bytes < self._limits.pages_max_bytes
        if is_spare and not subscription.is_reading_ahead:
            subscription.is_reading_ahead = True
            self._ask((topic.history, subscription.page.last_seq), topic, subscription)

    def _ask(self, key: tuple[object, int], topic: TopicActor, subscription: Subscription) -> None:
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append((topic, subscription))
            return
        self._waiting[key] = [(topic, subscription)]
        self._nursery.start_soon(self._read, topic.parsed.name, key)

    async def _read(self, topic: TopicName, key: tuple[object, int]) -> None:
        held = self._held.get(key)
        if held is not None and held.users > 0:
            # Not at once: the caller is inside its own turn, and a page handed over now would
            # make it send from within itself.
            await trio.lowlevel.checkpoint()
            await self._hand_over(key, held)
            return
        async with self._replays:
            await self._wait_for_room()
            page = await self._read_until_answered(topic, key[1])
        if page is None:
            self._give_up(key)
        else:
            await self._hand_over(key, page)

    async def _wait_for_room(self) -> None:
        while self.held_bytes >= self._limits.pages_max_bytes:
            self._freed = trio.Event()
            with trio.move_on_after(RETRY_FIRST_S):
                await self._freed.wait()

    async def _read_until_answered(self, topic: TopicName, after_seq: int) -> Page | None:
        """Return the page, however long the journal is away; None if the read crashes again and again."""
        wait_s, crashes = RETRY_FIRST_S, 0
        while True:
            try:
                page = await self._reads.read_page(topic, after_seq, is_heal=False)
            except JournalUnavailableError as exc:
                self._counters.page_read_failures += 1
                advised_s = exc.retry_after_s
            except Exception as exc:  # noqa: BLE001 - this is where a read's crash ends
                crashes += 1
                is_over = crashes > CRASHES_MAX
                self._supervisor.note_crash("page_read", topic, exc, restart_in_s=None if is_over else wait_s)
                if is_over:
                    return None
                advised_s = 0.0
            else:
                self._counters.pages_read += 1
                return page
            # Half of it is jitter: whoever waited for the same database must not return as one.
            await trio.sleep(max(advised_s, wait_s / 2) + self._rng.random() * wait_s / 2)
            wait_s = min(wait_s * 2, RETRY_MAX_S)

    def _give_up(self, key: tuple[object, int]) -> None:
        for _, subscription in self._waiting.pop(key):
            subscription.is_reading_ahead = False
            if subscription.is_waiting_for_page:
                ending = EndedTrouble(reason_codes.UNAVAILABLE, RETRY_MAX_S)
                subscription.sink.finish_subscription(subscription, ending)

    async def _hand_over(self, key: tuple[object, int], page: Page) -> None:
        if key not in self._held:
            # Before anybody begins to send from it, and perhaps reads ahead: it counts.
            self._held[key] = page
            self._held_bytes += len(page.blob)
        # We use it until the last has it: the first may have sent it all before that.
        page.users += 1
        for number, (topic, subscription) in enumerate(self._waiting.pop(key), start=1):
            try:
                topic.take_page(subscription, page)
            except Exception as exc:  # noqa: BLE001 - one subscription; the others get their page
                self._supervisor.note_crash("page_read", topic.parsed.name, exc)
                ending = EndedTrouble(reason_codes.INTERNAL, RETRY_MAX_S)
                subscription.sink.finish_subscription(subscription, ending)
            if number % HANDED_PER_TURN == 0:
                # Who asks for the same page meanwhile is served by a task of its own.
                await trio.lowlevel.checkpoint()
        page.users -= 1
        self._forget_unused()

    def _forget_unused(self) -> None:
        for key in [key for key, page in self._held.items() if page.users <= 0]:
            self._held_bytes -= len(self._held.pop(key).blob)
            self._freed.set()
