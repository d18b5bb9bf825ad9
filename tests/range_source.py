"""A topic and a connection reduced to what turns and subscriptions need of them; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from khala.core.delivery_trace import SubscriptionNote
from khala.core.heartbeats import TopicHeartbeats
from khala.core.subscription import NEEDS_PAGE, NeedsPage, Subscription
from khala.core.window import Window
from khala_contracts.codec import SubscribeFrom
from tests.topic_log import claims_for, run_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from khala.core.classification import Observation
    from khala.core.subscription import SubscriptionEnding


@attrs.define(eq=False)
class RecordingSink:
    """A connection that only remembers what it was told."""

    direct: Callable[[bytes], int] | None = None
    backlogged_since: float | None = None
    woken: list[Subscription] = attrs.field(factory=list)
    endings: list[SubscriptionEnding] = attrs.field(factory=list)
    sent: list[bytes] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        """Take everything at once."""
        self.direct = self._take

    def unsent_part(self, subscription: Subscription) -> float:
        """Return 0: everything leaves at once."""
        assert subscription.is_active
        return 0.0

    def _take(self, framed: bytes) -> int:
        self.sent.append(framed)
        return len(framed)

    def keep_unsent(self, subscription: Subscription, framed: bytes, sent: int, end_seq: int) -> None:
        """Is never asked: everything is taken."""
        raise AssertionError(subscription, framed, sent, end_seq)

    def break_off(self, exc: Exception) -> None:
        """Is never asked: nothing is raised."""
        raise AssertionError from exc

    def wake(self, subscription: Subscription) -> None:
        """Remember who has something to send."""
        self.woken.append(subscription)

    def finish_subscription(self, subscription: Subscription, ending: SubscriptionEnding) -> None:
        """Remember why a subscription ended."""
        self.endings.append(ending)
        subscription.end()
        subscription.source.leave(subscription)


@attrs.define(eq=False)
class WindowSource:
    """Frames of one topic in a window; positions below ``paged_until`` first need a page."""

    window: Window = attrs.field(factory=lambda: Window(1_000_000, 1 << 40))
    head_chain: bytes = b"chain"
    paged_until: int = 0
    asked: list[Subscription] = attrs.field(factory=list)
    left: list[Subscription] = attrs.field(factory=list)
    observation: Observation | None = None
    heartbeats: TopicHeartbeats = attrs.field(factory=TopicHeartbeats)

    @property
    def head_seq(self) -> int:
        """Newest frame."""
        return self.window.head_seq

    def write(self, sizes: Iterable[int]) -> None:
        """Append frames of these sizes."""
        self.window.extend([bytes(size) for size in sizes], self.head_chain)

    def bytes_after(self, position: int) -> int | None:
        """Return what the window holds after ``position``."""
        return self.window.bytes_after(position)

    def appended_at(self, seq: int) -> float | None:
        """Return 0: everything has always been there."""
        return 0.0 if seq <= self.head_seq else None

    def holds_after(self, position: int) -> bool:
        """Whether the window has everything after ``position``."""
        return self.window.covers(position)

    def frame_range(
        self, subscription: Subscription, *, max_bytes: int, is_text: bool
    ) -> bytes | NeedsPage | None:
        """Return the next range without any framing, so that bytes count exactly."""
        assert not is_text
        position = subscription.position
        if position < self.paged_until:
            return NEEDS_PAGE
        end = self.window.choose_end(position, max_bytes=max_bytes, last_seq=subscription.limit_seq)
        if end is None:
            return None
        subscription.advance(end)
        return b"".join(self.window.entries(position, end))

    def request_page(self, subscription: Subscription) -> None:
        """Remember who waits for a page."""
        subscription.is_waiting_for_page = True
        self.asked.append(subscription)

    def answer_pages(self) -> list[Subscription]:
        """Let every page arrive; return whose they are."""
        self.paged_until = 0
        answered, self.asked = self.asked, []
        for subscription in answered:
            subscription.is_waiting_for_page = False
        return answered

    def leave(self, subscription: Subscription) -> None:
        """Remember who left."""
        self.left.append(subscription)


def live_subscription(
    source: WindowSource | None = None,
    *,
    number: int = 1,
    position: int = 0,
    sink: RecordingSink | None = None,
) -> Subscription:
    """Return a subscription of run ``number`` that has passed its barrier."""
    subscription = replaying_subscription(
        source, number=number, position=position, through_seq=position, sink=sink
    )
    assert subscription.take_barrier()
    return subscription


def replaying_subscription(
    source: WindowSource | None = None,
    *,
    through_seq: int,
    number: int = 1,
    position: int = 0,
    sink: RecordingSink | None = None,
) -> Subscription:
    """Return a subscription of run ``number`` whose barrier is at ``through_seq``."""
    topic = run_topic(number)
    claims = claims_for(topic)
    return Subscription(
        topic,
        claims,
        claims.grants[0],
        source=source or WindowSource(),
        sink=sink or RecordingSink(),
        start=SubscribeFrom.BEGINNING,
        start_seq=position,
        start_chain=b"start",
        position=position,
        through_seq=through_seq,
        through_chain=b"through",
        note=SubscriptionNote(topic.name, "con_1", claims.user_id, claims.device_id, 0.0),
    )
