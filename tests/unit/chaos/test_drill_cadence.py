"""Which drills are due, from the reports of their runs."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Final

from chaos.__main__ import translated
from chaos.drills.cadence import Run, newest_runs, overdue

if TYPE_CHECKING:
    from pathlib import Path

TODAY: Final = datetime.date(2026, 12, 31)


def write(folder: Path, name: str, **document: object) -> None:
    """Write a report."""
    (folder / f"{name}.json").write_text(json.dumps(document))


def test_a_report_counts_to_the_last_day_of_its_cadence() -> None:
    """Age in days = cadence: not due; one more: due."""
    runs = {"kill": Run(TODAY - datetime.timedelta(days=30), is_passed=True)}
    assert overdue({"kill": 30}, runs, today=TODAY) == []
    (sentence,) = overdue({"kill": 29}, runs, today=TODAY)
    assert sentence == "kill: last on 2026-12-01, and it is due every 29 days"


def test_a_drill_without_a_report_or_that_failed_is_due() -> None:
    """Only a run that passed counts."""
    runs = {"kill": Run(TODAY, is_passed=False)}
    assert overdue({"kill": 30, "storm": 30}, runs, today=TODAY) == [
        "kill: it failed on 2026-12-31",
        "storm: there is no report",
    ]


def test_the_newest_report_of_a_drill_counts(tmp_path: Path) -> None:
    """By the date in it, whatever the file is called; benchmarks are no drills, short forms no proof of speed."""
    long = "khala drill run kill --seed 1"
    quick = "khala drill run kill --quick --seed 1"
    write(tmp_path, "a-newer", drill="kill", date="2026-12-02", is_passed=False, command=long)
    write(tmp_path, "b-older", drill="kill", date="2026-12-01", is_passed=True, command=long)
    write(tmp_path, "d-quick", drill="kill", date="2026-12-03", is_passed=True, command=quick)
    write(tmp_path, "c-bench", benchmark="append", date="2026-12-03")
    assert newest_runs(tmp_path) == {"kill": Run(datetime.date(2026, 12, 2), is_passed=False)}


def test_the_module_is_the_command_with_another_name() -> None:
    """``python -m chaos run X`` is ``khala drill run X``; the other groups are themselves."""
    assert translated(["run", "kill", "--quick"]) == ["drill", "run", "kill", "--quick"]
    assert translated(["load", "slow-consumer"]) == ["load", "slow-consumer"]
    assert translated([]) == ["drill"]
