"""Plots of a report as one SVG file: grouped bars with ranges, and lines. The same bytes each time.

Small on purpose: a report shows medians with their ranges beside a target, or a figure against another.
More than that is in the report's JSON, for tools made for it. matplotlib draws; it is in the extra ``load``
and imported only when something is drawn.
"""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from chaos.load.statistics_of_pairs import Spread

__all__ = ["Bars", "Lines", "draw_plot", "render_plots"]

# Inches, of one plot.
_WIDTH: Final = 8.0
_HEIGHT: Final = 3.4
# Text stays text, and ids do not change from one drawing to the next.
_STYLE: Final = {"svg.fonttype": "none", "svg.hashsalt": "khala", "font.size": 9.0, "axes.axisbelow": True}


@attrs.frozen
class Bars:
    """Medians with their ranges, in groups.

    Attributes:
        title: Of the plot.
        unit: Of every value.
        groups: A label, and for each series its label and values; a series may be missing in a group.
        target: Drawn as a line across, if there is one.
    """

    title: str
    unit: str
    groups: Sequence[tuple[str, Sequence[tuple[str, Spread]]]]
    target: float | None = None


@attrs.frozen
class Lines:
    """Points of several series, joined.

    Attributes:
        title: Of the plot.
        x_label: What runs to the right, with its unit.
        y_label: What runs upwards, with its unit.
        series: A label, and points in ascending order of x.
        has_log_x: The axis is of powers of ten; every x is positive then.
        target: Drawn as a line across, if there is one.
        spans: A label, begin and end on the x axis, of what is shaded.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[tuple[str, Sequence[tuple[float, float]]]]
    has_log_x: bool = False
    target: float | None = None
    spans: Sequence[tuple[str, float, float]] = ()


def render_plots(plots: Sequence[Bars | Lines]) -> str:
    """Return an SVG document with the plots below each other.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):  # type: ignore[arg-type]  # its keys are a type of their own
        figure = Figure(figsize=(_WIDTH, _HEIGHT * len(plots)), layout="constrained")
        rows = figure.subplots(len(plots), 1, squeeze=False)
        for (axes,), plot in zip(rows, plots, strict=True):
            draw_plot(axes, plot)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    return "\n".join(line.rstrip() for line in drawn[drawn.index("<svg ") :].splitlines()) + "\n"


def draw_plot(axes: Axes, plot: Bars | Lines) -> None:
    """Draw one plot, from zero upwards, with its target."""
    axes.set_title(plot.title, loc="left", fontweight="bold")
    axes.grid(axis="y", color="#dddddd")
    if isinstance(plot, Bars):
        _draw_bars(axes, plot)
    else:
        _draw_lines(axes, plot)
    if plot.target is not None:
        axes.axhline(plot.target, color="#b00020", linestyle="--", label=f"target {plot.target:g}")
    axes.set_ylim(bottom=0)
    axes.legend(loc="best", framealpha=0.8)


def _draw_bars(axes: Axes, plot: Bars) -> None:
    names = list(dict.fromkeys(name for _, series in plot.groups for name, _ in series))
    width = 0.8 / max(1, len(names))
    for number, name in enumerate(names):
        found = [
            (place, spread)
            for place, (_, series) in enumerate(plot.groups)
            for series_name, spread in series
            if series_name == name
        ]
        medians = [spread.median for _, spread in found]
        axes.bar(
            [place + width * (number - (len(names) - 1) / 2) for place, _ in found],
            medians,
            width,
            label=name,
            yerr=[
                [spread.median - spread.minimum for _, spread in found],
                [spread.maximum - spread.median for _, spread in found],
            ],
            error_kw={"elinewidth": 1.0},
        )
    axes.set_xticks(range(len(plot.groups)), [label for label, _ in plot.groups])
    axes.set_ylabel(plot.unit)


def _draw_lines(axes: Axes, plot: Lines) -> None:
    for label, begin, end in plot.spans:
        axes.axvspan(begin, end, color="#b00020", alpha=0.12, label=label)
    for name, points in plot.series:
        axes.plot([x for x, _ in points], [y for _, y in points], label=name)
    if plot.has_log_x:
        axes.set_xscale("log")
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
