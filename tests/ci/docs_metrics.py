"""The table of metrics, read as data, and the alert rules that refer to it.

A rule over a metric that nobody emits never fires, and looks like quiet. `tests/e2e/test_metrics.py` compares the
table with running services; here the rules are compared with the table.
"""

import json
import re
from collections.abc import Iterator
from typing import Final

import attrs

from tests.ci.checks import CheckContext, Problems
from tests.ci.markdown import anchors, section, table_rows

METRICS: Final = "runbooks/metrics.md"
ALERTS: Final = "runbooks/alerts.yml"
# Headings of the tables, with the services that answer for them.
SECTIONS: Final = {
    "Every service": ("control", "runtime", "node"),
    "Runtime": ("runtime",),
    "Node": ("node",),
    "Control": ("control",),
}
TYPES: Final = ("counter", "gauge", "histogram")
# Labels that Prometheus adds to what it scrapes.
SCRAPED_LABELS: Final = frozenset({"instance", "job"})
SEVERITIES: Final = frozenset({"page", "ticket"})
_METRIC: Final = re.compile(r"\b(khala_[a-z0-9_]+)(?:\{([^}]*)\})?")
_MATCHER: Final = re.compile(r"\s*([a-z_]+)\s*(?:=~|!~|!=|=)")
_GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_DURATION: Final = re.compile(r"\d+[smhd]")


@attrs.frozen
class MetricRow:
    """One line of the table."""

    line: int
    name: str
    type: str
    labels: frozenset[str]
    services: tuple[str, ...]
    texts: tuple[str, ...]


def read_metric_rows(text: str) -> list[MetricRow]:
    """Return every metric of the document, in its order; line numbers are within its section."""
    rows = []
    for title, services in SECTIONS.items():
        for line, cells in table_rows(section(text, title) or ""):
            name, kind, labels, *texts = [*cells, "", "", ""][: max(5, len(cells))]
            rows.append(
                MetricRow(
                    line,
                    name.strip("`"),
                    kind,
                    frozenset() if labels == "-" else frozenset(part.strip() for part in labels.split(",")),
                    services,
                    tuple(texts),
                )
            )
    return rows


def find_metric_table_problems(context: CheckContext) -> Problems:
    """Each metric once, in the section of its service, with a known type and both texts."""
    problems = []
    seen: set[str] = set()
    for row in read_metric_rows((context.root / METRICS).read_text(encoding="utf-8")):
        where = f"{METRICS}:1: {row.name}"
        prefixes = [f"khala_{service}_" for service in ("control", "runtime", "node")]
        own = [prefix for prefix in prefixes if row.name.startswith(prefix)]
        if row.name in seen:
            problems.append(f"{where} stands twice")
        seen.add(row.name)
        if not row.name.startswith("khala_"):
            problems.append(f"{where} does not start with khala_")
        if own and row.services != (own[0].split("_")[1],):
            problems.append(f"{where} stands in the section of {', '.join(row.services)}")
        if row.type not in TYPES:
            problems.append(f"{where} has the type {row.type or '(none)'}")
        if (row.type == "counter") != row.name.endswith("_total"):
            problems.append(f"{where}: a counter, and nothing else, ends in _total")
        if len(row.texts) != 2 or not all(row.texts):
            problems.append(f"{where} needs a meaning and what to look at")
    return problems


def find_alert_problems(context: CheckContext) -> Problems:
    """Each rule is whole, and each metric and label in it is one of the table."""
    document = (context.root / METRICS).read_text(encoding="utf-8")
    rows = {row.name: row for row in read_metric_rows(document)}
    targets = anchors(document)
    try:
        rules = list(_rules((context.root / ALERTS).read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        return [f"{ALERTS}:1: not groups of rules in JSON: {type(error).__name__} {error}"]
    problems = [] if rules else [f"{ALERTS}:1: no rule"]
    names: set[str] = set()
    for rule in rules:
        name = str(rule.get("alert", ""))
        problems += [f"{ALERTS}:1: {name or 'a rule'}: {what}" for what in _judge(rule, rows, targets)]
        if name in names:
            problems.append(f"{ALERTS}:1: {name}: stands twice")
        names.add(name)
    return problems


def _rules(text: str) -> Iterator[dict[str, object]]:
    for group in json.loads(text)["groups"]:
        assert isinstance(group["name"], str)
        yield from group["rules"]


def _judge(rule: dict[str, object], rows: dict[str, MetricRow], targets: set[str]) -> Iterator[str]:
    if set(rule) != {"alert", "expr", "for", "labels", "annotations"}:
        yield f"has the keys {', '.join(sorted(rule))}"
        return
    labels, annotations = rule["labels"], rule["annotations"]
    if not isinstance(labels, dict) or labels.get("severity") not in SEVERITIES:
        yield f"severity is none of {', '.join(sorted(SEVERITIES))}"
    if not _DURATION.fullmatch(str(rule["for"])):
        yield f"for {rule['for']} is no duration"
    if not isinstance(annotations, dict) or not annotations.get("summary"):
        yield "has no summary"
    else:
        path, _, fragment = str(annotations.get("runbook", "")).partition("#")
        if path != METRICS or fragment not in targets:
            yield f"runbook {path}#{fragment} does not exist"
    yield from _judge_expression(str(rule["expr"]), rows)


def _judge_expression(expression: str, rows: dict[str, MetricRow]) -> Iterator[str]:
    used = [(row, matchers) for name, matchers in _METRIC.findall(expression) for row in [_find(name, rows)]]
    for name, _ in _METRIC.findall(expression):
        if _find(name, rows) is None:
            yield f"{name} is not in {METRICS}"
    if not used:
        yield "uses no metric of ours"
    known = set(SCRAPED_LABELS)
    for row, matchers in used:
        if row is None:
            continue
        allowed = row.labels | SCRAPED_LABELS | ({"le"} if row.type == "histogram" else set())
        known |= allowed
        for part in filter(None, matchers.split(",")):
            found = _MATCHER.match(part)
            if found is None or found.group(1) not in allowed:
                yield f"{row.name} has no label {part.strip()}"
    for group in _GROUPING.findall(expression):
        for label in filter(None, (part.strip() for part in group.split(","))):
            if label not in known:
                yield f"groups by {label}, which no metric in it has"


def _find(name: str, rows: dict[str, MetricRow]) -> MetricRow | None:
    """Return the row of a series: of a histogram also by its buckets, sum and count."""
    if name in rows:
        return rows[name] if rows[name].type != "histogram" else None
    for suffix in ("_bucket", "_sum", "_count"):
        row = rows.get(name.removesuffix(suffix))
        if name.endswith(suffix) and row is not None and row.type == "histogram":
            return row
    return None
