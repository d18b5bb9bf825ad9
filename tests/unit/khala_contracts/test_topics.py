"""The registry of topic classes and the grammar of names."""

from collections.abc import Callable

import pytest

from khala_contracts import topics
from khala_contracts.topics import TOPIC_CLASSES, Tier, TopicInvalid, TopicKind, is_app_name, parse_topic

KIB, MIB, HOUR, DAY = 1024, 1024 * 1024, 3_600, 86_400
BODY = "01fwhe4ydgfk1shh6w1g60eecf"
RUN, WORKER, USER, ORG = f"run_{BODY}", f"wrk_{BODY}", f"usr_{BODY}", f"org_{BODY}"
DEVICE = "dev_abcdefgh"

# SPEC section 2: payload, rate, retention, budget in events, budget in bytes.
NUMBERS = {
    "run_events": (256 * KIB, 240, 7 * DAY, 20_000, 32 * MIB),
    "worker_events": (128 * KIB, 240, DAY, 3_000, 8 * MIB),
    "user_runs": (64 * KIB, None, 7 * DAY, 20_000, 16 * MIB),
    "user_codex": (64 * KIB, None, 7 * DAY, 20_000, 16 * MIB),
    "org_runs": (64 * KIB, None, 7 * DAY, 20_000, 16 * MIB),
    "org_workers": (64 * KIB, None, 3 * DAY, 10_000, 8 * MIB),
    "org_ops": (64 * KIB, None, 7 * DAY, 1_000, MIB),
    "notifications": (64 * KIB, 90, 12 * HOUR, 500, MIB),
    "device_inbox": (64 * KIB, 60, 12 * HOUR, 500, MIB),
    "app": (64 * KIB, 240, 7 * DAY, 10_000, 16 * MIB),
}
NAMES: list[tuple[str, Callable[[], str], str, dict[str, str]]] = [
    ("run_events", lambda: topics.format_run_events(RUN), f"run:{RUN}:events", {"run_id": RUN}),
    (
        "worker_events",
        lambda: topics.format_worker_events(WORKER),
        f"worker:{WORKER}:events",
        {"worker_id": WORKER},
    ),
    ("user_runs", lambda: topics.format_user_runs(USER), f"user:{USER}:runs", {"user_id": USER}),
    ("user_codex", lambda: topics.format_user_codex(USER), f"user:{USER}:codex", {"user_id": USER}),
    ("org_runs", lambda: topics.format_org_runs(ORG), f"org:{ORG}:runs", {"org_id": ORG}),
    ("org_workers", lambda: topics.format_org_workers(ORG), f"org:{ORG}:workers", {"org_id": ORG}),
    ("org_ops", lambda: topics.format_org_ops(ORG), f"org:{ORG}:ops", {"org_id": ORG}),
    (
        "notifications",
        lambda: topics.format_notifications(USER),
        f"user:{USER}:notifications",
        {"user_id": USER},
    ),
    (
        "device_inbox",
        lambda: topics.format_device_inbox(DEVICE),
        f"device:{DEVICE}:inbox",
        {"device_id": DEVICE},
    ),
    ("app", lambda: topics.format_app(ORG, "a-1"), f"app:{ORG}:a-1", {"org_id": ORG, "name": "a-1"}),
]


def test_the_registry_has_the_ten_classes_with_the_promised_numbers() -> None:
    """SPEC section 2, every column that is a number."""
    found = {
        row.name: (
            row.payload_max_bytes,
            row.publish_rate_per_s,
            row.retention_s,
            row.replay_budget_events,
            row.replay_budget_bytes,
        )
        for row in TOPIC_CLASSES.values()
    }
    assert found == NUMBERS
    assert {row.publish_burst_s for row in TOPIC_CLASSES.values()} == {10.0}


def test_tiers_and_kinds() -> None:
    """SPEC section 2: state topics have a key and are never published to; logs have none."""
    assert {name for name, row in TOPIC_CLASSES.items() if row.tier is Tier.HOT} == {"worker_events"}
    assert {name for name, row in TOPIC_CLASSES.items() if row.tier is Tier.COLD} == {
        "org_ops",
        "notifications",
        "device_inbox",
    }
    for row in TOPIC_CLASSES.values():
        assert (
            (row.kind is TopicKind.STATE) == (row.state_key is not None) == (row.publish_rate_per_s is None)
        )
        assert row.readers
        assert row.written_by


