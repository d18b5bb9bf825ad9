"""Drills that are not run any more prove nothing: the newest report of each is no older than its cadence."""

import datetime
import re
from typing import Final

from chaos.drills.cadence import newest_runs, overdue
from chaos.drills.catalog import DRILLS
from khala_service.identifiers import SystemClock
from tests.ci.tree import ROOT

REPORTS: Final = ROOT / "runbooks" / "reports"
_ROW: Final = re.compile(r"\| \[([a-z-]+)\]\(drills/([a-z-]+)\.md\) \| .* \| (\d+) days \|")


def test_no_drill_is_overdue() -> None:
    """Each drill has a report that passed, and it is young enough; the message says what to run."""
    cadence_days = {name: drill.cadence_days for name, drill in DRILLS.items()}
    today = datetime.datetime.fromtimestamp(SystemClock().now(), datetime.UTC).date()
    assert overdue(cadence_days, newest_runs(REPORTS), today=today) == []


def test_the_page_has_every_drill_and_its_cadence() -> None:
    """The table that people read is the one that is enforced."""
    page = (ROOT / "runbooks" / "drills.md").read_text(encoding="utf-8")
    rows = [match.groups() for line in page.splitlines() if (match := _ROW.fullmatch(line))]
    assert rows == [(name, name, str(drill.cadence_days)) for name, drill in DRILLS.items()]
