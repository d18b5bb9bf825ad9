"""Plots of reports: to scale, readable, and the same each time. Not in the unit lane: drawing takes 0.2 s."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from chaos.load.report import Report, write_report
from chaos.load.statistics_of_pairs import Spread
from chaos.load.svg_plots import Bars, Lines, draw_plot, render_plots

if TYPE_CHECKING:
    from pathlib import Path

BARS = Bars(
    'Speed <of> & "all"',
    "1/s",
    [
        ("one", [("ours", Spread(50.0, 40.0, 60.0, 9)), ("theirs", Spread(100.0, 100.0, 100.0, 9))]),
        ("two", [("theirs", Spread(25.0, 25.0, 25.0, 9))]),
    ],
    target=75.0,
)
LINES = Lines(
    "Delay",
    "events/s",
    "ms",
    [("p50", [(100.0, 1.0), (1000.0, 2.0), (10_000.0, 3.0)]), ("p99", [(100.0, 5.0), (10_000.0, 10.0)])],
    has_log_x=True,
    target=8.0,
)


def test_bars_are_to_scale_from_zero_on() -> None:
    """Each at the place of its group, with a range from least to most; a series may be missing in a group."""
    axes = Figure().subplots()
    draw_plot(axes, BARS)
    bars = {(round(bar.get_x() + bar.get_width() / 2, 3), bar.get_height()) for bar in axes.patches}  # type: ignore[attr-defined]
    assert bars == {(-0.2, 50.0), (0.2, 100.0), (1.2, 25.0)}
    ranges = [segment.tolist() for lines in axes.collections for segment in lines.get_segments()]  # type: ignore[attr-defined]
    assert [[-0.2, 40.0], [-0.2, 60.0]] in [[[round(x, 3), y] for x, y in segment] for segment in ranges]
    assert axes.get_ylim()[0] == 0


def test_lines_go_through_their_points() -> None:
    """On an axis of powers of ten, beside the target."""
    axes = Figure().subplots()
    draw_plot(axes, LINES)
    drawn = [[(float(x), float(y)) for x, y in np.asarray(line.get_xydata())] for line in axes.get_lines()]
    assert drawn[:2] == [list(points) for _, points in LINES.series]
    assert {y for _, y in drawn[2]} == {LINES.target}
    assert axes.get_xscale() == "log"


def test_texts_can_be_read_and_the_same_plots_are_the_same_bytes() -> None:
    """A report that is made again from the same figures does not differ."""
    document = render_plots([BARS, LINES])
    root = ElementTree.fromstring(document)  # noqa: S314 - our own document
    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert texts >= {
        'Speed <of> & "all"',
        "1/s",
        "ours",
        "theirs",
        "one",
        "two",
        "target 75",
        "p99",
        "target 8",
    }
    assert render_plots([BARS, LINES]) == document


@pytest.mark.parametrize("value", [0.0, 0.0004, 2.3e9])
def test_every_size_of_figure_has_a_scale(value: float) -> None:
    """Also nothing at all, and a single point."""
    spread = Spread(value, value, value, 1)
    render_plots([Bars("t", "u", [("g", [("s", spread)])]), Lines("t", "x", "y", [("s", [(1.0, value)])])])


def test_the_files_of_a_report_stand_beside_each_other(tmp_path: Path) -> None:
    """JSON, markdown and the plots that it shows."""
    report = Report(
        name="example",
        title="An example",
        command="khala bench example",
        environment={},
        overrides={},
        targets=[],
        results=[{"figure": 1.0}],
        plots=[BARS],
    )
    files = write_report(report, tmp_path / "reports", date="2026-11-21")
    assert [file.name for file in files] == [
        f"2026-11-21-example.{suffix}" for suffix in ("json", "md", "svg")
    ]
    assert "](2026-11-21-example.svg)" in files[1].read_text()
    assert files[2].read_text() == render_plots([BARS])
