"""``khala bench connections``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from chaos.load.connections import measure_connections
from chaos.load.connections_setup import ConnectionsSetup
from chaos.load.native_client import ReceiverFailedError
from chaos.load.native_tools import CompilerMissingError
from chaos.load.report_output import give_report, report_option, say_progress
from chaos.load.rig import RigSetup, running_rig
from chaos.load.system_under_test import SystemFailedError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SMOKE_CONNECTIONS", "connections", "measure_connections"]

# A second of it: shows that it runs, not how much anything costs.
SMOKE_CONNECTIONS: Final = ConnectionsSetup(
    connections=10, batches=2, paced_batches=1, runs=2, warm_up=2, settle_s=0.1
)
_DEFAULT: Final = ConnectionsSetup()


@click.command("connections")
@click.option("--connections", "count", default=_DEFAULT.connections, show_default=True, help="Held at once.")
@click.option("--batches", default=_DEFAULT.batches, show_default=True, help="In which they connect.")
@click.option(
    "--paced-batches",
    default=_DEFAULT.paced_batches,
    show_default=True,
    help="More, at the default admission.",
)
@click.option("--runs", default=_DEFAULT.runs, show_default=True, help="Whose events they follow, in turn.")
@click.option(
    "--settle-s", default=_DEFAULT.settle_s, show_default=True, help="Idle time before memory is read."
)
@report_option
def connections(
    count: int, batches: int, paced_batches: int, runs: int, settle_s: float, report_dir: Path | None
) -> None:
    """Memory of an idle connection, and upgrade + hello + subscribe per CPU second; prints JSON.

    Starts a system with NATS on a temporary directory. With the defaults about four minutes, half of them
    for 6,500 real tokens.
    """
    setup = ConnectionsSetup(count, batches, paced_batches, runs, settle_s=settle_s)
    try:
        with running_rig(RigSetup(driver="nats")) as rig:
            report = measure_connections(setup, rig, say_progress)
    except (CompilerMissingError, ReceiverFailedError, SystemFailedError) as exc:
        raise click.ClickException(str(exc)) from exc
    give_report(report, report_dir)
