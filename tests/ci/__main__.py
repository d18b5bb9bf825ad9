"""`python -m tests.ci LANE... | all | --list`: runs the gates and prints ``N passed, N failed`` last.

Exit status 0: everything passed. 1: something failed. 2: no such lane.
"""

import argparse
import os
import sys

from tests.ci.lanes import LANE_NAMES, LANES
from tests.ci.report import format_summary
from tests.ci.runner import Lane, run_lanes
from tests.ci.tree import PACKAGE_PARENTS, ROOT

# Narrows `all` where the whole would contain itself: README's test command, run by the test of README.
NARROW_VARIABLE = "KHALA_CI_LANES"


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run the lanes, print the summary and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.ci", description="The gates of this repository.")
    parser.add_argument("lanes", nargs="*", metavar="LANE", help=f"all, or any of: {', '.join(LANE_NAMES)}")
    parser.add_argument("--list", action="store_true", help="print the lanes, their budgets and their checks")
    parser.add_argument("--only", metavar="CHECK", help="run one check of the lane")
    parser.add_argument("--write", action="store_true", help="docs: write the generated parts")
    options = parser.parse_args(arguments)
    if options.list:
        print(format_list())
        return 0
    unknown = [name for name in options.lanes if name not in {*LANE_NAMES, "all"}]
    if unknown or not options.lanes:
        parser.print_usage(sys.stderr)
        print(f"no such lane: {', '.join(unknown)}" if unknown else "name a lane, or all", file=sys.stderr)
        return 2
    chosen, is_full_build = choose_lanes(options.lanes, os.environ.get(NARROW_VARIABLE, ""))
    if "all" in options.lanes and not is_full_build:
        print(f"{NARROW_VARIABLE} narrows this build to: {', '.join(lane.name for lane in chosen)}")
    # The gates read the tree they stand in, whatever is installed.
    sys.path[:0] = [str(ROOT / parent) for parent in PACKAGE_PARENTS]
    reports = run_lanes(chosen, ROOT, only=options.only, write=options.write, is_full_build=is_full_build)
    print()
    print(format_summary(reports))
    return 1 if any(report.failed for report in reports) else 0


def choose_lanes(names: list[str], narrowed_to: str) -> tuple[list[Lane], bool]:
    """Return the lanes to run, in the order of the table, and whether they are all that `all` means."""
    if "all" not in names:
        return [lane for lane in LANES if lane.name in names], False
    every = [lane for lane in LANES if lane.is_in_all or lane.name in names]
    kept = narrowed_to.split()
    return ([lane for lane in every if lane.name in kept], False) if kept else (every, True)


def format_list() -> str:
    """Return one line per lane and one per check or test folder in it."""
    lines = []
    for lane in LANES:
        note = "" if lane.is_in_all else " (not in all)"
        lines.append(f"{lane.name:<12} {lane.budget_s:>4.0f} s  {lane.text}{note}")
        lines += [f"{'':<12}   --only {check.name}" for check in lane.checks]
        lines += [f"{'':<12}   pytest {target}" for target in lane.targets]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
