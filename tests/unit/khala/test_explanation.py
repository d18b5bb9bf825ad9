"""From what is remembered to what is said of one frame."""

from __future__ import annotations

import pytest

from khala.core.delivery_trace import SubscriptionNote, TopicTrace
from khala.core.explanation import (
    Arrival,
    Delivery,
    Path,
    Standing,
    TopicFacts,
    describe_subscription,
    describe_topic,
)
from khala.core.seq_times import Passed
from tests.topic_log import DEVICE, USER, run_topic

TOPIC = run_topic(1).name
FANNED = TopicFacts(Arrival.APPENDED, fanned_out=Passed(7.0, 7.5))


def trace() -> TopicTrace:
    """Live since 1.0 with head 10; 11 and 12 came at 2.0."""
    made = TopicTrace(TOPIC, 8)
    made.opened(10, 1.0)
    made.grew(11, 12, 2.0, is_healed=False)
    return made


def note(*, start_seq: int = 3) -> SubscriptionNote:
    """A subscription that began after ``start_seq`` and was pumped up to 6."""
    made = SubscriptionNote(TOPIC, "con_1", USER, DEVICE, 1.0, start_seq=start_seq, through_seq=6)
    made.pump(4, 6, 1.5)
    return made


def standing(
    position: int, *, sent: float | None = None, head_seq: int = 12, waits: bool = False
) -> Standing:
    """A running subscription."""
    return Standing(position, position if sent is None else sent, head_seq, False, waits, None)


@pytest.mark.parametrize(
    ("seq", "head_seq", "arrival"),
    [
        (10, 12, Arrival.BEFORE),
        (11, 12, Arrival.APPENDED),
        (13, 12, Arrival.AWAITED),
        (13, 13, Arrival.BEFORE),
        (10, None, Arrival.BEFORE),
        (12, None, Arrival.APPENDED),
        (13, None, Arrival.NOT_FOLLOWED),
    ],
)
def test_arrivals(seq: int, head_seq: int | None, arrival: Arrival) -> None:
    """On both sides of the head at the opening, and of the head; live and no longer live."""
    facts = describe_topic(seq, trace(), head_seq=head_seq)
    assert (facts.arrival, facts.is_live) == (arrival, head_seq is not None)
    assert facts.head_seq == (12 if head_seq is None else head_seq)


def test_nobody_has_followed() -> None:
    """Without a trace, and with one whose first head is still being read."""
    assert describe_topic(1, None, head_seq=None) == TopicFacts(Arrival.NOT_FOLLOWED)
    assert describe_topic(1, TopicTrace(TOPIC, 8), head_seq=None).arrival is Arrival.NOT_FOLLOWED


@pytest.mark.parametrize(
    ("seq", "stands", "delivery"),
    [
        (3, standing(8), Delivery.NOT_ASKED),
        (4, standing(8), Delivery.SENT),
        (8, standing(8), Delivery.SENT),
        (8, standing(8, sent=7.9), Delivery.HANDED_OVER),
        (7, standing(8, sent=7.0), Delivery.SENT),
        (9, standing(8), Delivery.BEHIND),
        (9, standing(8, waits=True), Delivery.AWAITS_JOURNAL),
        (13, standing(8), Delivery.AWAITED),
        (13, standing(8, waits=True), Delivery.AWAITED),
    ],
)
def test_running_subscriptions(seq: int, stands: Standing, delivery: Delivery) -> None:
    """Each state, at its boundary."""
    assert describe_subscription(seq, note(), stands, FANNED).delivery is delivery


def test_paths_and_times() -> None:
    """In turn where a chunk was noted; otherwise within the fan-out; none where it was not sent."""
    in_turn = describe_subscription(6, note(), standing(8), FANNED)
    assert (in_turn.path, in_turn.passed) == (Path.IN_TURN, Passed(1.5, 1.5))
    direct = describe_subscription(7, note(), standing(8), FANNED)
    assert (direct.path, direct.passed) == (Path.DIRECT, Passed(7.0, 7.5))
    not_sent = describe_subscription(9, note(), standing(8), FANNED)
    assert (not_sent.path, not_sent.passed) == (None, None)


def test_ended_subscriptions() -> None:
    """Sent before the end or not; begun and cut off; refused at once."""
    ended = note()
    ended.end("disconnected", 9.0, position=8, sent=7.5)
    fates = [describe_subscription(seq, ended, None, FANNED) for seq in (7, 8, 9)]
    assert [each.delivery for each in fates] == [Delivery.SENT, Delivery.ENDED, Delivery.ENDED]
    assert [each.path for each in fates] == [Path.DIRECT, Path.DIRECT, None]
    refused = note()
    refused.is_refused = True
    assert describe_subscription(5, refused, None, FANNED).delivery is Delivery.REFUSED
