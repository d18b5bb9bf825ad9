"""The page of capacity: its figures are those of the newest reports, or follow from them by its own formulas."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from chaos.load.capacity import Costs, Machines, capacity_tables, newest_report, read_costs

if TYPE_CHECKING:
    from pathlib import Path

COSTS = Costs(
    sources=("2026-11-21-nodes", "2026-11-21-connections"),
    crowd_s=5.0,
    pairs_s=50.0,
    events_s={"runtime": 300.0, "postgres": 150.0, "nats": 15.0, "control": 15.0},
    idle_cores=0.1,
    connection_kb=12.0,
    kernel_kb=8.0,
    connection_idle_cores=1e-5,
)


def row(tables: str, what: str) -> list[str]:
    """Return the cells behind the first one of a row."""
    (line,) = (line for line in tables.splitlines() if line.startswith(f"| {what} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_every_figure_follows_from_costs_and_assumptions() -> None:
    """8 cores: 0.6 of one is the runtime's 2,000 events/s, 0.36 cores for the others are one core, 6 are left."""
    tables = capacity_tables(COSTS, Machines())
    assert row(tables, "node processes")[1:] == ["6", "14"]
    assert row(tables, "events a second")[1:] == ["2,000", "2,000"]
    assert row(tables, "agents at work")[1:] == ["1,000", "1,000"]
    assert row(tables, "deliveries a second, two followers")[1:] == ["60,000", "140,000"]
    assert row(tables, "deliveries a second, hundreds of followers")[1:] == ["600,000", "1,400,000"]
    # 8 GB of 20 kB each; two of the three machines hold connections.
    assert row(tables, "idle connections")[1:] == ["400,000", "800,000"]
    assert row(tables, "cores that those use while idle")[1:] == ["4", "8"]
    assert row(tables, "seconds until all of those are back after a cut")[1:] == ["266.7", "228.6"]
    assert "postgres 0.3 cores, runtime 0.6 cores; 2 cores with room" in tables
    assert "[2026-11-21-nodes](reports/2026-11-21-nodes.md)" in tables


@pytest.mark.parametrize(
    "field", ["crowd_s", "pairs_s", "idle_cores", "connection_kb", "connection_idle_cores"]
)
def test_another_measurement_is_another_page(field: str) -> None:
    """No figure of a report is left out of the tables, so a page that is not made again is found."""
    other = attrs.evolve(COSTS, **{field: getattr(COSTS, field) * 1.5})
    assert capacity_tables(other, Machines()) != capacity_tables(COSTS, Machines())


def write_reports(folder: Path, date: str, *, crowd_s: float) -> None:
    """Write the two reports of one day, as far as the page reads them."""
    side = {
        "node_cpu_s_per_million": {"median": crowd_s},
        "system_cpu_s_per_million_events": {"runtime": 300.0, "postgres": 150.0},
    }
    nodes: dict[str, Any] = {
        "idle_cores_per_node": {"nats, 2 nodes": 0.1},
        "shapes": {shape: {"sides": {"nats, 2 nodes": side}} for shape in ("crowd", "pairs")},
    }
    memory = {
        "connections": 1_000,
        "rss_bytes_per_connection": 12_000.0,
        "slab_bytes_per_connection": 8_000.0,
        "idle_cores": 0.01,
    }
    for name, result in (("nodes", nodes), ("connections", {"memory": memory})):
        (folder / f"{date}-{name}.json").write_text(json.dumps({"results": [result]}))


def test_the_newest_reports_are_read(tmp_path: Path) -> None:
    """By date, each report by its whole name; what it says is taken as it is."""
    write_reports(tmp_path, "2026-11-20", crowd_s=9.0)
    write_reports(tmp_path, "2026-11-22", crowd_s=5.0)
    (tmp_path / "2026-11-23-idle-nodes.json").write_text("{}")
    costs = read_costs(tmp_path)
    assert costs.sources == ("2026-11-22-nodes", "2026-11-22-connections")
    assert (costs.crowd_s, costs.connection_kb, costs.connection_idle_cores) == (5.0, 12.0, 1e-5)
    assert costs.events_s == {"runtime": 300.0, "postgres": 150.0}


def test_without_a_report_there_is_no_page(tmp_path: Path) -> None:
    """The reason names the report."""
    with pytest.raises(FileNotFoundError, match="no report nodes"):
        newest_report(tmp_path, "nodes")
