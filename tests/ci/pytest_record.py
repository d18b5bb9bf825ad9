"""A pytest plugin that writes down what really ran: node id, outcome and reason, one JSON line per test.

Loaded by `pytest_lane.py` with ``-p tests.ci.pytest_record``; the file is named by `RECORD_VARIABLE`. The last
line of a session that came to its end is ``{"finished": true}``: without it the record is of a crash.
"""

import json
import os
from pathlib import Path

import pytest

RECORD_VARIABLE = "KHALA_CI_RECORD"


def _append(entry: dict[str, object]) -> None:
    target = os.environ.get(RECORD_VARIABLE)
    if target:
        with Path(target).open("a", encoding="utf-8") as record:
            record.write(json.dumps(entry) + "\n")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(getattr(report, "wasxfail", "") or report.longrepr or "")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record the call phase, and set-up or tear-down where it is not a plain pass."""
    if report.when == "call" or report.outcome != "passed":
        reason = _reason(report) if report.outcome == "skipped" else ""
        _append({"test": report.nodeid, "outcome": report.outcome, "reason": reason})


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Record a file that cannot be imported as a failed test, and one skipped as a whole as a skip."""
    if report.outcome != "passed":
        reason = _reason(report) if report.outcome == "skipped" else ""
        _append({"test": report.nodeid, "outcome": report.outcome, "reason": reason})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Mark the record as complete."""
    del session
    _append({"finished": True})
