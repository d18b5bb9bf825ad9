"""``khala bench resume``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from chaos.load.native_client import ReceiverFailedError
from chaos.load.native_tools import CompilerMissingError
from chaos.load.report_output import give_report, report_option, say_progress
from chaos.load.resume import ResumeSetup, measure_resume
from chaos.load.rig import RigSetup, running_rig
from chaos.load.system_under_test import SystemFailedError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SMOKE_RESUME", "resume"]

# A second of it: shows that it runs, not how fast anything is.
SMOKE_RESUME: Final = ResumeSetup(subscribers=10, payload_bytes=(200,), rounds=1)


@click.command("resume")
@click.option("--subscribers", default=1_000, show_default=True, help="Clients that resume at once.")
@click.option(
    "--payload-bytes",
    multiple=True,
    default=ResumeSetup().payload_bytes,
    show_default=True,
    help="May be repeated.",
)
@click.option("--rounds", default=9, show_default=True, help="Alternating rounds of node and loop.")
@report_option
def resume(subscribers: int, payload_bytes: tuple[int, ...], rounds: int, report_dir: Path | None) -> None:
    """Everybody resumes at once from the window's base, beside a C loop of send(2); prints JSON.

    Starts a system on a temporary directory. With the defaults about three minutes, half of them for real tokens.
    """
    setup = ResumeSetup(subscribers=subscribers, payload_bytes=payload_bytes, rounds=rounds)
    try:
        with running_rig(RigSetup()) as rig:
            report = measure_resume(setup, rig, say_progress)
    except (CompilerMissingError, ReceiverFailedError, SystemFailedError) as exc:
        raise click.ClickException(str(exc)) from exc
    give_report(report, report_dir)
