"""What a node remembers of its deliveries, so that it can explain each of them; in bounded memory.

Three kinds of notes, all written where something happens once for many: when a record arrives, when a
topic's window grows, when a fan-out is over, when a subscription starts or ends, when a chunk is put
on a connection in its turn. The direct path writes nothing for a delivery: what went that way went
between the beginning and the end of its fan-out.

    TopicTrace         one per live topic, and the newest ``trace_topics_max`` that are no longer live; each has
                       up to ``trace_marks_max`` marks, and as few as 8 where many more topics are live than that
    SubscriptionNote   the newest ``trace_subscriptions_max``, refused and ended ones included

Times are monotonic seconds of this process; whoever shows them turns them into wall time. Bounds only
widen with age (core/seq_times.py): an answer says "between", and never what was not seen.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

import attrs

from khala.core.seq_times import SeqTimes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from khala.core.classification import Observation
    from khala.core.limits import NodeLimits
    from khala_contracts.fanout_records import FanoutRecord
    from khala_contracts.topics import TopicName

# Chunks of one subscription that went out in turn: a replay has a few, a slow client many.
_MARKS_PER_SUBSCRIPTION: Final = 32
# However many topics are live. Fewer: bounds of minutes after the first few frames.
_MARKS_MIN: Final = 8


@attrs.define(eq=False)
class TopicTrace:
    """What happened to one topic on this node.

    Attributes:
        opened_at: When it became live here; None before its first head is known.
        opened_head_seq: Its head then. Frames up to it never came here by themselves: they are read
            from the journal for whoever asks for them.
        announced: When a copy or a hint of the driver named the frame first.
        published: Unix time that the record carries: when the runtime saw the commit return.
        checked: When a position check, or a subscribe, saw it in the head.
        appended: When it entered the window.
        healed: Those of them that came from the journal.
        fanned_out: Beginning and end of the fan-out that brought it to live subscribers.
    """

    topic: TopicName
    max_marks: int
    opened_at: float | None = attrs.field(default=None, init=False)
    opened_head_seq: int = attrs.field(default=0, init=False)
    announced: SeqTimes = attrs.field(init=False)
    published: SeqTimes = attrs.field(init=False)
    checked: SeqTimes = attrs.field(init=False)
    appended: SeqTimes = attrs.field(init=False)
    healed: SeqTimes = attrs.field(init=False)
    fanned_out: SeqTimes = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin without marks."""
        for name in ("announced", "published", "checked", "appended", "healed", "fanned_out"):
            setattr(self, name, SeqTimes(self.max_marks))

    def opened(self, head_seq: int, now: float) -> None:
        """The topic is live from this head on; earlier notes of the same history stay."""
        self.opened_at = now
        self.opened_head_seq = head_seq

    def restarted(self, head_seq: int, now: float) -> None:
        """Another history: what was noted is about other frames."""
        for marks in (
            self.announced,
            self.published,
            self.checked,
            self.appended,
            self.healed,
            self.fanned_out,
        ):
            marks.clear()
        self.opened(head_seq, now)

    def heard(self, record: FanoutRecord, now: float) -> None:
        """An authentic record arrived."""
        self.announced.note(record.first_seq, record.last_seq, now)
        self.published.note(record.first_seq, record.last_seq, record.committed_at_us / 1e6)

    def grew(self, first_seq: int, last_seq: int, now: float, *, is_healed: bool) -> None:
        """Frames entered the window."""
        self.appended.note(first_seq, last_seq, now)
        if is_healed:
            self.healed.note(first_seq, last_seq, now)

    def fanned(self, head_seq: int, began_at: float, ended_at: float) -> None:
        """A fan-out has brought live subscribers to the head."""
        first_seq = max(self.opened_head_seq, self.fanned_out.last_seq) + 1
        self.fanned_out.note(first_seq, head_seq, began_at, ended_at)


