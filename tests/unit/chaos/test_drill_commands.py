"""``khala drill``: what it prints, writes and answers, with drills replaced by known outcomes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from chaos.drills.catalog import DRILLS, Drill
from chaos.drills.commands import drill
from chaos.drills.drill import Claim, DrillOptions, Outcome
from chaos.drills.waiting import DrillFailed
from chaos.load.svg_plots import Lines

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


class Scripted:
    """A drill that does nothing and finds what it was told."""

    def __init__(self, outcome: Outcome | Exception) -> None:
        self.outcome = outcome
        self.options: list[DrillOptions] = []

    def __call__(self, options: DrillOptions) -> Outcome:
        self.options.append(options)
        options.progress("at work")
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def run(scripted: Scripted, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    """Run the command with the drill replaced."""
    monkeypatch.setitem(DRILLS, "kill", Drill("kill", "nothing", 1, scripted))
    return CliRunner().invoke(drill, ["run", "kill", *arguments], standalone_mode=False)


def outcome(*, is_met: bool) -> Outcome:
    """Return an outcome with one claim."""
    return Outcome([Claim("Nothing is lost", "0", is_met)], {}, [] if is_met else ["gap: somewhere"])


def test_a_drill_that_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Status 0, the promises on standard output, progress beside it, and the folder is kept if it was named."""
    scripted = Scripted(outcome(is_met=True))
    result = run(scripted, monkeypatch, "--quick", "--seed", "7", "--data-dir", str(tmp_path / "data"))
    assert result.return_value == 0
    assert result.stdout.splitlines() == ["kept   Nothing is lost: 0", "kill: passed"]
    assert result.stderr == "at work\n"
    (options,) = scripted.options
    assert (options.is_quick, options.seed, options.kills, options.has_faults) == (True, 7, None, True)
    assert (tmp_path / "data").is_dir()


def test_a_temporary_folder_is_removed_unless_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After a broken promise the transcripts are what a search begins with."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(Scripted(outcome(is_met=True)), monkeypatch).return_value == 0
    assert list(tmp_path.iterdir()) == []
    result = run(Scripted(outcome(is_met=False)), monkeypatch)
    assert result.return_value == 1
    (folder,) = tmp_path.iterdir()
    assert str(folder) in result.stderr
    assert result.stdout.splitlines() == ["BROKEN Nothing is lost: 0", "gap: somewhere", "kill: FAILED"]


def test_a_drill_that_cannot_judge_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Status 1, with the reason and the folder."""
    monkeypatch.setitem(DRILLS, "kill", Drill("kill", "nothing", 1, Scripted(DrillFailed("not within 5 s"))))
    arguments = ["run", "kill", "--no-faults", "--data-dir", str(tmp_path)]
    result = CliRunner().invoke(drill, arguments, standalone_mode=False)
    assert result.return_value == 1
    assert "kill: not within 5 s" in result.output
    assert str(tmp_path) in result.output


def test_the_report_names_the_command_that_makes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Page and document are written, also the document that is printed."""
    page = tmp_path / "kills.md"
    scripted = Scripted(outcome(is_met=True))
    arguments = ("--kills", "300", "--report", str(page), "--data-dir", str(tmp_path / "data"), "--json")
    document = json.loads(run(scripted, monkeypatch, *arguments).stdout)
    assert document["command"] == "khala drill run kill --kills 300 --seed 1"
    assert document["command"] in page.read_text()
    assert json.loads(page.with_suffix(".json").read_text()) == document


def test_reports_of_several_drills_are_named_by_date_and_drill(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One page each, with plots where the drill has some; one path cannot hold two of them."""
    plot = Lines("title", "x", "y", [("median", [(0.0, 1.0), (1.0, 2.0)])], spans=[("harm", 0.2, 0.4)])
    found = Outcome([Claim("Nothing is lost", "0", is_met=True)], {}, [], (plot,))
    for name in ("kill", "node-kill"):
        monkeypatch.setitem(DRILLS, name, Drill(name, "nothing", 1, Scripted(found)))
    arguments = ["run", "kill", "node-kill", "--data-dir", str(tmp_path / "data")]
    runner = CliRunner()
    done = runner.invoke(drill, [*arguments, "--report-dir", str(tmp_path / "r")], standalone_mode=False)
    assert done.return_value == 0
    names = sorted(path.name.split("-", 3)[3] for path in (tmp_path / "r").iterdir())
    assert names == [f"{name}.{end}" for name in ("kill", "node-kill") for end in ("json", "md", "svg")]
    (page,) = (tmp_path / "r").glob("*-node-kill.md")
    drawing = page.with_suffix(".svg")
    assert f"({drawing.name})" in page.read_text()
    assert "harm" in drawing.read_text()
    assert runner.invoke(drill, [*arguments, "--report", str(tmp_path / "x.md")]).exit_code == 2


@pytest.mark.parametrize("is_json", [False, True])
def test_every_drill_is_listed(is_json: bool) -> None:
    """Name, what it does, and how long its short form takes."""
    lines = CliRunner().invoke(drill, ["list", *(["--json"] if is_json else [])]).stdout.splitlines()
    names = [json.loads(line)["name"] if is_json else line.split()[0] for line in lines]
    assert names == list(DRILLS)
