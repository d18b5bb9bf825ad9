"""Runs lanes one after the other; a failing lane does not stop the next.

Input: lanes and the tree. Output: one `LaneReport` each. Every check and every test counts as one; a problem of
the lane itself (a crash, a shortfall against the manifest) counts as one failure.
"""

import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from tests.ci.checks import Check, CheckContext, Problems, TestOutcome
from tests.ci.manifest import find_shortfalls, read_manifest
from tests.ci.pytest_lane import TestRun, run_pytest


@attrs.frozen
class Lane:
    """A named set of gates.

    Attributes:
        budget_s: What it takes on two quiet cores; above it the report says so.
        targets: Files and folders for pytest.
        ignored: Those below the targets that another lane runs.
        beside: Those below the targets that a second process runs at the same time.
        alone: Those below the targets that run after all others.
        is_in_all: False for a lane that `all` leaves out.
    """

    name: str
    text: str
    budget_s: float
    checks: tuple[Check, ...] = ()
    targets: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    is_in_all: bool = True


@attrs.frozen
class LaneReport:
    """The outcome of one lane. ``problems`` are lines for the reader, grouped under their check."""

    lane: Lane
    seconds: float
    passed: int
    failed: int
    skipped: int
    problems: tuple[str, ...]


def run_lanes(
    lanes: Sequence[Lane],
    root: Path,
    *,
    only: str | None = None,
    write: bool = False,
    is_full_build: bool = False,
    announce: Callable[[str], None] = print,
) -> list[LaneReport]:
    """Run every lane and return the reports in order.

    Args:
        lanes: In the order of running.
        root: The tree to judge.
        only: Narrows each lane to the check of this name.
        write: Lets checks of generated parts write them.
        is_full_build: Every lane of `all` is among ``lanes``: later checks may then ask what ran.
        announce: Receives the lines for the reader.
    """
    outcomes: dict[str, TestOutcome] = {}
    reports = []
    for lane in lanes:
        announce(f"== {lane.name}: {lane.text}")
        context = CheckContext(root, dict(outcomes) if is_full_build else None, write)
        report, run = run_lane(lane, context, only=only)
        outcomes.update(run.outcomes)
        for problem in report.problems:
            announce(problem)
        reports.append(report)
    return reports


def run_lane(lane: Lane, context: CheckContext, *, only: str | None = None) -> tuple[LaneReport, TestRun]:
    """Run the checks, then the tests of one lane, and judge the result by the manifest.

    With ``only`` the named check runs alone: no tests, no manifest.
    """
    began = time.monotonic()
    passed = failed = 0
    lines: Problems = []
    for check in lane.checks:
        if only is not None and check.name != only:
            continue
        problems = _run_check(check, context)
        if problems:
            failed += 1
            lines += [f"FAILED {lane.name}/{check.name}", *(f"  {problem}" for problem in problems)]
        else:
            passed += 1
    run = TestRun()
    if lane.targets and only is None:
        run = run_pytest(
            context.root,
            lane.targets,
            ignored=lane.ignored,
            beside=lane.beside,
            alone=lane.alone,
            budget_s=lane.budget_s,
        )
    results = list(run.outcomes.values())
    passed += results.count("passed")
    failed += results.count("failed")
    lines += [f"FAILED {test}" for test, outcome in sorted(run.outcomes.items()) if outcome == "failed"]
    if only is None:
        own = run.problems + _judge_by_manifest(lane, context.root, passed + failed, run)
        failed += len(own)
        lines += [f"FAILED {lane.name}: {problem}" for problem in own]
    elif passed + failed == 0:
        failed += 1
        lines.append(f"FAILED {lane.name}: has no check named {only}")
    report = LaneReport(
        lane, time.monotonic() - began, passed, failed, results.count("skipped"), tuple(lines)
    )
    return report, run


def _judge_by_manifest(lane: Lane, root: Path, ran: int, run: TestRun) -> Problems:
    try:
        manifest = read_manifest(root)
    except (OSError, ValueError, KeyError) as error:
        return [f"manifest: {error}"]
    return find_shortfalls(manifest, lane.name, ran=ran, skips=run.skips)


def _run_check(check: Check, context: CheckContext) -> Problems:
    # The one supervisor of the gates: a check that crashes is a failed check, and the others still run.
    try:
        return check.run(context)
    except FileNotFoundError as error:
        return [f"{error.filename}:1: missing"]
    except Exception:  # noqa: BLE001
        return ["the check crashed:", *traceback.format_exc().splitlines()[-12:]]
