"""One task per live topic: turns lossy hints into ordered, gap-free frames in the window.

Started by registry.py for the first subscriber; stops ``topic_linger_s`` after the last leaves.
Reads driver records (hints) and the journal (truth); writes its window, and its subscribers'
sockets through their connections. Keeps INV-3 (ascending, no gaps) and INV-7 (bounded memory).
Who may subscribe: core/access_policy.py. From where: core/classification.py.

    offer_record / learn      synchronous, by the registry's tasks: change state, wake the task
    run                       heals gaps from the journal, then fans out

The one place where the window grows is ``_append``; fan-out only reads it. A record is used if
it continues our head in our chain; anything else makes the journal decide.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import attrs
import trio

from khala.core.access_policy import is_allowed
from khala.core.heartbeats import TopicHeartbeats
from khala.core.pages import Page
from khala.core.ranges import RangeKey
from khala.core.records import HeldRecords, RecordDecision, decide_record
from khala.core.subscription import (
    ENDED_UNREADABLE,
    NEEDS_PAGE,
    EndedForbidden,
    EndedStale,
    FrameUnreadableError,
    NeedsPage,
)
from khala.core.websocket_frames import frame_message
from khala.core.window import Window
from khala.ports import JournalUnavailableError
from khala_contracts import codec
from khala_contracts.codec import CursorStart, StaleReason
from khala_contracts.errors import WireError
from khala_service import failpoints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khala.actors.actor_ports import PageRequests, WindowBudget
    from khala.actors.page_reads import PageReads
    from khala.core.classification import Observation, SubscriptionStart
    from khala.core.counters import NodeCounters
    from khala.core.delivery_trace import TopicTrace
    from khala.core.limits import NodeLimits
    from khala.core.ranges import RangeCache
    from khala.core.subscription import Subscription, SubscriptionEnding
    from khala_contracts.fanout_records import FanoutRecord
    from khala_contracts.topics import ParsedTopic

# How often the fan-out loop looks at the clock; a look costs as much as a tenth of a send.
_FOLLOWERS_PER_CLOCK_LOOK: Final = 32
# How old, in intervals of the position check, an observation may be that answers a subscribe. Older: rights that
# the database would no longer give are used for longer. Younger: a slow check costs everybody a read in a storm.
_CHECKS_OLD_MAX: Final = 2.0


@attrs.frozen(eq=False)
class ReadStart:
    """Where a topic stood when a read of the journal began; its answer is compared with this."""

    head_seq: int
    history: object
    began_at: float


class TopicActor:
    """One topic on this node. Only ``run`` awaits; everything else is synchronous."""

    def __init__(
        self,
        parsed: ParsedTopic,
        *,
        limits: NodeLimits,
        counters: NodeCounters,
        reads: PageReads,
        pages: PageRequests[TopicActor],
        ranges: RangeCache,
        budget: WindowBudget[TopicActor],
        trace: TopicTrace,
    ) -> None:
        """Make a topic that knows nothing yet; ``learn`` gives it its first head."""
        self.parsed = parsed
        self.lineage = ""
        self.window = Window(limits.window_max_frames, limits.window_max_bytes)
        self.trace = trace
        self.heartbeats = TopicHeartbeats()
        # What the journal said last of head and floor; None before the first answer.
        self.observation: Observation | None = None
        # When the read began that brought it, or before that.
        self._observed_at = -float("inf")
        # In the order of joining; the values mean nothing.
        self.subscriptions: dict[Subscription, None] = {}
        # Subscribes that have opened this topic and have not joined yet.
        self.pending_joins = 0
        self.empty_since: float | None = trio.current_time()
        self._limits = limits
        self._counters = counters
        self._class_counters = counters.by_class[parsed.topic_class.name]
        self._reads = reads
        self._pages = pages
        self._ranges = ranges
        self._budget = budget
        self._held = HeldRecords(limits.held_records_max, limits.held_max_bytes)
        self._inbox: deque[FanoutRecord] = deque()
        # Invariant: _inbox_bytes is the sum of the sizes of all entries in _inbox.
        self._inbox_bytes = 0
        # Highest position that anybody credible has told us of. Healing is due while it is
        # above the head and nothing in the inbox or held closes the gap.
        self._known_head = 0
        self._heal_at: float | None = None
        # The journal is to be read at _heal_at even if no gap is known: something may have been
        # missed, or contradicts us.
        self._must_read = False
        # The head to which every subscriber has been brought, or told to go by itself.
        self._fanned_seq = -1
        self._wake = trio.Event()
        self._initialised = trio.Event()
        # Identity of the history that the window holds: what was read or framed before a change
        # of it is dropped after it.
        self.history = object()

    # -- what others tell it ---------------------------------------------------------------

    @property
    def head_seq(self) -> int:
        """Newest frame of the window."""
        return self.window.head_seq

    @property
    def head_chain(self) -> bytes:
        """Chain at the newest frame of the window."""
        return self.window.head_chain

    @property
    def is_initialised(self) -> bool:
        """Whether a head has been learned."""
        return bool(self.lineage)

    def begin_read(self) -> ReadStart:
        """Note where the topic stands; to be called before the read whose answer ``learn`` takes."""
        return ReadStart(self.window.head_seq, self.history, trio.current_time())

    def last_read_of(self, cursor: SubscriptionStart) -> tuple[Observation, ReadStart] | None:
        """Return what the journal said last if it answers a subscribe at this cursor: nothing has come after it.

        As if it had subscribed when that was read: what has changed since (a right, a lineage) is met by the next
        position check, as for everybody who follows; the floor cannot pass whoever stands at the head.
        """
        seen = self.observation
        is_recent = (
            trio.current_time() - self._observed_at
            <= _CHECKS_OLD_MAX * self._limits.position_check_interval_s
        )
        if seen is None or not is_recent or not isinstance(cursor, CursorStart):
            return None
        is_unchanged = (
            (cursor.lineage, cursor.seq) == (seen.lineage, seen.head_seq)
            and seen.head_seq == self.window.head_seq
            and cursor.chain in (b"", seen.head_chain)
        )
        begun = ReadStart(self.window.head_seq, self.history, self._observed_at)
        return (seen, begun) if is_unchanged else None

    def learn(self, observation: Observation, since: ReadStart, *, is_record_expected: bool = True) -> bool:
        """Take what the journal says: the first head, a newer head, or another history.

        Args:
            observation: Read after ``since`` was noted.
            since: Whatever we held then was committed and visible before it reached us, so a
                journal whose head is below it is another history.
            is_record_expected: False if the driver has lost something: what is missing is read at
                once, since no record is on its way.

        Returns:
            False, and nothing was done, if the history changed while the answer was on its way:
            an answer from before the change would undo it.
        """
        if since.history is not self.history:
            return False
        if since.began_at >= self._observed_at:
            self.observation, self._observed_at = observation, since.began_at
        if not self.is_initialised:
            self.lineage = observation.lineage
            self.window.reset(observation.head_seq, observation.head_chain)
            self._known_head = observation.head_seq
            self.trace.opened(observation.head_seq, trio.current_time())
            self._initialised.set()
            return True
        if self._contradicts(observation, since.head_seq):
            self._start_over(observation)
            return True
        if observation.head_seq > self._known_head:
            self.trace.checked.note(self._known_head + 1, observation.head_seq, trio.current_time())
            self._known_head = observation.head_seq
        if self._known_head > self.window.head_seq:
            if not is_record_expected:
                self._heal_at = trio.current_time()
                self._wake.set()
            elif self._heal_at is None:
                # The record is probably on its way; a read is only due if it does not arrive.
                self._heal_at = trio.current_time() + self._limits.heal_delay_s
                self._wake.set()
        return True

    def check_rights(self, observation: Observation) -> None:
        """End the subscriptions whose right no longer holds on the head row."""
        for subscription in tuple(self.subscriptions):
            if not is_allowed(
                subscription.claims,
                subscription.grant,
                self.parsed,
                observation.rights,
                exists=observation.exists,
            ):
                subscription.sink.finish_subscription(subscription, EndedForbidden())

    def end_below_floor(self, observation: Observation) -> None:
        """End the subscriptions that the floor has passed and the window cannot serve."""
        for subscription in tuple(self.subscriptions):
            passed = subscription.position + 1 < observation.floor_seq
            if passed and not self.window.covers(subscription.position):
                if subscription.page is not None:
                    continue
                subscription.sink.finish_subscription(
                    subscription, EndedStale(observation.floor_reason, observation)
                )

    def offer_record(self, record: FanoutRecord) -> None:
        """Take one authentic record; what does not fit becomes a hint."""
        if record.lineage == self.lineage:
            self.trace.heard(record, trio.current_time())
        size = sum(map(len, record.entries))
        is_full = len(self._inbox) >= self._limits.held_records_max
        if is_full or self._inbox_bytes + size > self._limits.inbox_max_bytes:
            self._counters.records["overflow"] += 1
            self.position_unknown()
            return
        self._inbox.append(record)
        self._inbox_bytes += size
        self._wake.set()

    def position_unknown(self) -> None:
        """Something may have been missed: read the journal now."""
        self._must_read = True
        self._heal_at = trio.current_time()
        self._wake.set()

    def join(self, subscription: Subscription) -> None:
        """Take a subscriber; it is fanned out to from now on."""
        self.subscriptions[subscription] = None
        self.empty_since = None

    def leave(self, subscription: Subscription) -> None:
        """Forget a subscriber."""
        self.subscriptions.pop(subscription, None)
        if not self.subscriptions:
            self.empty_since = trio.current_time()

    def _contradicts(self, seen: Observation, head_before: int) -> bool:
        """Whether the journal no longer holds what we have sent: another history."""
        if seen.lineage != self.lineage or seen.head_seq < head_before:
            return True
        window = self.window
        return seen.head_seq == window.head_seq and seen.head_chain != window.head_chain

    def _start_over(self, observation: Observation) -> None:
        """The journal has another history: drop everything and end the subscriptions."""
        self.history = object()
        self._account(-self.window.memory_bytes)
        self.lineage = observation.lineage
        self.observation = observation
        self._observed_at = -float("inf")
        self.window.reset(observation.head_seq, observation.head_chain)
        self.trace.restarted(observation.head_seq, trio.current_time())
        self._held.clear()
        self._inbox.clear()
        self._inbox_bytes = 0
        self._known_head = observation.head_seq
        self._heal_at = None
        self._must_read = False
        ending = EndedStale(StaleReason.LINEAGE_MISMATCH, observation)
        for subscription in tuple(self.subscriptions):
            subscription.sink.finish_subscription(subscription, ending)

    # -- the task ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the topic until cancelled; an exception here ends this topic's turn only.

        Cancellation: safe at every await; the window holds whole frames only.
        """
        # Records that arrive while the first head is being read wait in the inbox.
        await self._initialised.wait()
        while True:
            await self._wait_work()
            failpoints.hit("node.topic")
            self._take_inbox()
            if self._heal_at is not None and trio.current_time() >= self._heal_at:
                await self._heal()
                # What is held above the gap now continues the head, or has been read.
                self._take_inbox()
            if self.window.head_seq != self._fanned_seq:
                await self._fan_out()

    async def _wait_work(self) -> None:
        if not self._inbox:
            if self._heal_at is None:
                await self._wake.wait()
            else:
                with trio.move_on_at(self._heal_at):
                    await self._wake.wait()
        # Whatever set it is looked at before the next await, so that nothing is slept over.
        if self._wake.is_set():
            self._wake = trio.Event()

    def _take_inbox(self) -> None:
        """Apply, hold or drop the records that have arrived; decide whether a read is due."""
        while self._inbox:
            record = self._inbox.popleft()
            self._inbox_bytes -= sum(map(len, record.entries))
            self._take_record(record)
        while (held := self._held.take_from(self.window.head_seq)) is not None:
            self._take_record(held)
        if self._known_head <= self.window.head_seq and not self._must_read:
            self._heal_at = None
        elif self._heal_at is None:
            self._heal_at = trio.current_time() + self._limits.heal_delay_s

    def _take_record(self, record: FanoutRecord) -> None:
        decision = decide_record(
            record,
            lineage=self.lineage,
            head_seq=self.window.head_seq,
            head_chain=self.window.head_chain,
        )
        self._counters.records[decision.value] += 1
        match decision:
            case RecordDecision.APPLY:
                self._append(record.entries, record.chain_after, is_healed=False)
            case RecordDecision.DUPLICATE:
                return
            case RecordDecision.HOLD:
                self._held.hold(record)
            case RecordDecision.HINT:
                pass
            case RecordDecision.OTHER_LINEAGE | RecordDecision.CONFLICT:
                # Not ours to believe: the journal says what the history is.
                self._must_read = True
                self._heal_at = trio.current_time()
                return
        self._known_head = max(self._known_head, record.last_seq, self.window.head_seq)

    def _append(self, entries: Sequence[bytes], head_chain: bytes, *, is_healed: bool) -> None:
        before, first_seq = self.window.memory_bytes, self.window.head_seq + 1
        self.window.extend(entries, head_chain)
        self.trace.grew(first_seq, self.window.head_seq, trio.current_time(), is_healed=is_healed)
        self._class_counters.frames_appended += len(entries)
        self._class_counters.bytes_appended += sum(map(len, entries))
        self._account(self.window.memory_bytes - before)
        failpoints.hit("node.after_append")

    def _begin_window_at(self, seen: Observation) -> None:
        self._account(-self.window.memory_bytes)
        self.window.reset(seen.head_seq, seen.head_chain)
        self.trace.opened(seen.head_seq, trio.current_time())

    def _account(self, byte_count: int) -> None:
        if byte_count:
            self._budget.grew(self, byte_count)

    async def _heal(self) -> None:
        """Read what follows the head from the journal; one page, then the loop decides again.

        On trouble: stay where we are and try again later; the subscribers wait, nothing is lost.
        """
        self._heal_at = None
        must_read, self._must_read = self._must_read, False
        head_before = self.window.head_seq
        history = self.history
        try:
            page = await self._reads.read_page(self.parsed.name, head_before, is_heal=True)
        except JournalUnavailableError as exc:
            self._must_read |= must_read
            self._heal_at = trio.current_time() + exc.retry_after_s
            return
        if history is self.history:
            self._use_page(page, head_before)

    def _use_page(self, page: Page, head_before: int) -> None:
        seen = page.observation
        if self._contradicts(seen, head_before):
            self._start_over(seen)
            return
        # Nothing else appends while this task awaits, so the page continues our head.
        assert self.window.head_seq == head_before, (self.window.head_seq, head_before)
        if page.unreadable_seq is not None:
            # The window goes on behind the row that cannot be read. Whoever stands before it replays
            # up to it by pages, and is ended there (take_page); nobody else notices.
            self._begin_window_at(seen)
        elif page.last_seq > head_before:
            self._counters.heals += 1
            self._append(page.entries(head_before, page.last_seq), page.last_chain, is_healed=True)
        elif seen.floor_seq > head_before + 1:
            # Nobody followed while retention passed our head: begin again at the journal's.
            self._begin_window_at(seen)
        # A hint may have claimed more than was ever committed; only the journal counts.
        self._known_head = max(seen.head_seq, self.window.head_seq)
        if self._known_head > self.window.head_seq:
            self._heal_at = trio.current_time()

    async def _fan_out(self) -> None:
        """Bring every subscriber that waits at the old head to the new one.

        Iterates over a copy: a subscriber that leaves during a yield is no longer live and skipped;
        one that joins sends by itself; each has its own position, so nobody is sent twice.
        """
        head_seq = self.window.head_seq
        history = self.history
        began_at = trio.current_time()
        shared, shared_size, shared_position = b"", 0, -1
        # Looked at once: only a connection's own turn can hand over a part of a frame.
        is_halved = failpoints.is_armed("node.mid_frame")
        followers = tuple(self.subscriptions)
        deliveries, turn_began, turn_ends_at = 0, 0, began_at + self._limits.fanout_quantum_s
        for start in range(0, len(followers), _FOLLOWERS_PER_CLOCK_LOOK):
            for subscription in followers[start : start + _FOLLOWERS_PER_CLOCK_LOOK]:
                send = subscription.direct
                if send is None or is_halved:
                    if subscription.has_frames:
                        subscription.sink.wake(subscription)
                    continue
                if subscription.position != shared_position:
                    if subscription.position >= head_seq:
                        continue
                    framed = self._frame_live(subscription.position, head_seq)
                    if framed is None:
                        subscription.sink.wake(subscription)
                        continue
                    shared, shared_size, shared_position = framed, len(framed), subscription.position
                try:
                    sent = send(shared)
                except BlockingIOError:
                    sent = 0
                except Exception as exc:  # noqa: BLE001 - one client's socket, or its bug; the others wait
                    subscription.sink.break_off(exc)
                    continue
                deliveries += 1
                if sent == shared_size:
                    # Who sends directly holds no page, so that this is all of ``advance``.
                    subscription.position = head_seq
                else:
                    subscription.sink.keep_unsent(subscription, shared, sent, head_seq)
            seen = start + _FOLLOWERS_PER_CLOCK_LOOK
            if seen - turn_began >= self._limits.fanout_quantum_sends or trio.current_time() >= turn_ends_at:
                self._class_counters.deliveries += deliveries
                deliveries, turn_began = 0, seen
                await trio.lowlevel.checkpoint()
                if history is not self.history:
                    return
                turn_ends_at = trio.current_time() + self._limits.fanout_quantum_s
        self._fanned_seq = head_seq
        self._class_counters.deliveries += deliveries
        self.trace.fanned(head_seq, began_at, trio.current_time())

    def _frame_live(self, position: int, head_seq: int) -> bytes | None:
        """Return everything after position as one framed range, if it is one chunk."""
        if not self.window.covers(position):
            return None
        end_seq = self.window.choose_end(position, max_bytes=self._limits.chunk_max_bytes, last_seq=head_seq)
        if end_seq != head_seq:
            return None
        return self._frame(position, end_seq, self.window.entries(position, end_seq))

    def _frame(self, position: int, end_seq: int, entries: list[bytes]) -> bytes:
        key = RangeKey(self.parsed.name, self.history, position, end_seq, is_text=False)
        framed = self._ranges.get(key)
        if framed is None:
            framed = frame_message(b"".join(entries))
            self._ranges.put(key, framed)
        return framed

    # -- what subscriptions send from --------------------------------------------------------------

    def appended_at(self, seq: int) -> float | None:
        """When the frame entered the window, or shortly after that; see RangeSource."""
        passed = self.trace.appended.find(seq)
        return passed.last_at if passed is not None else None

    def bytes_after(self, position: int) -> int | None:
        """Encoded bytes after ``position``, if the window holds them all; see RangeSource."""
        return self.window.bytes_after(position)

    def holds_after(self, position: int) -> bool:
        """Whether the window has everything after ``position``; see RangeSource."""
        return self.window.covers(position)

    def frame_range(
        self, subscription: Subscription, *, max_bytes: int, is_text: bool
    ) -> bytes | NeedsPage | None:
        """Advance a subscription over its next range; see RangeSource."""
        position = subscription.position
        source = self._source_of(subscription)
        if source is None:
            return NEEDS_PAGE
        if isinstance(source, Page):
            if position > source.after_seq:
                failpoints.hit("node.mid_page")
            elif source.last_seq < subscription.limit_seq and not self.window.covers(source.last_seq):
                # At its first bytes: while the kernel takes this page the database joins the next.
                self._pages.read_ahead(self, subscription)
        else:
            self._budget.needed(self)
        end_seq = source.choose_end(position, max_bytes=max_bytes, last_seq=subscription.limit_seq)
        if end_seq is None:
            return None
        key = RangeKey(self.parsed.name, self.history, position, end_seq, is_text)
        framed = self._ranges.get(key)
        if framed is None:
            try:
                framed = _encode_range(source, position, end_seq, is_text=is_text)
            except (WireError, ValueError) as exc:
                raise FrameUnreadableError(subscription) from exc
            self._ranges.put(key, framed)
        subscription.note.pump(position + 1, end_seq, trio.current_time())
        subscription.chunk_frames = end_seq - position
        subscription.turn_bytes += len(framed)
        subscription.advance(end_seq)
        return framed

    def _source_of(self, subscription: Subscription) -> Page | Window | None:
        position = subscription.position
        if subscription.page is not None:
            # A page is dropped by the step that reaches its end, so it has the next frame.
            return subscription.page
        if self.window.covers(position) and position < self.window.head_seq:
            return self.window
        return None

    def request_page(self, subscription: Subscription) -> None:
        """Have the next page read; see RangeSource."""
        subscription.is_waiting_for_page = True
        self._pages.request(self, subscription)

    def take_page(self, subscription: Subscription, page: Page) -> None:
        """Give a waiting subscription its page, or end it if the floor has passed it."""
        is_waited_for, subscription.is_waiting_for_page = subscription.is_waiting_for_page, False
        subscription.is_reading_ahead = False
        if not subscription.is_active:
            return
        if not is_waited_for:
            self._take_ahead(subscription, page)
            return
        ending = self._judge_page(subscription, page)
        if ending is not None:
            subscription.sink.finish_subscription(subscription, ending)
            return
        if page.covers(subscription.position):
            page.users += 1
            subscription.page = page
            subscription.settle_direct()
        subscription.sink.wake(subscription)

    def _take_ahead(self, subscription: Subscription, page: Page) -> None:
        current = subscription.page
        position = subscription.position if current is None else current.last_seq
        if page.observation.lineage != self.lineage or not page.covers(position):
            # What is wrong with it is judged when the subscription gets there, on a read of that time.
            return
        page.users += 1
        if current is None:
            subscription.page = page
        else:
            subscription.ahead = page

    def _judge_page(self, subscription: Subscription, page: Page) -> SubscriptionEnding | None:
        seen = page.observation
        if seen.lineage != self.lineage or seen.head_seq < subscription.position:
            return EndedStale(StaleReason.LINEAGE_MISMATCH, seen)
        if not page.covers(subscription.position) and subscription.position + 1 < seen.floor_seq:
            return EndedStale(seen.floor_reason, seen)
        if page.unreadable_seq == subscription.position + 1:
            return ENDED_UNREADABLE
        return None


def _encode_range(source: Page | Window, position: int, end_seq: int, *, is_text: bool) -> bytes:
    if is_text:
        frames = b",".join(codec.frame_json(e) for e in source.entries(position, end_seq))
        return frame_message(b'{"frames":[' + frames + b"]}", is_text=True)
    if isinstance(source, Window):
        return frame_message(b"".join(source.entries(position, end_seq)))
    return frame_message(source.joined(position, end_seq))
