"""``khala load cycles``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from chaos.load.cycles import measure_cycles
from chaos.load.cycles_setup import CyclesSetup
from chaos.load.report_output import give_report, report_option, say_progress
from chaos.load.rig import RigSetup, running_rig
from chaos.load.system_under_test import SystemFailedError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SMOKE_CYCLES", "cycles_command", "measure_cycles"]

# Two turns of every kind after one: shows that it runs, and that nothing is held.
SMOKE_CYCLES: Final = CyclesSetup(cycles=40, warm_up=20, at_once=8, runs=4)
_DEFAULT: Final = CyclesSetup()


@click.command("cycles")
@click.option("--cycles", default=_DEFAULT.cycles, show_default=True, help="Connections that come and go.")
@click.option("--warm-up", default=_DEFAULT.warm_up, show_default=True, help="Before the baseline is taken.")
@click.option("--at-once", default=_DEFAULT.at_once, show_default=True, help="Connections at a time.")
@click.option("--runs", default=_DEFAULT.runs, show_default=True, help="Whose events they follow, in turn.")
@report_option
def cycles_command(cycles: int, warm_up: int, at_once: int, runs: int, report_dir: Path | None) -> None:
    """Connect, subscribe and leave in every manner; the node must hold what it held before. Prints JSON.

    Starts a system with NATS on a temporary directory. With the defaults about ten minutes: each cycle has
    a real token, and control mints about a hundred a second.
    """
    try:
        with running_rig(RigSetup(driver="nats")) as rig:
            report = measure_cycles(CyclesSetup(cycles, warm_up, at_once, runs), rig, say_progress)
    except SystemFailedError as exc:
        raise click.ClickException(str(exc)) from exc
    give_report(report, report_dir)
    sys.exit(0 if report.as_json()["is_met"] else 1)
