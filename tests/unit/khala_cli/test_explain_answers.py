"""Unit tests of khala.cli.explain_answers, and of what the node's adapter makes for it."""

from __future__ import annotations

import json

import pytest

from khala.adapters.explain_http import explanation_record
from khala.cli.explain_answers import (
    Bounds,
    NodeAnswer,
    RuntimeAnswer,
    SubscriptionAnswer,
    read_node_answer,
    read_runtime_answer,
)
from khala.core.delivery_trace import SubscriptionNote
from khala.core.explanation import (
    Arrival,
    Delivery,
    NodeExplanation,
    Path,
    Standing,
    SubscriptionFacts,
    TopicFacts,
)
from khala.core.seq_times import Passed
from tests.topic_log import DEVICE, USER, run_topic

TOPIC = run_topic(1).name


def note(**facts: object) -> SubscriptionNote:
    """A subscription of the test's user."""
    made = SubscriptionNote(TOPIC, "con_1", USER, DEVICE, 2.0, start_seq=3, through_seq=9)
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def test_what_a_node_says_is_what_is_read() -> None:
    """Through JSON and back: every member, with times moved to the wall clock."""
    running = SubscriptionFacts(
        note(),
        Standing(12, 11.5, 14, is_replaying=False, is_waiting_for_page=True, backlogged_since=6.0),
        Delivery.HANDED_OVER,
        Path.IN_TURN,
        Passed(5.0, 5.5),
    )
    stale = note(is_refused=True, head_seq=14, floor_seq=7)
    stale.end("stale_cursor.retention_expired", 4.0)
    explanation = NodeExplanation(
        1.0,
        TopicFacts(
            Arrival.APPENDED,
            is_live=True,
            opened_at=2.0,
            opened_head_seq=9,
            head_seq=14,
            announced=Passed(3.0, 3.0),
            published=Passed(1_000.0, 1_000.0),
            checked=Passed(3.1, 3.1),
            appended=Passed(3.2, 3.4),
            is_healed=True,
            fanned_out=Passed(3.5, 3.6),
        ),
        (SubscriptionFacts(stale, None, Delivery.REFUSED), running),
    )
    record = explanation_record(explanation, to_wall=lambda at: round((at + 100) * 1e6))
    answer = read_node_answer(json.loads(json.dumps({"node_id": "node-1", **record})))
    assert answer == NodeAnswer(
        node_id="node-1",
        started_at_us=101_000_000,
        arrival="appended",
        opened_at_us=102_000_000,
        opened_head_seq=9,
        head_seq=14,
        announced=Bounds(103_000_000, 103_000_000),
        checked=Bounds(103_100_000, 103_100_000),
        appended=Bounds(103_200_000, 103_400_000),
        is_healed=True,
        fanned_out=Bounds(103_500_000, 103_600_000),
        subscriptions=(
            SubscriptionAnswer(
                "con_1", USER, DEVICE, 102_000_000, 3, 0, 0.0, "refused", "", None,
                ended_at_us=104_000_000, ended_because="stale_cursor.retention_expired",
                seen_head_seq=14, seen_floor_seq=7,
            ),
            SubscriptionAnswer(
                "con_1", USER, DEVICE, 102_000_000, 3, 12, 11.5, "handed_over", "in_turn",
                Bounds(105_000_000, 105_500_000), mode="live", backlogged_since_us=106_000_000,
            ),
        ),
    )  # fmt: skip
    assert record["arrival"]["published"] == {"first_us": 1_000_000_000, "last_us": 1_000_000_000}  # type: ignore[index]


def test_what_the_runtime_says() -> None:
    """The commit, the position of the topic, and the hint."""
    document = {
        "topic": TOPIC,
        "seq": "4",
        "event": {"event_id": "evt_1", "request_id": "req_1", "kind": "thought", "committed_at_us": 5},
        "observation": {"head_seq": "9", "floor_seq": "2", "floor_reason": "retention_expired"},
        "hint": {"published_at_us": 6, "driver": "nats", "kind": "copy"},
    }
    assert read_runtime_answer(document) == RuntimeAnswer(
        9, 2, "retention_expired", 5, "thought", "evt_1", "req_1", 6, "nats", "copy"
    )
    nothing = {"event": None, "observation": None, "hint": None}
    assert read_runtime_answer(nothing) == RuntimeAnswer(0, 1, "")


@pytest.mark.parametrize("wrong", ["x", None, True, 1.5, []])
def test_what_is_no_answer(wrong: object) -> None:
    """A member of the wrong kind is named."""
    with pytest.raises(ValueError, match="head_seq"):
        read_runtime_answer({"observation": {"head_seq": wrong, "floor_seq": "1", "floor_reason": ""}})
