"""``khala bench city`` and ``khala bench added``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import click

from chaos.load.added import AddedSetup, measure_added
from chaos.load.city import measure_city
from chaos.load.city_plan import CityLoad
from chaos.load.native_tools import CompilerMissingError
from chaos.load.report_output import give_report, report_option, say_progress
from chaos.load.rig import RigSetup, running_rig
from chaos.load.system_under_test import SystemFailedError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SMOKE_ADDED", "SMOKE_CITY", "added", "city"]

# A second of each: shows that they run, not how fast anything is.
SMOKE_CITY: Final = CityLoad(
    runs=4, requests_per_s=20.0, delta_runs=1, resumed_per_min=15.0, away_s=0.1, seconds=1.0
)
SMOKE_ADDED: Final = AddedSetup(requests_per_s=(10.0,), runs=2, seconds=0.5)


@click.command("city")
@click.option("--runs", default=CityLoad().runs, show_default=True, help="Live runs, two watchers each.")
@click.option(
    "--requests-per-s", default=CityLoad().requests_per_s, show_default=True, help="Appends of ten events."
)
@click.option("--seconds", default=CityLoad().seconds, show_default=True, help="Length of the measurement.")
@report_option
def city(runs: int, requests_per_s: float, seconds: float, report_dir: Path | None) -> None:
    """A city of agents and watchers: time added after commit, CPU, memory, and nothing lost; prints JSON.

    Starts a system with NATS on a temporary directory. With the defaults about four minutes, most of them
    for 2,000 runs and 4,400 real tokens.
    """
    delta_runs = min(CityLoad().delta_runs, runs // 20)
    load = CityLoad(runs=runs, requests_per_s=requests_per_s, seconds=seconds, delta_runs=delta_runs)
    try:
        with running_rig(RigSetup(driver="nats")) as rig:
            report = measure_city(load, rig, say_progress)
    except (CompilerMissingError, SystemFailedError) as exc:
        raise click.ClickException(str(exc)) from exc
    give_report(report, report_dir)


@click.command("added")
@click.option(
    "--requests-per-s",
    multiple=True,
    default=AddedSetup().requests_per_s,
    show_default=True,
    help="Appends of ten events; may be repeated.",
)
@click.option("--runs", default=AddedSetup().runs, show_default=True, help="Live runs, two watchers each.")
@click.option("--seconds", default=AddedSetup().seconds, show_default=True, help="At each rate.")
@report_option
def added(requests_per_s: tuple[float, ...], runs: int, seconds: float, report_dir: Path | None) -> None:
    """Time added after commit at fixed rates; prints JSON.

    Starts a system with NATS on a temporary directory. With the defaults about two minutes.
    """
    setup = attrs.evolve(AddedSetup(), requests_per_s=requests_per_s, runs=runs, seconds=seconds)
    try:
        with running_rig(RigSetup(driver="nats")) as rig:
            report = measure_added(setup, rig, say_progress)
    except (CompilerMissingError, SystemFailedError) as exc:
        raise click.ClickException(str(exc)) from exc
    give_report(report, report_dir)
