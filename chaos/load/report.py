"""What a benchmark found, in one form: JSON for tools, markdown and one SVG for people.

A report says which command made it, where, with which configuration that is not the default, what was
demanded and whether that was met, and what it does not measure. Figures are not rounded beyond four
digits; a target is judged before any rounding.

    report = Report(name="stadium", title="...", command="khala bench stadium", ...)
    write_report(report, Path("runbooks/reports"), date="2026-11-21")   # <date>-stadium.{json,md,svg}
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final, Self

import attrs

from chaos.load.svg_plots import render_plots
from khala_service.metrics import read_version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from chaos.load.statistics_of_pairs import Spread
    from chaos.load.svg_plots import Bars, Lines

__all__ = ["Report", "Table", "Target", "check_document", "show", "show_spread", "write_report"]

# Members of every report's JSON, with their types.
_MEMBERS: Final[Mapping[str, type]] = {
    "benchmark": str,
    "version": str,
    "command": str,
    "environment": dict,
    "overrides": dict,
    "targets": list,
    "is_met": bool,
    "results": list,
    "not_measured": list,
}
_TARGET_MEMBERS: Final = frozenset({"name", "target", "relation", "value", "is_met"})


@attrs.frozen
class Target:
    """A demand, and what was found.

    Attributes:
        name: What is demanded of what.
        target: The bound.
        relation: ``>=`` or ``<=``.
        value: What was found, not rounded.
    """

    name: str
    target: float
    relation: str
    value: float

    @classmethod
    def at_least(cls, name: str, target: float, value: float) -> Self:
        """Demand ``value >= target``."""
        return cls(name, target, ">=", value)

    @classmethod
    def at_most(cls, name: str, target: float, value: float) -> Self:
        """Demand ``value <= target``."""
        return cls(name, target, "<=", value)

    @property
    def is_met(self) -> bool:
        """Whether it is met; what is no number meets nothing."""
        return self.value >= self.target if self.relation == ">=" else self.value <= self.target

    def as_json(self) -> dict[str, object]:
        """Return a JSON object."""
        return {**attrs.asdict(self), "is_met": self.is_met}


@attrs.frozen
class Table:
    """Rows of text; the first column is aligned left, the others right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@attrs.frozen(kw_only=True)
class Report:
    """One benchmark.

    Attributes:
        name: Of the command and the files.
        title: Heading.
        command: What was run.
        environment: From ``describe_environment``, taken before the first measurement.
        overrides: Configuration that differs from the defaults, by section.
        targets: What was demanded.
        results: JSON objects, as the benchmark has them.
        tables: For people.
        plots: For people.
        text: Paragraphs above the tables: what was done, how it is measured and verified.
        notes: Points below them: how to read the figures.
        not_measured: What somebody might look for here and does not find.
    """

    name: str
    title: str
    command: str
    environment: Mapping[str, object]
    overrides: Mapping[str, object]
    targets: Sequence[Target]
    results: Sequence[Mapping[str, object]]
    tables: Sequence[Table] = ()
    plots: Sequence[Bars | Lines] = ()
    text: Sequence[str] = ()
    notes: Sequence[str] = ()
    not_measured: Sequence[str] = ()

    def as_json(self) -> dict[str, object]:
        """Return the JSON document; ``check_document`` holds for it."""
        return {
            "benchmark": self.name,
            "version": read_version(),
            "command": self.command,
            "environment": dict(self.environment),
            "overrides": dict(self.overrides),
            "targets": [target.as_json() for target in self.targets],
            "is_met": all(target.is_met for target in self.targets),
            "results": [dict(result) for result in self.results],
            "not_measured": list(self.not_measured),
        }

    def as_markdown(self, *, date: str) -> str:
        """Return the page; it names the files beside it."""
        files = f"{date}-{self.name}"
        where = ", ".join(f"{key} {value}" for key, value in self.environment.items())
        lines = [
            f"# {self.title}, {date}, version {read_version()}",
            "",
            "```",
            self.command,
            "```",
            "",
            f"{where}. All figures: [{files}.json]({files}.json).",
            "",
            f"Configuration that is not the default: {_show_overrides(self.overrides)}.",
            "",
        ]
        for paragraph in self.text:
            lines += [paragraph, ""]
        if self.targets:
            demands = [
                [target.name, f"{target.relation} {show(target.target)}", show(target.value), _met(target)]
                for target in self.targets
            ]
            lines += _table(Table("Targets", ("demand", "target", "found", "met"), demands))
        for table in self.tables:
            lines += _table(table)
        if self.plots:
            lines += [f"![Plots of the figures above]({files}.svg)", ""]
        for heading, points in (("Reading it", self.notes), ("Not measured here", self.not_measured)):
            if points:
                lines += [f"{heading}:", "", *(f"- {point}" for point in points), ""]
        return "\n".join(lines)


