"""One topic on one connection: a send position, and the barrier at the end of its replay.

    replaying  --position reaches through_seq-->  live  --(any reason)-->  ended
    The client sees: subscribed, frames, replay_complete{through_seq}, frames ...

The send position is the last frame put on this connection. It is not the client's cursor, which
only applying moves. Invariants (INV-3):
    position only grows, by ranges that start at position + 1
    is_replaying implies position <= through_seq
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import attrs

from khala_contracts import reason_codes

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala.core.classification import Observation, SubscriptionStart
    from khala.core.delivery_trace import SubscriptionNote
    from khala.core.heartbeats import TopicHeartbeats
    from khala.core.pages import Page
    from khala_contracts.codec import StaleReason
    from khala_contracts.reason_codes import ReasonCode
    from khala_contracts.sync_claims import SyncClaims, TopicGrant
    from khala_contracts.topics import ParsedTopic


@attrs.frozen
class EndedStale:
    """The floor passed the position, or the history changed."""

    reason: StaleReason
    observation: Observation


@attrs.frozen
class EndedForbidden:
    """The right by which the topic was granted no longer holds."""


@attrs.frozen
class EndedReleased:
    """The client takes it more slowly than it grows; its cursor stays valid."""


@attrs.frozen
class EndedTrouble:
    """The next frame cannot be had; the cursor stays valid.

    Attributes:
        reason: unavailable if the journal could not be read, internal if the row itself is broken.
    """

    reason: ReasonCode
    retry_after_s: float


# The next row is not its frame. Asking again is of use when somebody has mended it.
ENDED_UNREADABLE: Final = EndedTrouble(reason_codes.INTERNAL, retry_after_s=5.0)

SubscriptionEnding = EndedStale | EndedForbidden | EndedReleased | EndedTrouble


class FrameUnreadableError(Exception):
    """The frame after a position cannot be encoded for this client; what is stored is broken."""

    def __init__(self, subscription: Subscription) -> None:
        """Name whose frame it was to be."""
        super().__init__(f"topic={subscription.parsed.name} seq={subscription.position + 1}")
        self.subscription = subscription


class DeliverySink(Protocol):
    """The connection of a subscription, as its topic sees it. All of it is synchronous."""

    # Writes to the socket what it takes now (direct_send of ports.py), while nothing else waits for it; otherwise None, and the
    # topic asks for a turn (``wake``). Who changes it settles ``direct`` of every subscription.
    direct: Callable[[bytes], int] | None

    @property
    def backlogged_since(self) -> float | None:
        """Since when it has always had bytes waiting; None if nothing waits."""

    def unsent_part(self, subscription: Subscription) -> float:
        """Return how many frames, in parts too, of its last chunk the kernel has not taken."""

    def keep_unsent(self, subscription: Subscription, framed: bytes, sent: int, end_seq: int) -> None:
        """Keep what ``direct`` left of a range that starts right after the position."""

    def break_off(self, exc: Exception) -> None:
        """End the connection, whose ``direct`` raised this."""

    def wake(self, subscription: Subscription) -> None:
        """Say that the subscription has frames to send, in its turn."""

    def finish_subscription(self, subscription: Subscription, ending: SubscriptionEnding) -> None:
        """End the subscription and tell the client why."""


class RangeSource(Protocol):
    """What a subscription sends from: its topic on this node."""

    @property
    def head_seq(self) -> int:
        """Newest frame of the window."""

    @property
    def head_chain(self) -> bytes:
        """Chain at ``head_seq``."""

    @property
    def observation(self) -> Observation | None:
        """What the journal said last; None before it has said anything."""

    @property
    def heartbeats(self) -> TopicHeartbeats:
        """What heartbeats say of the topic."""

    def bytes_after(self, position: int) -> int | None:
        """Encoded bytes after ``position``; None if the window does not hold them all."""

    def appended_at(self, seq: int) -> float | None:
        """When the frame entered the window, or shortly after that; None if it is not known."""

    def holds_after(self, position: int) -> bool:
        """Whether the window has everything after ``position``."""

    def frame_range(
        self, subscription: Subscription, *, max_bytes: int, is_text: bool
    ) -> bytes | NeedsPage | None:
        """Advance the position over the next range and return it framed.

        None: not even the next frame fits in ``max_bytes``. NeedsPage: neither the window nor
        the subscription's page has the next frame.
        """

    def request_page(self, subscription: Subscription) -> None:
        """Start, or join, the journal read that brings the next frames."""

    def leave(self, subscription: Subscription) -> None:
        """Forget a subscriber that has ended."""


class NeedsPage:
    """The next frame must be read from the journal first."""


NEEDS_PAGE = NeedsPage()


@attrs.define(eq=False)
class Subscription:
    """State of one topic on one connection; mutated synchronously only."""

    parsed: ParsedTopic
    claims: SyncClaims
    grant: TopicGrant
    source: RangeSource
    sink: DeliverySink
    # What the client asked for; an equal subscribe changes nothing.
    start: SubscriptionStart
    start_seq: int
    start_chain: bytes
    position: int
    # The barrier: replay_complete is sent when position reaches it.
    through_seq: int
    through_chain: bytes
    note: SubscriptionNote
    # Encoded bytes of the frames up to the barrier, and monotonic time of `subscribed`.
    replay_bytes: int = 0
    began_at: float = 0.0
    is_replaying: bool = True
    page: Page | None = None
    # The page after it, read while it is sent. Invariant: ahead is None or ahead.after_seq == page.last_seq.
    ahead: Page | None = None
    is_reading_ahead: bool = False
    deficit_bytes: int = 0
    is_active: bool = True
    # Writes to the socket at once. Read once for every delivery. Invariant (outside a synchronous step):
    # direct is sink.direct if is_active and not is_replaying and page is None and final_seq is None, else None.
    direct: Callable[[bytes], int] | None = None
    is_waiting_for_page: bool = False
    # Frames of the last chunk that did not leave at once.
    chunk_frames: int = 0
    # Bytes that were put on the connection in its turn, not directly.
    turn_bytes: int = 0
    # Last head announced to this client by a heartbeat, and whether the next one repeats it.
    announced_seq: int = -1
    is_announced_again: bool = False
    # What comes after it is another node's to send; None while this node stays. Invariant: direct is None then.
    final_seq: int | None = None

    @property
    def has_frames(self) -> bool:
        """Whether something is to be sent that is not being fetched."""
        return self.is_active and not self.is_waiting_for_page and self.position < self.limit_seq

    @property
    def limit_seq(self) -> int:
        """The last frame that may be sent before a barrier."""
        limit_seq = self.through_seq if self.is_replaying else self.source.head_seq
        return limit_seq if self.final_seq is None else min(limit_seq, self.final_seq)

    def stop_growing(self) -> None:
        """Send no more than the window holds now; what would have to be read first, not at all."""
        is_held = self.source.holds_after(self.position)
        self.final_seq = self.source.head_seq if is_held else self.position
        self.settle_direct()

    def advance(self, end_seq: int) -> None:
        """Move the send position to the end of a range that starts right after it."""
        self.position = end_seq
        if self.page is not None and end_seq >= self.page.last_seq:
            self.page.users -= 1
            self.page, self.ahead = self.ahead, None
            self.settle_direct()

    def take_barrier(self) -> bool:
        """Return True once, when the position has reached the end of the replay."""
        if not self.is_replaying or self.position < self.through_seq:
            return False
        self.is_replaying = False
        self.settle_direct()
        return True

    def settle_direct(self) -> None:
        """Bring ``direct`` up to date with the pages, the replay and the sink."""
        is_free = self.page is None and not self.is_replaying and self.is_active and self.final_seq is None
        self.direct = self.sink.direct if is_free else None

    def drop_pages(self) -> None:
        """Stop using the current page and the one after it."""
        for page in (self.page, self.ahead):
            if page is not None:
                page.users -= 1
        self.page = self.ahead = None

    def end(self) -> None:
        """Send nothing any more."""
        self.is_active = False
        self.direct = None
        self.drop_pages()
