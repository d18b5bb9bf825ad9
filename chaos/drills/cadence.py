"""How often each drill has to be run for the record, and which are due: pure but for reading reports."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Run", "newest_runs", "overdue"]


@attrs.frozen
class Run:
    """A drill that was run, as its report says."""

    date: datetime.date
    is_passed: bool


def newest_runs(folder: Path) -> dict[str, Run]:
    """Return the newest run of each drill of which the folder has a report; other reports are left out.

    So are reports of short forms: nobody judges what those say about speed.

    Raises:
        ValueError, KeyError: A report of a drill is not what ``khala drill run --report`` writes.
    """
    newest: dict[str, Run] = {}
    for file in sorted(folder.glob("*.json")):
        document = json.loads(file.read_text(encoding="utf-8"))
        name = document.get("drill")
        if name is None or "--quick" in document["command"].split():
            continue
        run = Run(datetime.date.fromisoformat(document["date"]), document["is_passed"])
        if name not in newest or newest[name].date < run.date:
            newest[name] = run
    return newest


def overdue(cadence_days: Mapping[str, int], runs: Mapping[str, Run], *, today: datetime.date) -> list[str]:
    """Return a sentence for each drill that has to be run again.

    Args:
        cadence_days: For each drill: a report that is older than so many days counts no more.
        runs: From ``newest_runs``.
        today: By UTC, as in reports.
    """
    due: list[str] = []
    for name, days in cadence_days.items():
        run = runs.get(name)
        if run is None:
            due.append(f"{name}: there is no report")
        elif not run.is_passed:
            due.append(f"{name}: it failed on {run.date}")
        elif (today - run.date).days > days:
            due.append(f"{name}: last on {run.date}, and it is due every {days} days")
    return due
