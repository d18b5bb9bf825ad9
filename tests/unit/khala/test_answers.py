"""What a client is told about one topic: where it begins, where its replay ends, why it ends."""

import pytest

from khala.core.answers import ending_of, frame_control, replay_complete_of, subscribed_of
from khala.core.subscription import (
    ENDED_UNREADABLE,
    EndedForbidden,
    EndedReleased,
    EndedStale,
    EndedTrouble,
)
from khala.core.websocket_frames import frame_message
from khala_contracts import codec, reason_codes
from khala_contracts.codec import (
    ErrorMessage,
    StaleCursor,
    StaleReason,
    SubscriptionMode,
    Unsubscribed,
    UnsubscribedReason,
)
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


def test_the_end_of_a_replay() -> None:
    """The barrier names the position and the chain that were promised by ``subscribed``."""
    answer = replay_complete_of(replaying_subscription(position=10, through_seq=10))
    assert (answer.topic, answer.through_seq) == (TopicLog().topic.name, 10)


def test_endings() -> None:
    """Each ending has one answer: a verdict by rule, a denial, a release, or trouble with a time."""
    subscription, seen = live_subscription(position=7), TopicLog().observe()
    topic = subscription.parsed.name
    stale = EndedStale(StaleReason.RETENTION_EXPIRED, seen)
    assert ending_of(subscription, stale) == (
        "stale_cursor.retention_expired",
        StaleCursor.of(topic, StaleReason.RETENTION_EXPIRED, seen),
    )
    assert ending_of(subscription, EndedForbidden()) == (
        "forbidden",
        Unsubscribed(topic, UnsubscribedReason.FORBIDDEN),
    )
    assert ending_of(subscription, EndedReleased()) == (
        "slow_consumer",
        Unsubscribed(topic, UnsubscribedReason.SLOW_CONSUMER),
    )
    assert ending_of(subscription, ENDED_UNREADABLE) == (
        "internal",
        ErrorMessage.of(reason_codes.INTERNAL, topic=topic, retry_after_ms=5_000),
    )
    assert ending_of(subscription, EndedTrouble(reason_codes.UNAVAILABLE, 2.0)) == (
        "unavailable",
        ErrorMessage.of(reason_codes.UNAVAILABLE, topic=topic, retry_after_ms=2_000),
    )


@pytest.mark.parametrize("is_text", [False, True])
def test_an_answer_that_is_the_same_is_encoded_once(*, is_text: bool) -> None:
    """Equal answers are one object; one that differs in anything, or in its encoding, is another."""
    log = TopicLog()
    log.append(10)
    subscription = replaying_subscription(position=2, through_seq=10)
    one, same = (subscribed_of(subscription, log.observe()) for _ in range(2))
    framed = frame_control(one, is_text=is_text)
    assert frame_control(same, is_text=is_text) is framed
    assert frame_control(one, is_text=not is_text) != framed
    log.append(1)
    assert frame_control(subscribed_of(subscription, log.observe()), is_text=is_text) != framed
    whole = replay_complete_of(subscription)
    assert frame_control(whole, is_text=is_text) is frame_control(
        replay_complete_of(subscription), is_text=is_text
    )


@pytest.mark.parametrize("is_text", [False, True])
def test_other_messages_are_framed_as_they_are(*, is_text: bool) -> None:
    """What is encoded once is what encoding gives."""
    for message in (
        Unsubscribed(TopicLog().topic.name, UnsubscribedReason.ASKED),
        replay_complete_of(replaying_subscription(position=2, through_seq=10)),
    ):
        encode = codec.encode_server_control_json if is_text else codec.encode_server_control
        assert frame_control(message, is_text=is_text) == frame_message(encode(message), is_text=is_text)
