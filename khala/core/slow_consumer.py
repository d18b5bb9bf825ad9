"""Who is too slow for a topic, and what is done about it, step by step. Pure.

    the first unsent frame is older than lagging_after_s     throttle    `lagging` tells the client; it is
                                                                         served at its own pace from now on
    what it needs next has left the window                   catch_up    it is served from the journal
    older than release_after_s, and slower than the topic    release     `unsubscribed{slow_consumer}`;
                                                                         its cursor stays valid
    the third release within releases_window_s               disconnect  `slow_consumer`

Being far behind is no fault: whoever takes frames at least as fast as the topic gets them stays. Nor
is waiting: a connection that has taken everything it was offered at any moment of the rate window
(it has *drained*), and a subscription that waits for a page of ours, are not judged by their rate.

The rate counts what the kernel has taken, parts of frames too, so a large chunk that leaves slowly is
progress. A frame's age counts from when this node had it. Those of a replay are old by nature: there
the age of the first unsent one counts from when the one before it was sent.

Judged by the sweeper, for connections that have bytes waiting only: a delivery costs nothing for it.
A connection whose kernel takes no byte at all is ended earlier by the write stall (actors/sweeper.py).
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from math import floor
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from khala_contracts.topics import Tier

if TYPE_CHECKING:
    from khala.core.limits import NodeLimits

# Samples of one rate window. More: memory of each slow subscription. Fewer: the window is longer
# than configured by up to one part in this many.
_SAMPLES_PER_WINDOW: Final = 10


class SlowConsumerAction(Enum):
    """What is done; the values name a metric's label."""

    THROTTLE = "throttle"
    CATCH_UP = "catch_up"
    RELEASE = "release"
    DISCONNECT = "disconnect"


@attrs.frozen
class SlowConsumerPolicy:
    """The limits of one tier. Seconds; exactly at a limit nothing is done yet."""

    lagging_after_s: float
    release_after_s: float
    rate_window_s: float
    # Disconnect where others are released: for topics whose followers had better know at once.
    is_disconnecting: bool


def policy_for(tier: Tier, limits: NodeLimits) -> SlowConsumerPolicy:
    """Return what the configuration says for a tier."""
    lagging_after_s, release_after_s, action = {
        Tier.HOT: (limits.lagging_after_hot_s, limits.release_after_hot_s, limits.release_action_hot),
        Tier.WARM: (limits.lagging_after_warm_s, limits.release_after_warm_s, limits.release_action_warm),
        Tier.COLD: (limits.lagging_after_cold_s, limits.release_after_cold_s, limits.release_action_cold),
    }[tier]
    return SlowConsumerPolicy(
        lagging_after_s,
        release_after_s,
        limits.slow_rate_window_s,
        is_disconnecting=action == "disconnect",
    )


@attrs.frozen
class Progress:
    """How far one subscription is, at one look.

    Attributes:
        sent: Frames up to here are with the kernel; a fraction is a part of the next one.
        head_seq: Newest frame of the topic.
        unsent_since: When this node had the first unsent frame; None in a replay.
        is_offered: False while it waits for a page of ours.
        is_in_window: False if the next frame must come from the journal.
    """

    sent: float
    head_seq: int
    unsent_since: float | None
    is_offered: bool = True
    is_in_window: bool = True


class _Sample(NamedTuple):
    at: float
    sent: float
    head_seq: int


@attrs.define(eq=False)
class SlowConsumer:
    """One subscription of a connection that has not drained since ``backlogged_since``.

    Memory: at most ``_SAMPLES_PER_WINDOW + 2`` samples. Made at the first look, forgotten once the
    connection has drained or everything is sent.
    """

    policy: SlowConsumerPolicy
    # None while nothing waits for its socket, because a page of ours is on its way.
    backlogged_since: float | None
    is_notified: bool = attrs.field(default=False, init=False)
    is_catching_up: bool = attrs.field(default=False, init=False)
    _progressed_at: float = attrs.field(default=0.0, init=False)
    _latest: _Sample | None = attrs.field(default=None, init=False)
    # Of the rate window: the first is the newest that is at least as old as the window is long.
    _samples: deque[_Sample] = attrs.field(factory=deque, init=False)

    def has_drained(self, sent: float, backlogged_since: float | None) -> bool:
        """Return whether everything that there was at the last look has been taken since, and forget the answer.

        That bytes have stopped waiting is not enough: between two pages of ours nothing waits either.
        """
        if backlogged_since == self.backlogged_since:
            return False
        self.backlogged_since = backlogged_since
        return self._latest is None or sent >= self._latest.head_seq

    def judge(self, progress: Progress, now: float) -> SlowConsumerAction | None:
        """Look once; return what is due, at most one step at a time.

        The steps come in their order: nobody is released who was not told before.
        """
        latest = _Sample(now, progress.sent, progress.head_seq)
        self._note(latest, is_offered=progress.is_offered)
        unsent_since = progress.unsent_since
        age_s = now - (self._progressed_at if unsent_since is None else unsent_since)
        if not self.is_notified:
            self.is_notified = age_s > self.policy.lagging_after_s
            return SlowConsumerAction.THROTTLE if self.is_notified else None
        if not self.is_catching_up and unsent_since is not None and not progress.is_in_window:
            self.is_catching_up = True
            return SlowConsumerAction.CATCH_UP
        if age_s > self.policy.release_after_s and self._is_slower_than_topic(latest):
            is_ending = self.policy.is_disconnecting
            return SlowConsumerAction.DISCONNECT if is_ending else SlowConsumerAction.RELEASE
        return None

    def _note(self, latest: _Sample, *, is_offered: bool) -> None:
        # A whole frame: a byte now and then is no progress.
        if self._latest is None or floor(latest.sent) > floor(self._latest.sent):
            self._progressed_at = latest.at
        self._latest = latest
        samples = self._samples
        if not is_offered:
            # What it did not take while we had nothing for it says nothing about it.
            samples.clear()
        window_s = self.policy.rate_window_s
        if not samples or latest.at - samples[-1].at >= window_s / _SAMPLES_PER_WINDOW:
            samples.append(latest)
        while len(samples) > 1 and samples[1].at <= latest.at - window_s:
            samples.popleft()

    def _is_slower_than_topic(self, latest: _Sample) -> bool:
        oldest = self._samples[0]
        if latest.at - oldest.at < self.policy.rate_window_s:
            return False
        return latest.sent - oldest.sent < latest.head_seq - oldest.head_seq
