"""Patterns: the grammar with whole ids replaced by a star, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.topic_patterns import PatternInvalid, parse_pattern
from khala_contracts.topics import TOPIC_CLASSES
from tests.unit.control.samples import ACME, ANN, OTHER, RUN, make_id, topic


@pytest.mark.parametrize("topic_class", TOPIC_CLASSES.values(), ids=lambda row: row.name)
def test_every_class_with_all_ids_open(topic_class: object) -> None:
    """Each class has its pattern with stars, which covers a topic of that class and of no other."""
    row = TOPIC_CLASSES[getattr(topic_class, "name")]  # noqa: B009  # pytest hands objects
    text = ":".join("*" if part.startswith("{") else part for part in row.pattern.split(":"))
    pattern = parse_pattern(text)
    assert pattern.text == text
    assert pattern.topic_class == row
    assert set(pattern.ids.values()) == {None}
    samples = {
        "run_events": RUN.name,
        "worker_events": f"worker:{make_id('wrk', 9)}:events",
        "user_runs": f"user:{ANN}:runs",
        "user_codex": f"user:{ANN}:codex",
        "org_runs": f"org:{ACME}:runs",
        "org_workers": f"org:{ACME}:workers",
        "org_ops": f"org:{ACME}:ops",
        "notifications": f"user:{ANN}:notifications",
        "device_inbox": "device:dev_00000000:inbox",
        "app": f"app:{ACME}:x-1",
    }
    assert {name for name, sample in samples.items() if pattern.covers(topic(sample))} == {row.name}


def test_given_ids_are_compared_whole() -> None:
    """One id open, one given: the given one must be equal, not a beginning."""
    pattern = parse_pattern(f"app:{ACME}:*")
    assert pattern.ids == {"org_id": ACME, "name": None}
    assert pattern.covers(topic(f"app:{ACME}:anything"))
    assert not pattern.covers(topic(f"app:{OTHER}:anything"))
    named = parse_pattern("app:*:ab")
    assert named.covers(topic(f"app:{OTHER}:ab"))
    assert not named.covers(topic(f"app:{OTHER}:abc"))
    assert not named.covers(topic(f"app:{OTHER}:a"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "**",
        ":",
        "run:*",
        "run:*:*",
        "*:*:events",
        "run:*:events:",
        "run:*:events:*",
        "run::events",
        "run:**:events",
        "run:run_*:events",
        "run: *:events",
        "run:*:events ",
        "run:*:event*",
        "RUN:*:events",
        f"run:{ANN}:events",
        f"user:{ACME}:*",
        "app:*",
        "app:*:A",
        "app:*:" + "a" * 64,
        "unknown:*:events",
        "run:*:events\n",
        "run:\uff0a:events",
        "x" * 10_000,
        ":" * 10_000,
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    """Whatever is not a whole topic with whole ids open is no pattern."""
    with pytest.raises(PatternInvalid):
        parse_pattern(text)


@given(st.text(alphabet="run:*evtsapog_0123456789abcdefghjkmnpqrstvwxyz->.", max_size=60))
def test_a_pattern_without_stars_covers_itself_only(text: str) -> None:
    """Parsing is total, and a parsed pattern without a star is a topic that covers exactly itself."""
    try:
        pattern = parse_pattern(text)
    except PatternInvalid:
        return
    assert pattern.text == text
    if "*" not in text:
        assert pattern.covers(topic(text))
