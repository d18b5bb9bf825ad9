"""One followed topic, across all connections: when to ask, what to apply, when it is over. Pure.

    state      on this connection                        frames     leaves by
    DETACHED   nothing was asked (yet, or any more)      violation  ask -> ASKED
    ASKED      subscribe sent, its answer is due         ignored    subscribed -> REPLAYING | LIVE
    REPLAYING  frames through the head come first        applied    replay_complete -> LIVE
    LIVE       every frame as it is committed            applied    -
    LEAVING    unsubscribe sent, its ack is due          ignored    unsubscribed -> DETACHED
    ENDED      stale, forbidden or given up              ignored    -
Any state but ENDED goes to DETACHED when the connection ends; a gap, a pause, another chain and
leaving go to LEAVING. Frames that arrive in ASKED or LEAVING belong to the subscription before: dropping them is
safe because they lie after our cursor and the next subscription starts there.

Invariants (tests/properties/test_client_follow.py):
    INV-F1  delivered frames are consecutive over the whole life of the follow, connections included
    INV-F2  whenever the node says (seq, chain) for our own seq, the chains are equal, or it is ended
    INV-F3  only delivered frames move ``cursor``; heartbeats and replay_complete never do
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import attrs

from khala_client.core.advice import NextStep, advise_code
from khala_client.core.apply import Applied, ApplyRule, Duplicate, Gap
from khala_client.core.backoff import Backoff, Rng
from khala_client.core.cursor import After, Cursor, start_of
from khala_client.core.happenings import (
    Delivered,
    GapSeen,
    Happening,
    HeadSeen,
    Lagged,
    Live,
    Released,
    Replaying,
    Retrying,
    TopicEnded,
)
from khala_client.core.protocol import RemoteProtocolError
from khala_client.errors import ChainMismatch, Forbidden, KhalaError, StaleCursor, error_for
from khala_contracts.chain import chain_start
from khala_contracts.codec import (
    ErrorMessage,
    Lagging,
    ReplayComplete,
    Subscribed,
    SubscriptionMode,
    TopicHeartbeat,
    TopicStart,
    Unsubscribed,
    UnsubscribedReason,
    WireError,
)
from khala_contracts.codec import (
    StaleCursor as StaleCursorMessage,
)
from khala_contracts.topics import Lineage, Seq, TopicName

if TYPE_CHECKING:
    from khala_contracts.frames import Frame

__all__ = ["GAPS_PER_CONNECTION_MAX", "FollowState", "TopicFollow"]

# A path that loses frames this often is not worth resuming on; a new connection, after a backoff, is.
GAPS_PER_CONNECTION_MAX: Final = 3


class FollowState(enum.Enum):
    """See the table in the module's docstring."""

    DETACHED = "detached"
    ASKED = "asked"
    REPLAYING = "replaying"
    LIVE = "live"
    LEAVING = "leaving"
    ENDED = "ended"


_FLOWING: Final = frozenset({FollowState.REPLAYING, FollowState.LIVE})
_BETWEEN: Final = frozenset({FollowState.ASKED, FollowState.LEAVING, FollowState.ENDED})


@attrs.define
class _Behind:
    """What heartbeats have shown since we stand at ``seq``, below the head.

    Attributes:
        frames_first: Messages with frames of any topic that had come at the first of them.
        at_s: When the last one came that counts.
        frames_seen: And the messages until then.
    """

    seq: int
    frames_first: int
    at_s: float
    frames_seen: int


