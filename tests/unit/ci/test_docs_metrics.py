"""The gate of metrics and alerts: what it reads, and each mistake that it must find."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.ci import docs_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.unit.ci.conftest import Plant

HEAD = "| name | type | labels | meaning | when it is bad |\n|---|---|---|---|---|\n"
TABLE = (
    f"## Every service\n\n{HEAD}| `khala_ready` | gauge | - | Ready. | Ask why. |\n\n"
    f"## Node\n\n{HEAD}"
    "| `khala_node_closes_total` | counter | reason | Ends. | See the reason. |\n"
    "| `khala_node_replay_seconds` | histogram | topic_class | Replays. | The disk. |\n\n"
    '## Alerts\n\n| alert | do |\n|---|---|\n| <a id="KhalaDown"></a>KhalaDown | Look. |\n'
)
RULE = {
    "alert": "KhalaDown",
    "expr": "khala_ready == 0",
    "for": "1m",
    "labels": {"severity": "page"},
    "annotations": {"summary": "Down.", "runbook": "runbooks/metrics.md#KhalaDown"},
}


def alerts(*rules: Mapping[str, object]) -> str:
    """Return a file of rules."""
    return json.dumps({"groups": [{"name": "khala", "rules": list(rules)}]})


def test_the_table_is_read(plant: Plant) -> None:
    """Name, type, labels and the services of the section."""
    rows = {row.name: row for row in docs_metrics.read_metric_rows(TABLE)}
    assert set(rows) == {"khala_ready", "khala_node_closes_total", "khala_node_replay_seconds"}
    assert rows["khala_ready"].services == ("control", "runtime", "node")
    assert rows["khala_ready"].labels == frozenset()
    assert rows["khala_node_closes_total"].labels == {"reason"}
    assert docs_metrics.find_metric_table_problems(plant({docs_metrics.METRICS: TABLE})) == []


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("| `khala_ready` | gauge | - | Again. | - |", "khala_ready stands twice"),
        ("| `up` | gauge | - | Up. | - |", "up does not start with khala_"),
        ("| `khala_runtime_x` | gauge | - | X. | - |", "stands in the section of node"),
        ("| `khala_node_x` | number | - | X. | - |", "has the type number"),
        ("| `khala_node_x` | counter | - | X. | - |", "ends in _total"),
        ("| `khala_node_x_total` | gauge | - | X. | - |", "ends in _total"),
        ("| `khala_node_x` | gauge | - | X. | |", "needs a meaning"),
    ],
)
def test_a_wrong_row_is_named(plant: Plant, row: str, words: str) -> None:
    """Twice, in the wrong section, with a wrong type or without its texts."""
    table = TABLE.replace("\n\n## Alerts", f"\n{row}\n\n## Alerts")
    [problem] = docs_metrics.find_metric_table_problems(plant({docs_metrics.METRICS: table}))
    assert words in problem


@pytest.mark.parametrize(
    "expression",
    [
        "khala_ready == 0",
        'sum by (instance, reason) (rate(khala_node_closes_total{reason="internal", instance!="x"}[5m])) > 0',
        "histogram_quantile(0.99, rate(khala_node_replay_seconds_bucket[5m])) > 10",
        "khala_ready == 0 and on (instance) khala_node_replay_seconds_count > 0",
    ],
)
def test_a_rule_over_what_exists_passes(plant: Plant, expression: str) -> None:
    """Plain names, label matchers, groupings, and the series of a histogram."""
    files = {docs_metrics.METRICS: TABLE, docs_metrics.ALERTS: alerts({**RULE, "expr": expression})}
    assert docs_metrics.find_alert_problems(plant(files)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"expr": "khala_not_there > 0"}, "khala_not_there is not in"),
        ({"expr": "khala_node_closes > 0"}, "khala_node_closes is not in"),
        ({"expr": "khala_node_replay_seconds > 1"}, "khala_node_replay_seconds is not in"),
        ({"expr": "khala_ready_count > 1"}, "khala_ready_count is not in"),
        ({"expr": "up == 0"}, "uses no metric of ours"),
        ({"expr": 'khala_node_closes_total{code="x"} > 0'}, "has no label code"),
        ({"expr": "sum by (topic) (khala_node_closes_total)"}, "groups by topic"),
        ({"for": "soon"}, "is no duration"),
        ({"labels": {"severity": "loud"}}, "severity is none of"),
        ({"annotations": {"summary": "", "runbook": "runbooks/metrics.md#KhalaDown"}}, "has no summary"),
        ({"annotations": {"summary": "x", "runbook": "runbooks/metrics.md#Gone"}}, "does not exist"),
        ({"annotations": {"summary": "x"}}, "does not exist"),
        ({"extra": 1}, "has the keys"),
    ],
)
def test_a_wrong_rule_is_named(plant: Plant, change: dict[str, object], words: str) -> None:
    """A rule that can never fire, or leads nowhere, names itself."""
    files = {docs_metrics.METRICS: TABLE, docs_metrics.ALERTS: alerts({**RULE, **change})}
    [problem] = docs_metrics.find_alert_problems(plant(files))
    assert "KhalaDown" in problem
    assert words in problem


@pytest.mark.parametrize("text", ["", "groups: []", "{}", '{"groups": [{"name": "x"}]}'])
def test_a_file_without_rules_is_refused(plant: Plant, text: str) -> None:
    """Not JSON, or not groups of rules."""
    files = {docs_metrics.METRICS: TABLE, docs_metrics.ALERTS: text}
    assert len(docs_metrics.find_alert_problems(plant(files))) == 1


def test_two_rules_of_one_name_are_refused(plant: Plant) -> None:
    """One would hide the other in every list of alerts."""
    files = {docs_metrics.METRICS: TABLE, docs_metrics.ALERTS: alerts(RULE, RULE)}
    [problem] = docs_metrics.find_alert_problems(plant(files))
    assert "stands twice" in problem
