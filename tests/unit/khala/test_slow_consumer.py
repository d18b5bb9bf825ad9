"""Who is too slow, step by step, at each limit and one step beyond."""

from __future__ import annotations

import attrs
import pytest

from khala.core.limits import NodeLimits
from khala.core.slow_consumer import (
    Progress,
    SlowConsumer,
    SlowConsumerAction,
    SlowConsumerPolicy,
    policy_for,
)
from khala_contracts.topics import Tier

THROTTLE, CATCH_UP = SlowConsumerAction.THROTTLE, SlowConsumerAction.CATCH_UP
RELEASE, DISCONNECT = SlowConsumerAction.RELEASE, SlowConsumerAction.DISCONNECT
POLICY = SlowConsumerPolicy(2.0, 120.0, 10.0, is_disconnecting=False)


def told(policy: SlowConsumerPolicy = POLICY, *, sent: float = 0.0, head_seq: int = 1) -> SlowConsumer:
    """Return a subscription that was told at time 3 that it lags, one frame being there since 0."""
    slow = SlowConsumer(policy, backlogged_since=0.0)
    assert slow.judge(Progress(sent, head_seq, unsent_since=0.0), 3.0) is THROTTLE
    return slow


@pytest.mark.parametrize(
    ("tier", "lagging_s", "release_s"),
    [(Tier.HOT, 1.0, 30.0), (Tier.WARM, 2.0, 120.0), (Tier.COLD, 5.0, 600.0)],
)
def test_tiers(tier: Tier, lagging_s: float, release_s: float) -> None:
    """SPEC section 6, for each tier: exactly at the limit nothing, beyond it the notice, the release."""
    policy = policy_for(tier, NodeLimits())
    assert policy == SlowConsumerPolicy(lagging_s, release_s, 10.0, is_disconnecting=False)
    slow = SlowConsumer(policy, backlogged_since=0.0)
    assert slow.judge(Progress(0.0, 1, unsent_since=0.0), lagging_s) is None
    assert slow.judge(Progress(0.0, 2, unsent_since=0.0), lagging_s + 0.001) is THROTTLE
    assert slow.judge(Progress(0.0, 50, unsent_since=0.0), release_s) is None
    assert slow.judge(Progress(0.0, 50, unsent_since=0.0), release_s + 0.001) is RELEASE


def test_a_tier_may_disconnect_instead() -> None:
    """KH-44: per tier, what happens at the end of patience is configured."""
    configured = {
        Tier.HOT: NodeLimits(release_action_hot="disconnect"),
        Tier.WARM: NodeLimits(release_action_warm="disconnect"),
        Tier.COLD: NodeLimits(release_action_cold="disconnect"),
    }
    for tier, limits in configured.items():
        assert [other for other in Tier if policy_for(other, limits).is_disconnecting] == [tier]
    slow = told(policy_for(Tier.WARM, configured[Tier.WARM]))
    assert slow.judge(Progress(0.0, 5, unsent_since=0.0), 700.0) is DISCONNECT


@pytest.mark.parametrize(
    ("taken", "grown", "action"),
    [(0, 1, RELEASE), (49, 50, RELEASE), (49.5, 50, RELEASE), (50, 50, None), (51, 50, None), (0, 0, None)],
)
def test_only_slower_than_the_topic_is_released(
    taken: float, grown: int, action: SlowConsumerAction | None
) -> None:
    """At the topic's own rate nobody is released, however far behind; an idle topic releases nobody."""
    slow = told(sent=0.0, head_seq=10_000)
    for second in range(4, 200):
        slow.judge(Progress(0.0, 10_000, unsent_since=float(second)), float(second))
    assert slow.judge(Progress(taken, 10_000 + grown, unsent_since=0.0), 200.0) is action


def test_the_rate_window_must_be_over() -> None:
    """Ten seconds of being slower, and not less: a pause in between is no rate."""
    policy = attrs.evolve(POLICY, release_after_s=3.0)
    slow = told(policy, head_seq=1)  # first look at 3.0
    assert slow.judge(Progress(0.0, 50, unsent_since=0.0), 12.999) is None
    assert slow.judge(Progress(0.0, 50, unsent_since=0.0), 13.0) is RELEASE


