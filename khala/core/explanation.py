"""What a node can say about one frame: how it came here, and what became of it on each subscription.

Pure: made from what delivery_trace.py remembers and from where running subscriptions stand. Times are
monotonic seconds of the node; adapters/explain_http.py turns them into wall time.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from khala.core.delivery_trace import SubscriptionNote, TopicTrace
    from khala.core.seq_times import Passed


class Arrival(Enum):
    """How a frame stands with the topic on this node."""

    APPENDED = "appended"
    """It entered the window while the topic was live here."""
    BEFORE = "before"
    """It was committed before the topic was live here: read from the journal for whoever asks."""
    AWAITED = "awaited"
    """It lies above the head that this node knows."""
    NOT_FOLLOWED = "not_followed"
    """Nobody has followed the topic here, or that is forgotten."""


class Delivery(Enum):
    """What became of a frame on one subscription."""

    SENT = "sent"
    """The kernel has taken all of it; whether the client has, only the client knows."""
    HANDED_OVER = "handed_over"
    """Its chunk is begun; the kernel has not taken all of it."""
    BEHIND = "behind"
    """The client has not taken what lies before it."""
    AWAITS_JOURNAL = "awaits_journal"
    """It must be read from the journal first."""
    AWAITED = "awaited"
    """It has not reached the topic on this node."""
    NOT_ASKED = "not_asked"
    """The subscription began after it."""
    REFUSED = "refused"
    """The subscribe was refused."""
    ENDED = "ended"
    """The subscription ended before it was sent."""


class Path(Enum):
    """On which way it went."""

    DIRECT = "direct"
    """Written at once by the fan-out; it went between the beginning and the end of that."""
    IN_TURN = "in_turn"
    """In a chunk of its topic's turn: a replay, a client that is behind, or JSON."""


@attrs.frozen
class TopicFacts:
    """How a frame came to this node.

    Attributes:
        arrival: What the rest is about.
        is_live: Whether the topic is live here now.
        opened_at: When it became live; None if it never was.
        opened_head_seq: Its head then.
        head_seq: Newest frame here; where it is not live any more, when it was last.
        announced: When a copy or a hint of the driver named it.
        published: Unix time in that record: the runtime had seen the commit return.
        checked: When a position check or a subscribe saw it in the journal's head.
        appended: When it entered the window.
        is_healed: Whether it was read from the journal, instead of being used as a copy.
        fanned_out: Beginning and end of its fan-out.
    """

    arrival: Arrival
    is_live: bool = False
    opened_at: float | None = None
    opened_head_seq: int = 0
    head_seq: int = 0
    announced: Passed | None = None
    published: Passed | None = None
    checked: Passed | None = None
    appended: Passed | None = None
    is_healed: bool = False
    fanned_out: Passed | None = None


@attrs.frozen
class Standing:
    """Where a running subscription stands."""

    position: int
    sent: float
    head_seq: int
    is_replaying: bool
    is_waiting_for_page: bool
    backlogged_since: float | None


@attrs.frozen
class SubscriptionFacts:
    """What became of a frame on one subscription.

    Attributes:
        standing: None if it does not run any more.
        passed: When its chunk was put on the connection; None if that is not known.
    """

    note: SubscriptionNote
    standing: Standing | None
    delivery: Delivery
    path: Path | None = None
    passed: Passed | None = None


@attrs.frozen
class NodeExplanation:
    """All that one node can say about one frame."""

    started_at: float
    topic: TopicFacts
    subscriptions: tuple[SubscriptionFacts, ...]


def describe_topic(seq: int, trace: TopicTrace | None, *, head_seq: int | None) -> TopicFacts:
    """Return how a frame came here.

    Args:
        seq: The frame.
        trace: What is remembered of its topic.
        head_seq: Newest frame here; None if the topic is not live.
    """
    if trace is None or trace.opened_at is None:
        return TopicFacts(Arrival.NOT_FOLLOWED)
    appended = trace.appended.find(seq)
    last_seq = max(trace.opened_head_seq, trace.appended.last_seq) if head_seq is None else head_seq
    if appended is not None:
        arrival = Arrival.APPENDED
    elif seq <= last_seq:
        arrival = Arrival.BEFORE
    else:
        arrival = Arrival.AWAITED if head_seq is not None else Arrival.NOT_FOLLOWED
    return TopicFacts(
        arrival,
        is_live=head_seq is not None,
        opened_at=trace.opened_at,
        opened_head_seq=trace.opened_head_seq,
        head_seq=last_seq,
        announced=trace.announced.find(seq),
        published=trace.published.find(seq),
        checked=trace.checked.find(seq),
        appended=appended,
        is_healed=trace.healed.find(seq) is not None,
        fanned_out=trace.fanned_out.find(seq),
    )


def describe_subscription(
    seq: int, note: SubscriptionNote, standing: Standing | None, topic: TopicFacts
) -> SubscriptionFacts:
    """Return what became of a frame on one subscription."""
    position = standing.position if standing is not None else note.position
    delivery = _decide_delivery(seq, note, standing)
    if seq > position or delivery in {Delivery.NOT_ASKED, Delivery.REFUSED}:
        return SubscriptionFacts(note, standing, delivery)
    in_turn = note.pumped.find(seq) if note.pumped is not None else None
    if in_turn is not None:
        return SubscriptionFacts(note, standing, delivery, Path.IN_TURN, in_turn)
    return SubscriptionFacts(note, standing, delivery, Path.DIRECT, topic.fanned_out)


def _decide_delivery(seq: int, note: SubscriptionNote, standing: Standing | None) -> Delivery:
    if note.is_refused:
        return Delivery.REFUSED
    if seq <= note.start_seq:
        return Delivery.NOT_ASKED
    if seq <= (standing.sent if standing is not None else note.sent):
        return Delivery.SENT
    if standing is None:
        return Delivery.ENDED
    if seq <= standing.position:
        return Delivery.HANDED_OVER
    if seq > standing.head_seq:
        return Delivery.AWAITED
    return Delivery.AWAITS_JOURNAL if standing.is_waiting_for_page else Delivery.BEHIND
