"""``khala bench replay``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from chaos.load.native_client import ReceiverFailedError
from chaos.load.native_tools import CompilerMissingError
from chaos.load.replay import ReplaySetup, measure_replay
from chaos.load.report_output import give_report, report_option, say_progress
from chaos.load.rig import RigSetup, running_rig
from chaos.load.system_under_test import SystemFailedError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SMOKE_REPLAY", "replay"]

# A second of it: shows that it runs, not how fast anything is.
SMOKE_REPLAY: Final = ReplaySetup(frames=1_000, rounds=1)


@click.command("replay")
@click.option("--frames", default=200_000, show_default=True, help="Frames of one replay.")
@click.option("--payload-bytes", default=200, show_default=True)
@click.option("--rounds", default=9, show_default=True, help="Alternating rounds of all sides.")
@report_option
def replay(frames: int, payload_bytes: int, rounds: int, report_dir: Path | None) -> None:
    """Many frames to one client, from the journal and the window, beside COPY TO STDOUT; prints JSON.

    Starts a system on a temporary directory. With the defaults about a minute.
    """
    try:
        with running_rig(RigSetup()) as rig:
            report = measure_replay(ReplaySetup(frames, payload_bytes, rounds), rig, say_progress)
    except (CompilerMissingError, ReceiverFailedError, SystemFailedError) as exc:
        raise click.ClickException(str(exc)) from exc
    give_report(report, report_dir)
