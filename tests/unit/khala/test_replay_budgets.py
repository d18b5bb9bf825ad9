"""The replay budget of a class: the registry's, or what the configuration of the node says."""

import pytest

from khala.core.limits import NodeLimits
from khala.core.replay_budgets import with_budget
from khala_contracts.topics import TOPIC_CLASSES
from tests.topic_log import run_topic


def _budget(limits: NodeLimits) -> tuple[int, int]:
    row = with_budget(run_topic(1), limits).topic_class
    return row.replay_budget_events, row.replay_budget_bytes


def test_the_registry_rules_by_default() -> None:
    """Without configuration nothing is changed, not even copied."""
    topic = run_topic(1)
    assert with_budget(topic, NodeLimits()) is topic


def test_each_number_by_itself() -> None:
    """A number that is not configured stays the registry's."""
    row = TOPIC_CLASSES["run_events"]
    frames_only = NodeLimits(replay_budget_events={"run_events": 7})
    bytes_only = NodeLimits(replay_budget_bytes={"run_events": 9})
    assert _budget(frames_only) == (7, row.replay_budget_bytes)
    assert _budget(bytes_only) == (row.replay_budget_events, 9)


def test_only_the_class_that_is_named() -> None:
    """Another class keeps its own; the registry is never touched."""
    assert _budget(NodeLimits(replay_budget_events={"app": 7})) == _budget(NodeLimits())
    assert (
        with_budget(run_topic(1), NodeLimits(replay_budget_events={"run_events": 7})).name
        == run_topic(1).name
    )
    assert TOPIC_CLASSES["run_events"].replay_budget_events == 20_000


@pytest.mark.parametrize(
    ("name", "budget", "said"), [("runs", 5, "no topic class"), ("app", -1, "0 or more")]
)
@pytest.mark.parametrize("field", ["replay_budget_events", "replay_budget_bytes"])
def test_refused_values(field: str, name: str, budget: int, said: str) -> None:
    """An unknown class or a negative number is refused at start, by name; 0 is a budget."""
    with pytest.raises(ValueError, match=f"{name}: .*{said}"):
        NodeLimits(**{field: {name: budget}})  # type: ignore[arg-type]
    NodeLimits(**{field: {"app": 0}})  # type: ignore[arg-type]
