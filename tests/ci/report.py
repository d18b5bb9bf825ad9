"""The summary: a table of the lanes, and as the very last line ``N passed, N failed``."""

from collections.abc import Sequence

from tests.ci.runner import LaneReport


def format_summary(reports: Sequence[LaneReport]) -> str:
    """Return table and totals; skipped tests stand in the table, since the manifest has judged them."""
    width = max([len("lane"), *(len(report.lane.name) for report in reports)])
    lines = [f"{'lane':<{width}}  {'passed':>6}  {'failed':>6}  {'skipped':>7}  {'time':>7}  budget"]
    for report in reports:
        note = "  over budget" if report.seconds > report.lane.budget_s else ""
        lines.append(
            f"{report.lane.name:<{width}}  {report.passed:>6}  {report.failed:>6}  {report.skipped:>7}"
            f"  {report.seconds:>6.1f}s  {report.lane.budget_s:.0f}s{note}"
        )
    passed = sum(report.passed for report in reports)
    failed = sum(report.failed for report in reports)
    lines += ["", f"{passed} passed, {failed} failed"]
    return "\n".join(lines)
