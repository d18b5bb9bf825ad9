from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from khala_client.core.apply import Applied, ApplyRule, Duplicate, Gap
from khala_contracts.chain import chain_start
from khala_contracts.frames import Frame
from khala_contracts.topics import TopicName

FIXTURE = Path(__file__).parents[3] / "proto" / "fixtures" / "apply-rule.json"
SCENARIOS: list[dict[str, Any]] = json.loads(FIXTURE.read_text(encoding="utf-8"))["scenarios"]
WORDS = {Applied: "applied", Duplicate: "duplicate", Gap: "gap"}


def frame_of(text: dict[str, Any]) -> Frame:
    """Return the frame that a scenario writes down."""
    return Frame(
        TopicName(text["topic"]),
        int(text["seq"]),
        text["kind"],
        base64.b64decode(text["payload_base64"]),
        text["schema_version"],
    )


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["name"])
def test_every_client_obeys_the_scenarios(scenario: dict[str, Any]) -> None:
    """KH-24: verdict, position and chain after each frame, and the exact counts."""
    start = scenario["start"]
    rule = ApplyRule(scenario["topic"], seq=int(start["seq"]), chain=bytes.fromhex(start["chain"]))
    for step in scenario["steps"]:
        judged = rule.offer(frame_of(step["frame"]))
        assert WORDS[type(judged)] == step["expect"]
        assert (str(rule.seq), rule.chain.hex()) == (step["then"]["seq"], step["then"]["chain"])
        if isinstance(judged, Gap):
            assert str(judged.expected_seq - 1) == step["resume_after"]
        if isinstance(judged, Applied):
            assert judged.chain == rule.chain
    counts = {name: str(getattr(rule.counts, name)) for name in ("applied", "duplicates", "gaps")}
    assert counts == scenario["counts"]


def test_a_frame_of_another_topic_changes_nothing() -> None:
    """Illegal input leaves the rule as it was."""
    rule = ApplyRule(TopicName("a"), seq=0, chain=chain_start("a"))
    with pytest.raises(ValueError, match="offered to a"):
        rule.offer(Frame(TopicName("b"), 1, "thought", b"", 1))
    assert (rule.seq, rule.chain, rule.counts.applied) == (0, chain_start("a"), 0)


@pytest.mark.parametrize(("seq", "chain"), [(-1, bytes(32)), (0, bytes(31)), (0, b"")])
def test_a_rule_starts_at_a_position_only(seq: int, chain: bytes) -> None:
    """A position is a seq that is not negative and a chain of 32 bytes."""
    with pytest.raises(ValueError, match="not a position"):
        ApplyRule(TopicName("a"), seq=seq, chain=chain)
