"""Runs the pytest targets of a lane in a child process and reads back what happened.

The child is a process group of its own: a lane that outlives its limit is ended with everything it started.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
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
    root: Path, targets: Sequence[str], *, budget_s: float, ignored: Sequence[str] = ()
) -> TestRun:
    """Run pytest on the targets that exist; its report goes to our own standard output.

    A target that does not exist, a hang and a crash are problems of the run, not exceptions.
    """
    missing = [f"{target}: no such file or folder" for target in targets if not (root / target).exists()]
    if missing:
        return TestRun(problems=missing)
    with tempfile.TemporaryDirectory(prefix="khala-ci-") as folder:
        record = Path(folder) / "record.jsonl"
        record.touch()
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "tests.ci.pytest_record",
            "--continue-on-collection-errors",
            *targets,
        ]
        command += [f"--ignore={name}" for name in ignored]
        environment = child_environment(root, **{RECORD_VARIABLE: str(record)})
        sys.stdout.flush()
        child = subprocess.Popen(command, cwd=root, env=environment, start_new_session=True)
        try:
            status = child.wait(timeout=budget_s * HANG_FACTOR)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            status = None
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        run, is_finished = read_record(record.read_text(encoding="utf-8").splitlines())
    if status is None:
        run.problems.append(f"pytest: not finished after {budget_s * HANG_FACTOR:.0f} s, ended")
    elif not is_finished:
        run.problems.append(f"pytest: crashed with exit status {status}")
    elif status != 0 and "failed" not in run.outcomes.values():
        run.problems.append(f"pytest: exit status {status} although no test failed")
    return run
