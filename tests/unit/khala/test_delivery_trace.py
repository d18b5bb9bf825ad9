"""What is remembered of deliveries: bounded, and only what was seen."""

import pytest

from khala.core.delivery_trace import DeliveryTrace, SubscriptionNote, TopicTrace
from khala.core.limits import NodeLimits
from khala.core.seq_times import Passed
from tests.topic_log import DEVICE, USER, TopicLog, run_topic

TOPIC, OTHER = run_topic(1).name, run_topic(2).name


def note(number: int = 1, topic: str = TOPIC) -> SubscriptionNote:
    """A subscription of connection ``number``."""
    return SubscriptionNote(topic, f"con_{number}", USER, DEVICE, float(number))  # type: ignore[arg-type]


def test_frames_from_before_were_not_fanned_out() -> None:
    """What the topic's head was when it became live is the journal's, not ours."""
    trace = TopicTrace(TOPIC, 8)
    trace.opened(10, 1.0)
    trace.grew(11, 12, 2.0, is_healed=False)
    trace.fanned(12, 2.0, 2.5)
    trace.fanned(12, 3.0, 3.5)
    assert [trace.fanned_out.find(seq) for seq in (10, 11, 12)] == [None, Passed(2.0, 2.5), Passed(2.0, 2.5)]


def test_heals_are_told_from_copies() -> None:
    """Both entered the window."""
    trace = TopicTrace(TOPIC, 8)
    trace.grew(1, 2, 1.0, is_healed=False)
    trace.grew(3, 4, 2.0, is_healed=True)
    assert [trace.appended.find(seq) is not None for seq in (2, 3)] == [True, True]
    assert [trace.healed.find(seq) is not None for seq in (2, 3)] == [False, True]


def test_a_record_has_two_times() -> None:
    """When it came, and when the runtime saw the commit return."""
    log = TopicLog()
    log.append(2)
    record = log.record(1, 2)
    trace = TopicTrace(TOPIC, 8)
    trace.heard(record, 5.0)
    assert trace.announced.find(1) == Passed(5.0, 5.0)
    published = record.committed_at_us / 1e6
    assert trace.published.find(2) == Passed(published, published)


def test_another_history_forgets() -> None:
    """Its seqs mean other frames."""
    trace = TopicTrace(TOPIC, 8)
    trace.grew(1, 5, 1.0, is_healed=True)
    trace.checked.note(1, 5, 1.0)
    trace.restarted(2, 9.0)
    marks = (trace.announced, trace.published, trace.checked, trace.appended, trace.healed, trace.fanned_out)
    assert [len(each) for each in marks] == [0] * 6
    assert (trace.opened_at, trace.opened_head_seq) == (9.0, 2)


def test_a_subscription_that_was_never_pumped_costs_no_marks() -> None:
    """The direct path writes nothing."""
    made = note()
    assert made.pumped is None
    made.pump(1, 4, 2.0)
    assert made.pumped is not None
    assert made.pumped.find(4) == Passed(2.0, 2.0)
    made.end("asked", 3.0, position=4, sent=3.5)
    assert (made.ended_at, made.ended_because, made.position, made.sent) == (3.0, "asked", 4, 3.5)


def test_an_observation_is_kept() -> None:
    """What a stale cursor was judged by."""
    log = TopicLog()
    log.append(3)
    made = note()
    made.observe(log.observe())
    assert (made.head_seq, made.floor_seq) == (3, 1)


def test_topics_that_are_no_longer_live() -> None:
    """The newest are kept, and taken up again when somebody follows them."""
    trace = DeliveryTrace(NodeLimits(trace_topics_max=1), now=0.0)
    first = trace.open_topic(TOPIC)
    trace.open_topic(OTHER)
    trace.close_topic(TOPIC)
    assert trace.find_topic(TOPIC) is first
    assert trace.open_topic(TOPIC) is first
    trace.close_topic(TOPIC)
    trace.close_topic(OTHER)
    assert trace.find_topic(TOPIC) is None
    assert trace.find_topic(OTHER) is not None


def test_the_oldest_subscriptions_are_forgotten() -> None:
    """At the bound, one for one; of one topic, in their order."""
    trace = DeliveryTrace(NodeLimits(trace_subscriptions_max=3), now=0.0)
    for number in range(5):
        trace.note_subscription(note(number, topic=OTHER if number == 3 else TOPIC))
    assert [each.connection_id for each in trace.find_subscriptions(TOPIC)] == ["con_2", "con_4"]


@pytest.mark.parametrize(("live", "marks"), [(1, 192), (1_024, 192), (1_025, 191), (4_096, 48), (30_000, 8)])
def test_very_many_topics_have_fewer_marks(live: int, marks: int) -> None:
    """INV-7: as many as ever up to trace_topics_max live topics, then their share, never below 8."""
    trace = DeliveryTrace(NodeLimits(), now=0.0)
    one = TopicTrace(OTHER, 4)
    trace._live.update({run_topic(number).name: one for number in range(2, live + 1)})
    assert trace.open_topic(TOPIC).max_marks == marks


def test_no_topic_has_more_marks_than_configured() -> None:
    """A configured maximum below 8 stays the maximum."""
    assert DeliveryTrace(NodeLimits(trace_marks_max=4), now=0.0).open_topic(TOPIC).max_marks == 4