@attrs.define(eq=False)
class SubscriptionNote:
    """One subscribe that was answered, and what became of it.

    Attributes:
        start_seq: Frames after it were asked for; 0 too where it was refused before that was known.
        ended_because: ``asked``, ``replaced``, ``forbidden``, ``slow_consumer``, ``disconnected``, or
            a reason code; empty while it runs.
        closed_with: Of a disconnected one: reason code or close code.
        position: Last frame put on the connection, where it ended.
        sent: The same as far as the kernel took it; a fraction is a part of the next frame.
        pumped: When chunks went out in their turn.
    """

    topic: TopicName
    connection_id: str
    user_id: str
    device_id: str
    started_at: float
    start_seq: int = 0
    through_seq: int = 0
    is_refused: bool = False
    ended_at: float | None = None
    ended_because: str = ""
    closed_with: str = ""
    position: int = 0
    sent: float = 0.0
    # Of a stale one: what was observed.
    head_seq: int | None = None
    floor_seq: int | None = None
    _pumped: SeqTimes | None = attrs.field(default=None, init=False)

    def pump(self, first_seq: int, last_seq: int, now: float) -> None:
        """Frames were put on the connection in their turn."""
        if self._pumped is None:
            self._pumped = SeqTimes(_MARKS_PER_SUBSCRIPTION)
        self._pumped.note(first_seq, last_seq, now)

    @property
    def pumped(self) -> SeqTimes | None:
        """When chunks went out in their turn; None if none did."""
        return self._pumped

    def end(
        self, because: str, now: float, *, position: int = 0, sent: float = 0.0, closed_with: str = ""
    ) -> None:
        """It ended."""
        self.ended_at, self.ended_because, self.closed_with = now, because, closed_with
        self.position, self.sent = position, sent

    def observe(self, seen: Observation) -> None:
        """Keep what a stale cursor was judged by."""
        self.head_seq, self.floor_seq = seen.head_seq, seen.floor_seq


class DeliveryTrace:
    """Everything that one node remembers."""

    def __init__(self, limits: NodeLimits, *, now: float) -> None:
        """Begin to remember; ``now`` is when this node started."""
        self.started_at = now
        self._limits = limits
        self._live: dict[TopicName, TopicTrace] = {}
        # Least recently stopped first.
        self._stopped: OrderedDict[TopicName, TopicTrace] = OrderedDict()
        self._subscriptions: deque[SubscriptionNote] = deque(maxlen=limits.trace_subscriptions_max)

    def open_topic(self, topic: TopicName) -> TopicTrace:
        """Return the trace of a topic that becomes live; with what is remembered from earlier."""
        trace = self._stopped.pop(topic, None)
        if trace is None:
            trace = TopicTrace(topic, self._marks_for(len(self._live) + 1))
        self._live[topic] = trace
        return trace

    def _marks_for(self, live_topics: int) -> int:
        """Return how many marks of each kind a topic gets: fewer, and so coarser ones, if very many are live.

        Otherwise 20,000 topics would need more for their traces than all windows of a node together.
        """
        limits = self._limits
        share = limits.trace_marks_max * limits.trace_topics_max // live_topics
        return max(min(limits.trace_marks_max, _MARKS_MIN), min(limits.trace_marks_max, share))

    def close_topic(self, topic: TopicName) -> None:
        """The topic is live no more; its trace is kept while there is room."""
        self._stopped[topic] = self._live.pop(topic)
        while len(self._stopped) > self._limits.trace_topics_max:
            self._stopped.popitem(last=False)

    def find_topic(self, topic: TopicName) -> TopicTrace | None:
        """Return what is remembered of a topic."""
        return self._live.get(topic) or self._stopped.get(topic)

    def note_subscription(self, note: SubscriptionNote) -> SubscriptionNote:
        """Keep a subscribe that was answered; the oldest one is forgotten for it."""
        self._subscriptions.append(note)
        return note

    def find_subscriptions(self, topic: TopicName) -> Iterator[SubscriptionNote]:
        """Yield what is remembered of a topic's subscriptions, oldest first."""
        return (note for note in self._subscriptions if note.topic == topic)
