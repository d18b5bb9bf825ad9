"""The reports of connections: what is demanded of an idle one, of its beginning, and of what stays behind."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from chaos.load.connections_report import connections_report
from chaos.load.connections_setup import Batch, ConnectionsResult, ConnectionsSetup, Held
from chaos.load.cycles_report import GROWTH_MAX_MB, cycles_report
from chaos.load.cycles_setup import Baseline, CyclesSetup, Kind
from chaos.load.report import check_document

HELD = Held(
    connections=5_000,
    private_bytes=1,
    pss_bytes=1,
    rss_bytes=14_000 * 5_000,
    rss_before_bytes=90_000_000,
    kernel_bytes=0,
    slab_bytes=25_000_000,
    idle_cores=0.05,
)
AT_REST = Baseline(
    tasks=40,
    descriptors=20,
    database_connections=5,
    rss_bytes=100_000_000,
    series=frozenset({"a", "b"}),
    crashes=0,
)
CYCLES = CyclesSetup()


@pytest.mark.parametrize(
    ("rss_bytes", "cpu_s", "verdicts"),
    [
        (14_000 * 5_000, 0.5, [True, True]),
        (14_000 * 5_000 + 1, 0.5, [False, True]),
        (14_000 * 5_000, 0.501, [True, False]),
    ],
)
def test_what_a_connection_may_cost(rss_bytes: int, cpu_s: float, verdicts: list[bool]) -> None:
    """14 kB at all of them, 1,000 for a CPU second in the median batch; one more byte or less time is not met."""
    batches = [Batch(500, seconds, 0.4) for seconds in (0.1, cpu_s, 9.0)]
    found = ConnectionsResult(batches, [Batch(500, 2.0, 2.1)], attrs.evolve(HELD, rss_bytes=rss_bytes), 5_000)
    report = connections_report(ConnectionsSetup(), found, {"cpus": 2}, {})
    check_document(report.as_json())
    assert [target.is_met for target in report.targets] == verdicts
    assert report.command == "khala bench connections"
    assert "14" in report.as_markdown(date="2026-11-21")


def test_cpu_time_below_a_tick_is_a_tick() -> None:
    """A batch that cost nothing by the scheduler's clock gives a figure, not a division by zero."""
    assert Batch(10, 0.0, 0.1).per_cpu_s == 1_000


@pytest.mark.parametrize(
    ("left", "missed"),
    [
        ({}, []),
        ({"tasks": 39, "descriptors": 19, "database_connections": 9}, []),
        ({"tasks": 41}, ["tasks above the baseline"]),
        ({"descriptors": 21}, ["descriptors above the baseline"]),
        ({"series": frozenset({"a", "b", "c"})}, ["series of metrics that were not there"]),
        ({"series": frozenset({"a"})}, []),
        ({"crashes": 1}, ["crashes"]),
        ({"rss_bytes": 100_000_000 + round(GROWTH_MAX_MB * 1e6)}, []),
        ({"rss_bytes": 100_000_001 + round(GROWTH_MAX_MB * 1e6)}, ["growth of memory, MB"]),
    ],
)
def test_nothing_may_stay(left: dict[str, Any], missed: list[str]) -> None:
    """One task, descriptor, series or crash more is not met, and a little memory is."""
    done: dict[Kind, int] = {"orderly": 30_000, "abrupt": 10_000, "mid_hello": 5_000, "mid_replay": 5_000}
    after = attrs.evolve(AT_REST, **left)
    report = cycles_report(CYCLES, done, 500.0, AT_REST, after, {"cpus": 2}, {})
    check_document(report.as_json())
    assert [target.name for target in report.targets if not target.is_met] == missed


def test_fewer_cycles_than_asked_for_prove_nothing() -> None:
    """The number of cycles is a demand like the others."""
    report = cycles_report(CYCLES, {"orderly": 49_999}, 500.0, AT_REST, AT_REST, {}, {})
    assert [target.name for target in report.targets if not target.is_met] == ["cycles"]