class TopicFollow:
    """Follows one topic from ``after`` until it is left or ended."""

    def __init__(self, topic: TopicName, after: After, *, rng: Rng) -> None:
        if isinstance(after, Cursor) and after.topic != topic:
            message = f"a cursor of {after.topic} does not fit {topic}"
            raise ValueError(message)
        self.topic = topic
        self.state = FollowState.DETACHED
        self.is_paused = False
        self.is_unwanted = False
        self.retry_at_s: float | None = None
        self.rule: ApplyRule | None = None
        self._after: After = after
        self._lineage = after.lineage if isinstance(after, Cursor) else Lineage("")
        self._rng = rng
        self._backoff = Backoff()
        # Of releases: a topic that could not be followed in time is not asked for again at once.
        self._releases = Backoff()
        self._gaps_here = 0
        self._is_unsubscribe_due = False
        # Position and chain that replay_complete will be about, remembered when we pass it.
        self._through_seq = 0
        self._through_chain: bytes | None = None
        # Since a heartbeat showed a head beyond us; None if none has.
        self._behind: _Behind | None = None

    @property
    def cursor(self) -> Cursor | None:
        """Last delivered position; None until a subscription by a word was accepted."""
        if self.rule is not None:
            return Cursor(self.topic, Seq(self.rule.seq), self._lineage, self.rule.chain)
        return self._after if isinstance(self._after, Cursor) else None

    @property
    def is_at_node(self) -> bool:
        """True if the node has our subscription, or is about to, and it is wanted."""
        return not self.is_unwanted and (self.state is FollowState.ASKED or self.state in _FLOWING)

    @property
    def is_askable(self) -> bool:
        """True if a subscribe should be sent now."""
        return (
            self.state is FollowState.DETACHED
            and not self.is_paused
            and not self.is_unwanted
            and self.retry_at_s is None
        )

    def ask(self) -> TopicStart:
        """Enter ASKED and return what to put into the subscribe."""
        self.state = FollowState.ASKED
        return TopicStart(topic=self.topic, start=start_of(self.cursor or self._after))

    def leave(self) -> None:
        """Enter LEAVING if there is something to unsubscribe from."""
        if self.state in _FLOWING or self.state is FollowState.ASKED:
            self.state = FollowState.LEAVING
            self._is_unsubscribe_due = True

    def take_unsubscribe(self) -> bool:
        """Return True once after LEAVING was entered: the unsubscribe must be sent now."""
        is_due, self._is_unsubscribe_due = self._is_unsubscribe_due, False
        return is_due

    def succeed(self, before: TopicFollow) -> None:
        """Take over the unsubscribe of ``before``, the follow of the same topic that this one replaces."""
        self.state = before.state
        self._is_unsubscribe_due = before.take_unsubscribe()

    def detach(self) -> None:
        """The connection ended: what was asked there is void, the cursor is not."""
        if self.state is not FollowState.ENDED:
            self.state = FollowState.DETACHED
        self._gaps_here = 0
        self._is_unsubscribe_due = False
        self._behind = None
        self._through_chain = None

    def end(self, error: KhalaError) -> tuple[Happening, ...]:
        """Enter ENDED because of ``error``."""
        self.state = FollowState.ENDED
        return (TopicEnded(self.topic, error),)

    def refuse(self, error: KhalaError) -> tuple[Happening, ...]:
        """Be over because of ``error``, which the node does not know of."""
        # It still serves this subscription, so it is unsubscribed first: frames in flight
        # would otherwise belong to a topic that nobody follows.
        self.is_unwanted = True
        self.leave()
        return (TopicEnded(self.topic, error),)

    def _end_mismatch(self, seq: int, lineage: str) -> tuple[Happening, ...]:
        return self.refuse(ChainMismatch(self.topic, seq, lineage=lineage))

    def note_subscribed(self, message: Subscribed) -> tuple[Happening, ...]:
        """The node accepted: fix lineage and chain, or find that they are not ours."""
        if self.state is FollowState.LEAVING:
            return ()  # answers what we have meanwhile left
        if self.state is not FollowState.ASKED:
            raise RemoteProtocolError(
                "protocol_error", f"subscribed for {self.topic} in state {self.state.value}"
            )
        known = self.cursor
        if known is not None and known.seq != message.start_seq:
            raise RemoteProtocolError(
                "protocol_error", f"{self.topic} starts at {message.start_seq}, not {known.seq}"
            )
        lineage_differs = known is not None and known.seq > 0 and known.lineage != message.lineage
        chain = known.chain if known is not None else None
        if message.start_seq == 0:
            chain = chain_start(self.topic)
        if lineage_differs or (chain is not None and chain != message.chain_at_start):
            return self._end_mismatch(message.start_seq, message.lineage)
        self._lineage = Lineage(message.lineage)
        if self.rule is None:
            self.rule = ApplyRule(self.topic, seq=message.start_seq, chain=message.chain_at_start)
        self._backoff = Backoff()
        self._through_seq, self._through_chain, self._behind = message.head_seq, None, None
        cursor = Cursor(self.topic, Seq(self.rule.seq), self._lineage, self.rule.chain)
        started = Replaying(cursor, message.head_seq)
        if message.mode is SubscriptionMode.LIVE:
            self.state = FollowState.LIVE
            return (started, Live(self.topic, self.rule.seq, self.rule.chain))
        self.state = FollowState.REPLAYING
        return (started,)

    def note_frames(self, frames: tuple[Frame, ...]) -> tuple[Happening, ...]:
        """Apply what is next, discard what was applied, resume at a gap (then in LEAVING)."""
        if self.state in _BETWEEN:
            return ()
        if self.state is FollowState.DETACHED or self.rule is None:
            raise RemoteProtocolError("protocol_error", f"frames of {self.topic}, which was not subscribed")
        applied: list[Applied] = []
        gap: Gap | None = None
        for frame in frames:
            try:
                judged = self.rule.offer(frame)
            except WireError as error:
                raise RemoteProtocolError(
                    error.reason_code, error.detail, self._delivered(applied)
                ) from error
            if isinstance(judged, Applied):
                applied.append(judged)
                if frame.seq == self._through_seq:
                    self._through_chain = judged.chain
            elif isinstance(judged, Gap):
                gap = judged
                break
            else:
                assert isinstance(judged, Duplicate)  # counted by the rule; nothing to deliver
        delivered = self._delivered(applied)
        return delivered if gap is None else delivered + self._resume_after_gap(gap, delivered)

    def _delivered(self, applied: list[Applied]) -> tuple[Happening, ...]:
        if not applied or self.rule is None:
            return ()
        cursor = Cursor(self.topic, Seq(self.rule.seq), self._lineage, self.rule.chain)
        return (Delivered(cursor, tuple(applied)),)

    def _resume_after_gap(self, gap: Gap, delivered: tuple[Happening, ...] = ()) -> tuple[Happening, ...]:
        self._gaps_here += 1
        if self._gaps_here > GAPS_PER_CONNECTION_MAX:
            detail = f"{self.topic} lost frames {self._gaps_here} times"
            raise RemoteProtocolError("protocol_error", detail, delivered)
        self.leave()
        return (GapSeen(self.topic, gap.expected_seq, gap.seq),)

    def note_replay_complete(self, message: ReplayComplete) -> tuple[Happening, ...]:
        """Compare with the authority at the point where replay ends."""
        if self.state in _BETWEEN:
            return ()
        if self.state is FollowState.DETACHED or self.rule is None:
            raise RemoteProtocolError(
                "protocol_error", f"replay_complete of {self.topic}, which was not subscribed"
            )
        if message.through_seq > self.rule.seq:
            return self._resume_after_gap(Gap(self.rule.seq + 1, message.through_seq + 1))
        ours = self.rule.chain if message.through_seq == self.rule.seq else None
        if message.through_seq == self._through_seq and self._through_chain is not None:
            ours = self._through_chain
        if ours is not None and ours != message.chain:
            return self._end_mismatch(message.through_seq, self._lineage)
        if self.state is FollowState.LIVE:
            return ()
        self.state = FollowState.LIVE
        return (Live(self.topic, self.rule.seq, self.rule.chain),)

    def note_heartbeat(
        self, message: TopicHeartbeat, *, now_s: float, frames_seen: int, settle_s: float, turns: int
    ) -> tuple[Happening, ...]:
        """Compare at equal seq; find a lost tail. Never moves the cursor.

        Args:
            message: What the node says of this topic.
            now_s: When it came.
            frames_seen: Messages with frames of any topic that have come so far.
            settle_s: Two heartbeats closer together than that were brought together by a slow path.
            turns: After so many messages of other topics it would have been ours.
        """
        if self.state not in _FLOWING or self.rule is None:
            return ()
        if message.head_seq == self.rule.seq and message.chain != self.rule.chain:
            return self._end_mismatch(message.head_seq, self._lineage)
        seen = HeadSeen(self.topic, message.head_seq, message.headroom_frames, message.headroom_ms)
        if self.state is FollowState.LIVE and message.head_seq > self.rule.seq:
            # The control lane overtakes frames, so one heartbeat beyond our seq says nothing, nor do two that
            # a slow path has brought together, or between frames of other topics. Lost is what did not come
            # although nothing else did, or so much that it was our turn.
            behind = self._behind
            if behind is None or behind.seq != self.rule.seq:
                self._behind = _Behind(self.rule.seq, frames_seen, now_s, frames_seen)
            elif now_s - behind.at_s >= settle_s:
                if frames_seen == behind.frames_seen or frames_seen - behind.frames_first >= turns:
                    self._behind = None
                    return (seen, *self._resume_after_gap(Gap(self.rule.seq + 1, message.head_seq + 1)))
                behind.at_s, behind.frames_seen = now_s, frames_seen
        return (seen,)

    def note_lagging(self, message: Lagging) -> tuple[Happening, ...]:
        """The node has more than we take; nothing to do but to know it."""
        return (Lagged(self.topic, message.from_seq, message.head_seq),) if self.state in _FLOWING else ()

    def note_unsubscribed(self, message: Unsubscribed, now_s: float) -> tuple[Happening, ...]:
        """The ack of ours, or the node's own decision."""
        if self.state in {FollowState.ASKED, FollowState.ENDED}:
            # ASKED: the subscription before was ended by both sides at once; this is about that one.
            return ()
        was_flowing = self.state in _FLOWING
        self.state = FollowState.DETACHED
        self._behind = None
        if message.reason is UnsubscribedReason.FORBIDDEN:
            return self.end(Forbidden("forbidden", topic=self.topic))
        if was_flowing and message.reason is UnsubscribedReason.SLOW_CONSUMER:
            # A minute without a release forgives those before it.
            self._releases.end(now_s)
            delay_s = self._releases.next_delay_s(self._rng)
            self._releases.begin(now_s)
            self.retry_at_s = now_s + delay_s
            return (Released(self.topic, delay_s),)
        return ()

    def note_stale(self, message: StaleCursorMessage) -> tuple[Happening, ...]:
        """The cursor is of no use any more, whatever state we were in."""
        if self.state is FollowState.ENDED:
            return ()
        return self.end(
            StaleCursor(
                self.topic,
                message.reason.value,
                lineage=message.lineage,
                head_seq=message.head_seq,
                floor_seq=message.floor_seq,
                floor_chain=message.floor_chain,
            )
        )

    def note_error(self, message: ErrorMessage, now_s: float) -> tuple[Happening, ...]:
        """A refused subscribe: ask again later if that can help, else end."""
        if self.state is FollowState.ENDED:
            return ()
        advised = advise_code(message.code)
        if advised.step is NextStep.RESUME:
            delay_s = self._backoff.next_delay_s(self._rng, retry_after_ms=message.retry_after_ms)
            self.state = FollowState.DETACHED
            self.retry_at_s = now_s + delay_s
            return (Retrying(self.topic, advised.code, delay_s),)
        return self.end(error_of(message))

    def next_wakeup_s(self) -> float | None:
        """Return when ``tick`` has something to do."""
        return self.retry_at_s

    def tick(self, now_s: float) -> None:
        """Become askable again when the wait is over."""
        if self.retry_at_s is not None and now_s >= self.retry_at_s:
            self.retry_at_s = None


def error_of(message: ErrorMessage) -> KhalaError:
    """Return the exception that an error message of the node becomes."""
    return error_for(
        message.code,
        message.message,
        retryable=message.retryable,
        retry_after_ms=message.retry_after_ms,
        details=message.details,
        topic=message.topic or None,
        docs=message.docs,
    )
