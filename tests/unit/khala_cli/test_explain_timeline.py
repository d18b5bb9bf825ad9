"""Unit tests of khala.cli.explain_timeline: one sentence for each thing that may have happened."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from khala.cli.explain_answers import Bounds, NodeAnswer, RuntimeAnswer, SubscriptionAnswer
from khala.cli.explain_timeline import RUNTIME, explain
from khala_contracts.frames import ERASED_KIND

COMMIT_US = 1_000_000
RUNTIME_SAYS = RuntimeAnswer(
    head_seq=9,
    floor_seq=1,
    floor_reason="none",
    committed_at_us=COMMIT_US,
    kind="thought",
    event_id="evt_1",
    request_id="req_1",
    published_at_us=COMMIT_US + 10,
    driver="memory",
    published_as="copy",
)


def at(us: int, last_us: int | None = None) -> Bounds:
    """Microseconds after the commit."""
    return Bounds(COMMIT_US + us, COMMIT_US + (us if last_us is None else last_us))


LIVE = SubscriptionAnswer(
    connection_id="con_1",
    user_id="usr_1",
    device_id="dev_1",
    started_at_us=500_000,
    start_seq=0,
    position=5,
    sent=5.0,
    delivery="sent",
    path="direct",
    put_on_connection=at(40, 60),
)
NODE_SAYS = NodeAnswer(
    node_id="node-1",
    started_at_us=1,
    arrival="appended",
    opened_at_us=400_000,
    opened_head_seq=2,
    head_seq=9,
    announced=at(20),
    checked=None,
    appended=at(30),
    is_healed=False,
    fanned_out=at(40, 60),
    subscriptions=(LIVE,),
)


def one(**changes: Any) -> tuple[str, str]:
    """Reason and text of one subscription's entry."""
    node = attrs.evolve(NODE_SAYS, subscriptions=(attrs.evolve(LIVE, **changes),))
    (entry,) = [entry for entry in explain(5, RUNTIME_SAYS, [node]).timeline if entry.place == "con_1"]
    return entry.reason, entry.text


def test_the_way_of_a_frame() -> None:
    """In the order of time, each with its place."""
    explained = explain(5, RUNTIME_SAYS, [NODE_SAYS])
    assert [(entry.place, entry.reason) for entry in explained.timeline] == [
        (RUNTIME, "committed"),
        (RUNTIME, "published"),
        ("node-1", "announced"),
        ("node-1", "appended"),
        ("node-1", "fanned_out"),
        ("con_1", "delivered"),
    ]
    assert explained.timeline[0].text == "committed thought: event evt_1, request req_1"
    assert explained.verdict == "Delivered to 1 of 1 subscription that asked for it."


@pytest.mark.parametrize(
    ("changes", "reason", "text"),
    [
        ({}, "delivered", "written by the fan-out"),
        ({"path": "in_turn"}, "delivered", "sent in its turn"),
        ({"delivery": "handed_over"}, "handed_over", "not yet taken by the kernel"),
        ({"delivery": "behind", "position": 4}, "behind", "stands at 4"),
        ({"delivery": "awaits_journal", "position": 4}, "awaits_journal", "waits for the journal"),
        ({"delivery": "awaited"}, "awaited", "has not come to node-1"),
        ({"delivery": "not_asked", "start_seq": 1_700}, "not_asked", "follows from 1,700 on"),
        ({"delivery": "refused", "ended_because": "forbidden"}, "forbidden", "was refused, forbidden"),
        (
            {
                "delivery": "refused",
                "ended_because": "stale_cursor.retention_expired",
                "start_seq": 3,
                "seen_floor_seq": 7,
                "seen_head_seq": 9,
            },
            "stale_cursor.retention_expired",
            "its cursor was 3, the floor 7, the head 9",
        ),
        ({"delivery": "ended", "ended_because": "slow_consumer"}, "released", "its cursor stays valid"),
        ({"delivery": "ended", "ended_because": "asked"}, "unsubscribed", "had unsubscribed"),
        ({"delivery": "ended", "ended_because": "replaced"}, "replaced", "subscribed anew"),
        ({"delivery": "ended", "ended_because": "forbidden"}, "forbidden", "right to read"),
        (
            {"delivery": "ended", "ended_because": "disconnected", "closed_with": "slow_consumer"},
            "disconnected",
            "the connection had ended (slow_consumer)",
        ),
        (
            {"delivery": "ended", "ended_because": "stale_cursor.lineage_mismatch"},
            "stale_cursor.lineage_mismatch",
            "stale_cursor.lineage_mismatch",
        ),
        ({"delivery": "of_the_future"}, "of_the_future", "of_the_future"),
    ],
)
def test_each_fate(changes: dict[str, Any], reason: str, text: str) -> None:
    """Why a frame was or was not delivered, in words for people and for scripts."""
    found, said = one(**changes)
    assert found == reason
    assert text in said
    assert said.endswith("(usr_1 on dev_1)")


