"""The table of metrics equals what running services answer: names, types, labels. One start for all of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.ci.docs_metrics import METRICS, MetricRow, read_metric_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client.metrics_core import Metric

    from tests.e2e.system import System

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).resolve().parents[2]
URLS: Final = {"control": "control_url", "runtime": "runtime_url", "node": "admin_url"}


@pytest.mark.parametrize("service", URLS)
def test_the_table_is_what_a_service_answers(system: System, service: str) -> None:
    """Every documented name is there, every name of ours is documented; types and labels are equal."""
    text = httpx.get(system.ready[URLS[service]] + "/metrics", trust_env=False).text
    assert compare(text, documented(service)) == []
    assert f'service="{service}"' in text


def documented(service: str) -> dict[str, MetricRow]:
    """Return the rows of the table for which a service answers."""
    rows = read_metric_rows((ROOT / METRICS).read_text(encoding="utf-8"))
    return {row.name: row for row in rows if service in row.services}


def compare(text: str, rows: Mapping[str, MetricRow]) -> list[str]:
    """Return every difference between a scrape and the table."""
    families = {full_name(family): family for family in text_string_to_metric_families(text)}
    ours = {name for name in families if name.startswith("khala_")}
    problems = [f"{name} is documented and not answered" for name in sorted(set(rows) - ours)]
    problems += [f"{name} is answered and not documented" for name in sorted(ours - set(rows))]
    for name in sorted(ours & set(rows)):
        family, row = families[name], rows[name]
        if family.type != row.type:
            problems.append(f"{name} is a {family.type}, documented as {row.type}")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        if family.samples and labels != row.labels:
            problems.append(f"{name} has the labels {sorted(labels)}, documented {sorted(row.labels)}")
    return problems


def full_name(family: Metric) -> str:
    """Return the name that queries use; the parser cuts the suffix of counters."""
    return f"{family.name}_total" if family.type == "counter" else family.name