def test_old_rates_do_not_count() -> None:
    """Who has taken nothing for a minute and keeps up since ten seconds stays."""
    slow = told(head_seq=0)
    for second in range(4, 125):
        assert slow.judge(Progress(0.0, second, unsent_since=100.0), float(second)) is None
    for second in range(125, 136):
        slow.judge(Progress(2.0 * (second - 124), second, unsent_since=100.0), float(second))
    assert slow.judge(Progress(24.0, 136, unsent_since=0.0), 136.0) is None


def test_memory_is_constant() -> None:
    """INV-7: four looks a second for an hour leave a dozen samples."""
    slow = SlowConsumer(attrs.evolve(POLICY, release_after_s=1e9), backlogged_since=0.0)
    for quarter in range(4 * 3_600):
        slow.judge(Progress(0.0, quarter, unsent_since=0.0), quarter / 4)
        assert len(slow._samples) <= 12


def test_leaving_the_window_is_told_once() -> None:
    """catch_up: after the notice, once, and not for a replay, which is from the journal by nature."""
    slow = told()
    outside = Progress(0.0, 9, unsent_since=0.0, is_in_window=False)
    assert [slow.judge(outside, 4.0), slow.judge(outside, 5.0)] == [CATCH_UP, None]
    replaying = told()
    assert replaying.judge(attrs.evolve(outside, unsent_since=None), 4.0) is None


def test_a_wait_for_our_page_is_not_held_against_it() -> None:
    """The rate window begins anew while the journal has not answered us."""
    policy = attrs.evolve(POLICY, release_after_s=3.0)
    slow = told(policy, head_seq=1)
    for second in range(4, 60):
        waiting = Progress(0.0, second, unsent_since=0.0, is_offered=False)
        assert slow.judge(waiting, float(second)) is None
    assert slow.judge(Progress(0.0, 60, unsent_since=0.0), 68.9) is None
    assert slow.judge(Progress(0.0, 70, unsent_since=0.0), 69.0) is RELEASE


def test_a_replay_ages_from_its_last_progress() -> None:
    """Its frames are old by nature: what counts is that nothing was taken since."""
    slow = SlowConsumer(attrs.evolve(POLICY, release_after_s=20.0), backlogged_since=0.0)
    for second in range(60):
        steady = Progress(float(second), 10_000 + 50 * second, unsent_since=None)
        assert slow.judge(steady, float(second)) is None
    # Parts of the next frame are no progress: it is as old as before.
    stuck = attrs.evolve(steady, sent=59.9, head_seq=20_000)
    assert slow.judge(stuck, 61.0) is None
    assert slow.judge(stuck, 61.001) is THROTTLE
    assert slow.judge(stuck, 79.0) is None
    assert slow.judge(attrs.evolve(stuck, head_seq=20_001), 79.001) is RELEASE


def test_the_notice_comes_first() -> None:
    """Also where the first look finds everything at once: one step at a time."""
    slow = SlowConsumer(POLICY, backlogged_since=0.0)
    late = Progress(0.0, 1, unsent_since=0.0, is_in_window=False)
    steps = [slow.judge(attrs.evolve(late, head_seq=n), 500.0 + n) for n in range(12)]
    assert steps == [THROTTLE, CATCH_UP, *[None] * 8, RELEASE, RELEASE]


def test_between_two_pages_nothing_is_drained() -> None:
    """Nothing waits for its socket while our page comes: it is told no second time, and judged as before."""
    slow = told(sent=0.0, head_seq=100)
    assert not slow.has_drained(40.0, 0.0)
    # Bytes have stopped waiting, and wait again; what was there at the last look is not all taken.
    assert not slow.has_drained(40.0, None)
    assert not slow.has_drained(99.5, 7.0)
    assert slow.is_notified
    assert slow.has_drained(100.0, 8.0)


def test_what_has_always_waited_has_not_drained() -> None:
    """Everything of the last look is gone, and bytes have waited all the time: it is behind as before."""
    slow = told(sent=0.0, head_seq=100)
    assert not slow.has_drained(100.0, 0.0)