def write_report(report: Report, folder: Path, *, date: str) -> list[Path]:
    """Write ``<date>-<name>.json``, ``.md`` and, with plots, ``.svg``; return the files."""
    document = report.as_json()
    check_document(document)
    texts = {"json": json.dumps(document, indent=2) + "\n", "md": report.as_markdown(date=date)}
    if report.plots:
        texts["svg"] = render_plots(report.plots)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for suffix, text in texts.items():
        file = folder / f"{date}-{report.name}.{suffix}"
        file.write_text(text, encoding="utf-8")
        files.append(file)
    return files


def check_document(document: Mapping[str, object]) -> None:
    """Check the members that every report has, and that no figure is infinite or no number.

    Raises:
        ValueError: With the path of what is wrong.
    """
    if document.keys() != _MEMBERS.keys():
        raise ValueError(f"$: members {sorted(document.keys() ^ _MEMBERS.keys())}")
    for name, kind in _MEMBERS.items():
        if not isinstance(document[name], kind):
            raise ValueError(f"$.{name}: not a {kind.__name__}")  # noqa: TRY004 - a document, not an argument
    targets = document["targets"]
    assert isinstance(targets, list)
    for number, target in enumerate(targets):
        if not isinstance(target, dict) or target.keys() != _TARGET_MEMBERS:
            raise ValueError(f"$.targets[{number}]: not a target")
    if document["is_met"] != all(target["is_met"] for target in targets):
        raise ValueError("$.is_met: not what the targets say")
    if not document["results"]:
        raise ValueError("$.results: empty")
    _check_value(document, "$")


def _check_value(value: object, path: str) -> None:
    match value:
        case dict():
            for name, inner in value.items():
                _check_value(inner, f"{path}.{name}")
        case list() | tuple():
            for number, inner in enumerate(value):
                _check_value(inner, f"{path}[{number}]")
        case float() if not math.isfinite(value):
            raise ValueError(f"{path}: {value}")
        case None | str() | bool() | int() | float():
            pass
        case _:
            raise ValueError(f"{path}: {type(value).__name__} has no form in JSON")


def show(value: float) -> str:
    """Return a figure for people: four digits, thousands marked."""
    if value and abs(value) < 1000:
        return f"{value:.4g}"
    return f"{float(f'{value:.4g}'):,.0f}"


def show_spread(spread: Spread) -> str:
    """Return median and range for people."""
    return f"{show(spread.median)} ({show(spread.minimum)} to {show(spread.maximum)})"


def _met(target: Target) -> str:
    return "yes" if target.is_met else "**no**"


def _show_overrides(overrides: Mapping[str, object]) -> str:
    def flatten(table: Mapping[str, object], path: str) -> list[str]:
        found: list[str] = []
        for key, value in table.items():
            name = f"{path}.{key}" if path else key
            found += flatten(value, name) if isinstance(value, dict) else [f"`{name} = {json.dumps(value)}`"]
        return found

    return ", ".join(flatten(overrides, "")) or "none"


def _table(table: Table) -> list[str]:
    head = f"| {' | '.join(table.columns)} |"
    rule = "|---|" + "---:|" * (len(table.columns) - 1)
    rows = [f"| {' | '.join(row)} |" for row in table.rows]
    return [f"{table.title}:", "", head, rule, *rows, ""]
