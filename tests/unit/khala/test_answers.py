"""``subscribed`` states the observation that was judged."""

import pytest

from khala.core.answers import subscribed_of
from khala_contracts.codec import SubscriptionMode
from khala_contracts.topics import Tier
from tests.range_source import live_subscription, replaying_subscription
from tests.topic_log import LINEAGE, TopicLog


@pytest.mark.parametrize(
    ("position", "mode"),
    [(9, SubscriptionMode.REPLAYING), (10, SubscriptionMode.LIVE)],
)
def test_mode_by_position(position: int, mode: SubscriptionMode) -> None:
    """One frame behind the barrier is a replay; at the barrier it is live."""
    log = TopicLog()
    log.append(10)
    log.floor_seq = 4
    answer = subscribed_of(replaying_subscription(position=position, through_seq=10), log.observe())
    assert (answer.mode, answer.start_seq) == (mode, position)
    assert (answer.topic, answer.lineage, answer.tier) == (log.topic.name, LINEAGE, Tier.WARM)
    assert (answer.head_seq, answer.floor_seq, answer.chain_at_start) == (10, 4, b"start")


def test_a_repeated_answer_keeps_the_start() -> None:
    """A duplicate subscribe on a live topic repeats where it began, with what is seen now."""
    log = TopicLog()
    log.append(12)
    subscription = live_subscription(position=7)
    subscription.advance(11)
    answer = subscribed_of(subscription, log.observe())
    assert (answer.mode, answer.start_seq, answer.head_seq) == (SubscriptionMode.LIVE, 7, 12)
