"""Reports: what their JSON must have, how targets are judged, and what people read."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from chaos.load.report import Report, Table, Target, check_document, show, show_spread, write_report
from chaos.load.statistics_of_pairs import Spread
from chaos.load.svg_plots import Bars

if TYPE_CHECKING:
    from pathlib import Path

REPORT = Report(
    name="example",
    title="An example",
    command="khala bench example --rounds 9",
    environment={"python": "3.11", "cpus": 2},
    overrides={"up": {"split": True}, "node": {"limits": {"heal_delay_s": 60.0}}},
    targets=[Target.at_least("speed", 0.75, 0.7500001), Target.at_most("memory", 350, 350)],
    results=[{"figure": 1.0}],
    tables=[Table("Figures", ("what", "value"), [("a", "1")])],
    plots=[Bars("Plot", "unit", [("group", [("series", Spread(1.0, 0.5, 2.0, 9))])])],
    text=["What was done."],
    notes=["A hint."],
    not_measured=["A network."],
)


@pytest.mark.parametrize(
    ("target", "is_met"),
    [
        (Target.at_least("x", 0.75, 0.75), True),
        (Target.at_least("x", 0.75, 0.7499999), False),
        (Target.at_most("x", 15.0, 15.0), True),
        (Target.at_most("x", 15.0, 15.0000001), False),
        (Target.at_least("x", 0.75, math.nan), False),
        (Target.at_most("x", 0.75, math.nan), False),
    ],
)
def test_a_target_is_judged_before_any_rounding(target: Target, *, is_met: bool) -> None:
    """Both sides of the bound; what is no number meets nothing."""
    assert target.is_met is is_met


def test_the_document_has_what_every_report_has() -> None:
    """Command, environment, configuration, targets, what is not measured."""
    document = REPORT.as_json()
    check_document(document)
    assert document["is_met"] is True
    assert document["overrides"] == REPORT.overrides
    assert document["targets"] == [
        {"name": "speed", "target": 0.75, "relation": ">=", "value": 0.7500001, "is_met": True},
        {"name": "memory", "target": 350, "relation": "<=", "value": 350, "is_met": True},
    ]


def test_one_target_that_is_not_met_is_enough() -> None:
    """Nobody has to look for it."""
    missed = attrs.evolve(REPORT, targets=[*REPORT.targets, Target.at_least("third", 2, 1)])
    assert missed.as_json()["is_met"] is False
    assert "| third | >= 2 | 1 | **no** |" in missed.as_markdown(date="2026-11-21")


def broken(**changes: object) -> dict[str, Any]:
    """Return the example's document with changed members."""
    return {**REPORT.as_json(), **changes}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({**REPORT.as_json(), "extra": 1}, r"members \['extra'\]"),
        ({name: value for name, value in REPORT.as_json().items() if name != "overrides"}, "overrides"),
        (broken(command=1), r"\$\.command"),
        (broken(results=[]), r"\$\.results: empty"),
        (broken(results=[{"a": [1.0, math.inf]}]), r"\$\.results\[0\]\.a\[1\]: inf"),
        (broken(results=[{"a": math.nan}]), r"\$\.results\[0\]\.a: nan"),
        (broken(results=[{"a": object()}]), "object has no form in JSON"),
        (broken(targets=[{"name": "x"}]), r"\$\.targets\[0\]: not a target"),
        (broken(is_met=False), r"\$\.is_met: not what the targets say"),
    ],
)
def test_a_document_that_is_not_whole_is_refused(document: dict[str, Any], reason: str) -> None:
    """By path."""
    with pytest.raises(ValueError, match=reason):
        check_document(document)


def test_the_page_says_what_the_document_says() -> None:
    """Command, place, configuration, demands, and what is not in it."""
    text = REPORT.as_markdown(date="2026-11-21")
    for part in (
        "# An example, 2026-11-21, version ",
        "khala bench example --rounds 9",
        "python 3.11, cpus 2. All figures: [2026-11-21-example.json](2026-11-21-example.json).",
        "`up.split = true`, `node.limits.heal_delay_s = 60.0`",
        "| speed | >= 0.75 | 0.75 | yes |",
        "What was done.",
        "![Plots of the figures above](2026-11-21-example.svg)",
        "Reading it:\n\n- A hint.",
        "Not measured here:\n\n- A network.",
    ):
        assert part in text


def test_without_plots_there_is_no_picture(tmp_path: Path) -> None:
    """And no link to one."""
    bare = attrs.evolve(REPORT, plots=())
    files = write_report(bare, tmp_path / "reports", date="2026-11-21")
    assert [file.name for file in files] == ["2026-11-21-example.json", "2026-11-21-example.md"]
    assert json.loads(files[0].read_text()) == bare.as_json()
    assert "![" not in files[1].read_text()


def test_figures_for_people() -> None:
    """Four digits."""
    assert [show(value) for value in (0, 0.12345, 12.3456, 1234.56, 178_912.0)] == [
        "0",
        "0.1235",
        "12.35",
        "1,235",
        "178,900",
    ]
    assert show_spread(Spread(1.0, 0.5, 2000.0, 9)) == "1 (0.5 to 2,000)"
