from pathlib import Path

import pytest

from tests.ci.checks import Check, CheckContext, Problems
from tests.ci.manifest import MANIFEST
from tests.ci.report import format_summary
from tests.ci.runner import Lane, LaneReport, run_lanes


def passes(context: CheckContext) -> Problems:
    """Pass."""
    del context
    return []


def fails(context: CheckContext) -> Problems:
    """Fail with one problem."""
    del context
    return ["a.py:3: wrong"]


def crashes(context: CheckContext) -> Problems:
    """Crash."""
    del context
    raise RuntimeError("boom")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a tree whose manifest expects one pass of the lanes a and b."""
    path = tmp_path / MANIFEST
    path.parent.mkdir(parents=True)
    path.write_text("[lanes.a]\nminimum_run = 1\n[lanes.b]\nminimum_run = 1\n", encoding="utf-8")
    return tmp_path


def test_a_failing_lane_does_not_stop_the_next(root: Path) -> None:
    """Every lane runs; problems stand under their check; the last line has the totals."""
    said: list[str] = []
    lanes = [
        Lane("a", "first", 1, (Check("bad", fails), Check("broken", crashes), Check("good", passes))),
        Lane("b", "second", 1, (Check("good", passes),)),
    ]
    reports = run_lanes(lanes, root, announce=said.append)
    assert [(report.passed, report.failed) for report in reports] == [(1, 2), (1, 0)]
    assert said[1:3] == ["FAILED a/bad", "  a.py:3: wrong"]
    assert any("RuntimeError: boom" in line for line in said)
    assert format_summary(reports).splitlines()[-1] == "2 passed, 2 failed"


def test_manifest_shortfall_fails_the_lane(root: Path) -> None:
    """A lane that ran less than its minimum fails although nothing in it failed."""
    [report] = run_lanes([Lane("a", "first", 1)], root, announce=lambda _: None)
    assert (report.passed, report.failed) == (0, 1)
    assert report.problems == (f"FAILED a: {MANIFEST}: lane a ran 0, at least 1 are expected",)


def test_only_runs_one_check_and_not_the_manifest(root: Path) -> None:
    """A name that no check has fails: a filter that matches nothing must not pass."""
    lane = Lane("c", "third", 1, (Check("good", passes), Check("bad", fails)))
    [good] = run_lanes([lane], root, only="good", announce=lambda _: None)
    [none] = run_lanes([lane], root, only="gone", announce=lambda _: None)
    assert (good.passed, good.failed) == (1, 0)
    assert (none.passed, none.failed) == (0, 1)


def test_outcomes_reach_later_checks_of_a_full_build_only(root: Path) -> None:
    """In a part of the build the absence of a test proves nothing."""
    seen: list[object] = []

    def look(context: CheckContext) -> Problems:
        seen.append(context.outcomes)
        return []

    lane = Lane("a", "first", 1, (Check("look", look),))
    run_lanes([lane], root, announce=lambda _: None)
    run_lanes([lane], root, is_full_build=True, announce=lambda _: None)
    assert seen == [None, {}]


def test_summary_marks_what_is_over_budget() -> None:
    """Time above the budget is shown, not punished: a busy machine is no defect."""
    lane = Lane("a", "first", 10)
    summary = format_summary([LaneReport(lane, 10.5, 1, 0, 0, ())])
    assert "over budget" in summary
    assert "over budget" not in format_summary([LaneReport(lane, 9.5, 1, 0, 0, ())])
