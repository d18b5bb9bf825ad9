"""Runs the pytest targets of a lane in child processes, at most two at once, and reads back what happened.

Each child is a process group of its own: a lane that outlives its limit is ended with everything it started.
Two at once are for lanes that wait for real clocks most of the time; each has a PostgreSQL server of its own,
and ports are drawn, so that they share nothing but the machine. Tests that measure what the machine can do have it
for themselves afterwards.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

from tests.ci.checks import Problems, TestOutcome
from tests.ci.pytest_record import RECORD_VARIABLE
from tests.ci.tree import child_environment

# A lane may take this many times its budget before it counts as hung: budgets are for two quiet cores.
HANG_FACTOR = 4


@attrs.frozen
class TestRun:
    """What one pytest process did.

    Invariant: ``skips`` has a reason for exactly the tests whose outcome is "skipped".
    """

    __test__ = False

    outcomes: dict[str, TestOutcome] = attrs.field(factory=dict)
    skips: dict[str, str] = attrs.field(factory=dict)
    problems: Problems = attrs.field(factory=list)


def read_record(lines: Iterable[str]) -> tuple[TestRun, bool]:
    """Return the run that a record describes and whether its session came to an end.

    A test may have several lines (call, then a failing tear-down); the worst one counts.
    """
    run = TestRun()
    is_finished = False
    for line in lines:
        entry = json.loads(line)
        if entry.get("finished"):
            is_finished = True
            continue
        test, outcome = entry["test"], entry["outcome"]
        if outcome == "skipped":
            run.skips[test] = entry["reason"]
        if run.outcomes.get(test) != "failed":
            run.outcomes[test] = outcome
    for test in [test for test in run.skips if run.outcomes[test] != "skipped"]:
        del run.skips[test]
    return run, is_finished


def run_pytest(
    root: Path,
    targets: Sequence[str],
    *,
    budget_s: float,
    ignored: Sequence[str] = (),
    beside: Sequence[str] = (),
    alone: Sequence[str] = (),
) -> TestRun:
    """Run pytest on the targets that exist; its report goes to our own standard output.

    A target that does not exist, a hang and a crash are problems of the run, not exceptions.

    Args:
        root: The tree.
        targets: Files and folders.
        budget_s: Of all of it.
        ignored: Those below the targets that are left out.
        beside: Those below the targets that a second process runs at the same time; its report follows when
            both have ended.
        alone: Those below the targets that run after both, with nothing beside them.
    """
    named = (*targets, *beside, *alone)
    missing = [f"{name}: no such file or folder" for name in named if not (root / name).exists()]
    if missing:
        return TestRun(problems=missing)
    deadline = time.monotonic() + budget_s * HANG_FACTOR
    whole = TestRun()
    with tempfile.TemporaryDirectory(prefix="khala-ci-") as name:
        folder = Path(name)
        # pytest ignores nothing that is named as a target.
        rest = [target for target in targets if target not in {*beside, *alone}]
        first = [_Plan(rest, (*ignored, *beside, *alone), folder / "record.jsonl")]
        if beside:
            first.append(_Plan(beside, ignored, folder / "beside.jsonl", folder / "beside.txt"))
        last = [_Plan(alone, ignored, folder / "alone.jsonl")] if alone else []
        for plans in (first, last):
            for run in _run_at_once(root, plans, deadline, limit_s=budget_s * HANG_FACTOR):
                whole.outcomes.update(run.outcomes)
                whole.skips.update(run.skips)
                whole.problems.extend(run.problems)
    return whole


@attrs.frozen
class _Plan:
    """What one process runs, and where it writes: its record, and its report if that is kept back."""

    targets: Sequence[str]
    ignored: Sequence[str]
    record: Path
    report: Path | None = None


def _run_at_once(root: Path, plans: Sequence[_Plan], deadline: float, *, limit_s: float) -> list[TestRun]:
    """Start a process for each plan and return what each did; those that live at ``deadline`` are ended."""
    sys.stdout.flush()
    children: list[subprocess.Popen[bytes]] = []
    try:
        for plan in plans:
            children.append(_start(root, plan))  # noqa: PERF401 - those that run are ended whatever happens
        statuses = [_wait(child, deadline) for child in children]
    finally:
        for child in children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    return [_read(plan, status, limit_s) for plan, status in zip(plans, statuses, strict=True)]


def _start(root: Path, plan: _Plan) -> subprocess.Popen[bytes]:
    """Start pytest in a process group of its own."""
    plan.record.touch()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.ci.pytest_record",
        "--continue-on-collection-errors",
        *plan.targets,
    ]
    command += [f"--ignore={name}" for name in plan.ignored]
    # Two sessions at once must not write one cache.
    command += [] if plan.report is None else ["-p", "no:cacheprovider"]
    environment = child_environment(root, **{RECORD_VARIABLE: str(plan.record)})
    with ExitStack() as held:
        to = None if plan.report is None else held.enter_context(plan.report.open("wb"))
        return subprocess.Popen(
            command, cwd=root, env=environment, start_new_session=True, stdout=to, stderr=to
        )


def _wait(child: subprocess.Popen[bytes], deadline: float) -> int | None:
    """Return its exit status; None if it still runs at ``deadline`` of the monotonic clock."""
    try:
        return child.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None


def _read(plan: _Plan, status: int | None, limit_s: float) -> TestRun:
    """Return what a process did, after its end; print its report if that was kept back."""
    if plan.report is not None:
        sys.stdout.write(plan.report.read_text(encoding="utf-8", errors="replace"))
    run, is_finished = read_record(plan.record.read_text(encoding="utf-8").splitlines())
    if status is None:
        run.problems.append(f"pytest: not finished after {limit_s:.0f} s, ended")
    elif not is_finished:
        run.problems.append(f"pytest: crashed with exit status {status}")
    elif status != 0 and "failed" not in run.outcomes.values():
        run.problems.append(f"pytest: exit status {status} although no test failed")
    return run