@pytest.mark.parametrize(("class_name", "make", "text", "ids"), NAMES)
def test_names_are_made_and_parsed(
    class_name: str, make: Callable[[], str], text: str, ids: dict[str, str]
) -> None:
    """Each class: the name that is made is the one in the table, and parses to the same ids."""
    assert make() == text
    parsed = parse_topic(text)
    assert parsed.name == text
    assert parsed.topic_class is TOPIC_CLASSES[class_name]
    assert dict(parsed.ids) == ids


@pytest.mark.parametrize(
    "text",
    [
        "",
        "run",
        "run:",
        f"run:{RUN}",
        f"run:{RUN}:",
        f"run:{RUN}:events:",
        f"run:{RUN}:events:x",
        f"run:{RUN}:Events",
        f"RUN:{RUN}:events",
        f" run:{RUN}:events",
        f"run:{RUN}:events\n",
        f"run:{RUN}:events\x00",
        f"run:{USER}:events",
        f"run:{RUN.upper()}:events",
        "run:*:events",
        "run:>:events",
        "run:?:events",
        f"run:{RUN}:*",
        f"run::{RUN}:events",
        f"run.{RUN}.events",
        f"run/{RUN}/events",
        f"r\u0443n:{RUN}:events",
        f"run\uff1a{RUN}:events",
        f"user:{RUN}:runs",
        f"user:{USER}:workers",
        f"org:{ORG}:notifications",
        f"device:{USER}:inbox",
        "device:dev_short:inbox",
        f"app:{ORG}:",
        f"app:{ORG}:-a",
        f"app:{ORG}:A",
        f"app:{ORG}:a_b",
        f"app:{ORG}:{'a' * 64}",
        f"app:{USER}:a",
    ],
)
def test_nothing_else_is_a_topic(text: str) -> None:
    """Wildcards, white space, look-alikes, other cases, missing and extra segments, foreign ids."""
    with pytest.raises(TopicInvalid) as caught:
        parse_topic(text)
    assert text == "" or text not in caught.value.detail


def test_app_names_have_1_to_63_characters() -> None:
    """Both ends of the range, and one beyond."""
    assert is_app_name("a")
    assert is_app_name("0" + "-" * 62)
    assert not is_app_name("0" + "-" * 63)
    assert not is_app_name("")
    assert parse_topic(f"app:{ORG}:{'a' * 63}").ids["name"] == "a" * 63


def test_a_name_of_200_bytes_is_judged_by_the_grammar_and_one_of_201_by_its_length() -> None:
    """The bound is inclusive."""
    for length, detail in ((200, "not a topic"), (201, "at most 200")):
        with pytest.raises(TopicInvalid, match=detail):
            parse_topic("x" * length)


@pytest.mark.parametrize("run_id", ["", "*", USER, f"{RUN}:events"])
def test_a_name_is_never_made_from_something_else(run_id: str) -> None:
    """A formatter refuses what the grammar would not parse back."""
    with pytest.raises(TopicInvalid):
        topics.format_run_events(run_id)


def test_an_id_cannot_move_a_name_into_another_class() -> None:
    """The class of a made name is the one that was asked for."""
    with pytest.raises(TopicInvalid):
        topics.format_app(ORG, "a:b")


def test_the_table_has_one_line_for_each_class() -> None:
    """Documents are made from it."""
    lines = topics.markdown_table().splitlines()
    assert len(lines) == 2 + len(TOPIC_CLASSES)
    assert len({line.count("|") for line in lines}) == 1
    run_events = (
        "| run_events | `run:{run_id}:events` | log | the run's owner; members of its org by role | warm | 256 KiB "
        "| 240 | 2400 | 7 d | 20,000 / 32 MiB | run state fold, every 1,000 events | command API |"
    )
    assert lines[2] == run_events
    assert "| state by subject |" in lines[8]
    assert "| 12 h |" in lines[9]