def test_the_verdict_counts_who_asked() -> None:
    """Who began after the frame did not ask for it."""
    fates = ("sent", "sent", "behind", "ended", "not_asked")
    node = attrs.evolve(NODE_SAYS, subscriptions=tuple(attrs.evolve(LIVE, delivery=word) for word in fates))
    explained = explain(5, RUNTIME_SAYS, [node])
    assert (explained.delivered, explained.undelivered) == (2, 2)
    assert explained.verdict == "Delivered to 2 of 4 subscriptions that asked for it."
    nobody = explain(5, RUNTIME_SAYS, [attrs.evolve(NODE_SAYS, subscriptions=())])
    assert nobody.verdict == "No subscription that is remembered has asked for it."


def test_one_connection() -> None:
    """--connection leaves out the others, and keeps what is about the frame."""
    node = attrs.evolve(NODE_SAYS, subscriptions=(LIVE, attrs.evolve(LIVE, connection_id="con_2")))
    explained = explain(5, RUNTIME_SAYS, [node], connection_id="con_2")
    assert [entry.place for entry in explained.timeline if entry.place.startswith("con_")] == ["con_2"]
    assert explained.delivered == 1


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"committed_at_us": None, "published_at_us": None}, ["not_committed"]),
        ({"published_at_us": None}, ["committed", "not_published"]),
        ({"published_as": "hint"}, ["committed", "published"]),
        ({"kind": ERASED_KIND}, ["committed", "published", "erased"]),
        ({"floor_seq": 6, "floor_reason": "retention_expired"}, ["committed", "published", "below_floor"]),
    ],
)
def test_what_the_runtime_knows(changes: dict[str, Any], reasons: list[str]) -> None:
    """The commit or its absence, telling the nodes, erasure and the floor (exactly at it: replayed)."""
    answer = attrs.evolve(RUNTIME_SAYS, **changes)
    assert [entry.reason for entry in explain(5, answer, []).timeline] == reasons
    at_floor = attrs.evolve(RUNTIME_SAYS, floor_seq=5)
    assert "below_floor" not in [entry.reason for entry in explain(5, at_floor, []).timeline]


@pytest.mark.parametrize(
    ("changes", "reason", "text"),
    [
        ({"is_healed": True, "announced": None, "checked": at(25)}, "healed", "no record of it had come"),
        ({"is_healed": True}, "healed", "its copy could not be used"),
        ({"arrival": "before", "appended": None}, "before", "head then 2"),
        ({"arrival": "awaited", "appended": None, "head_seq": 4}, "awaited", "the head here is 4"),
        ({"arrival": "not_followed", "appended": None}, "not_followed", "nobody follows"),
        ({"started_at_us": COMMIT_US + 1}, "node_restarted", "started after the commit"),
    ],
)
def test_what_a_node_knows(changes: dict[str, Any], reason: str, text: str) -> None:
    """How it came there, or did not."""
    node = attrs.evolve(NODE_SAYS, subscriptions=(), **changes)
    texts = {entry.reason: entry.text for entry in explain(5, RUNTIME_SAYS, [node]).timeline}
    assert text in texts[reason]


def test_without_the_runtime() -> None:
    """What the nodes say is still told."""
    assert "delivered" in [entry.reason for entry in explain(5, None, [NODE_SAYS]).timeline]
