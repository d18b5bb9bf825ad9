"""``khala bench stadium``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from chaos.load.native_client import ReceiverFailedError
from chaos.load.native_tools import CompilerMissingError
from chaos.load.report_output import give_report, report_option, say_progress
from chaos.load.rig import RigSetup, running_rig
from chaos.load.stadium import measure_stadium
from chaos.load.stadium_setup import StadiumSetup
from chaos.load.system_under_test import SystemFailedError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SMOKE_STADIUM", "stadium"]

# A second of it: shows that it runs, not how fast anything is.
SMOKE_STADIUM: Final = StadiumSetup(
    subscribers=(5,), frames_per_write=(4,), compared_at=5, rounds=1, deliveries=50
)


@click.command("stadium")
@click.option(
    "--subscribers",
    multiple=True,
    default=StadiumSetup().subscribers,
    show_default=True,
    help="May be repeated.",
)
@click.option(
    "--frames-per-write",
    multiple=True,
    default=StadiumSetup().frames_per_write,
    show_default=True,
    help="May be repeated.",
)
@click.option(
    "--compared-at",
    default=500,
    show_default=True,
    help="Where the second adapter and the peers run as well.",
)
@click.option("--payload-bytes", default=200, show_default=True)
@click.option("--rounds", default=9, show_default=True, help="Alternating rounds of all sides.")
@click.option(
    "--deliveries",
    default=StadiumSetup().deliveries,
    show_default=True,
    help="Writes times subscribers, of one measurement.",
)
@report_option
def stadium(
    subscribers: tuple[int, ...],
    frames_per_write: tuple[int, ...],
    compared_at: int,
    payload_bytes: int,
    rounds: int,
    deliveries: int,
    report_dir: Path | None,
) -> None:
    """One topic to many subscribers, beside a C loop of send(2) and a broadcast server; prints JSON.

    Starts a system with NATS on a temporary directory. With the defaults about ten minutes, most of them
    for 5,000 real tokens and the alternating rounds.
    """
    setup = StadiumSetup(subscribers, frames_per_write, compared_at, payload_bytes, rounds, deliveries)
    try:
        with running_rig(RigSetup(driver="nats")) as rig:
            report = measure_stadium(setup, rig, say_progress)
    except (CompilerMissingError, ReceiverFailedError, SystemFailedError) as exc:
        raise click.ClickException(str(exc)) from exc
    give_report(report, report_dir)
