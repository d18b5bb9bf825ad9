"""``khala bench fairness``: what is demanded, and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import click

from chaos.load.append_client import AppendFailedError
from chaos.load.fairness import FairnessSetup, run_contended, run_hot
from chaos.load.native_client import ReceiverFailedError
from chaos.load.native_tools import CompilerMissingError, compile_native
from chaos.load.report import Report, Table, Target, show
from chaos.load.report_output import give_report, report_option, say_progress
from chaos.load.rig import RigSetup, running_rig
from chaos.load.statistics_of_pairs import describe_environment
from chaos.load.system_under_test import SystemFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from chaos.load.fairness import QuietResult
    from chaos.load.rig import Rig

__all__ = ["SMOKE_FAIRNESS", "fairness", "measure_fairness"]

# The figures; the third is that of row KH-17.
QUIET_P99_MAX_MS: Final = 250.0
JAIN_MIN: Final = 0.95
WITHIN_1S_MIN: Final = 0.99
FEED_SHARE_MIN: Final = 0.95
CONFIG: Final[Mapping[str, Mapping[str, object]]] = {"runtime": {"publish_rate_per_s": {"run_events": 0.0}}}
# Within the burst of the default rate.
SMOKE_FAIRNESS: Final = FairnessSetup(
    many=2, quiet=3, quiet_per_s=5.0, hot_per_s=1_000.0, seconds=1.0, equal=3, equal_frames=500
)


def measure_fairness(setup: FairnessSetup, rig: Rig, progress: Callable[[str], None]) -> Report:
    """Run the three parts on a rig and return the report.

    Raises:
        ReceiverFailedError: Somebody got what no client may get, or lacks something.
        SystemFailedError: The system did not do its part.
        CompilerMissingError: There is no C compiler.
        AppendFailedError: The runtime refused events.
    """
    environment = describe_environment()
    program = compile_native("delivery_client", rig.folder)
    parts = [("one hot", 1, setup.hot_per_s), ("many hot", setup.many, setup.many_hot_per_s)]
    found: list[QuietResult] = []
    for name, connections, hot_per_s in parts:
        found.append(run_hot(setup, rig, program, connections=connections, hot_per_s=hot_per_s))
        progress(f"{name}: quiet p99 {found[-1].p99_ms:.1f} ms, hot {found[-1].hot_per_s:,.0f}/s")
    contended = run_contended(setup, rig, program)
    progress(f"contended: Jain {contended.jain:.4f}")
    targets = []
    for (name, _, hot_per_s), quiet in zip(parts, found, strict=True):
        targets += [
            Target.at_most(f"{name}: p99 of quiet frames, ms", QUIET_P99_MAX_MS, quiet.p99_ms),
            Target.at_least(f"{name}: share of quiet frames within 1 s", WITHIN_1S_MIN, quiet.within_1s),
            Target.at_least(f"{name}: Jain's index over the quiet runs", JAIN_MIN, quiet.jain),
            Target.at_least(
                f"{name}: events per second of a hot run; a load that was late proves nothing",
                FEED_SHARE_MIN * hot_per_s,
                quiet.hot_per_s,
            ),
        ]
    targets.append(Target.at_least("contended: Jain's index over equal runs", JAIN_MIN, contended.jain))
    return Report(
        name="fairness",
        title="Fairness among topics",
        command="khala bench fairness",
        environment=environment,
        overrides=rig.overrides,
        targets=targets,
        results=[
            {"setup": attrs.asdict(setup)},
            *(
                {"part": name, **attrs.asdict(quiet)}
                for (name, _, _), quiet in zip(parts, found, strict=True)
            ),
            {"part": "contended", **attrs.asdict(contended)},
        ],
        tables=[_table([name for name, _, _ in parts], found)],
        text=[
            f"One hot: a connection with a run at {setup.hot_per_s:g} events a second and {setup.quiet} quiet runs. "
            f"Many hot: {setup.many} connections, each with a run of its own at {setup.many_hot_per_s:g} a second and "
            f"the same quiet runs. Events of {setup.payload_bytes} bytes, through the runtime's HTTP; quiet ones "
            f"{setup.quiet_per_s:g} a second for each run. Times are from committed_at of the row to the read of a "
            "client in C, which verifies every frame (+1 and payload).",
            f"Contended: one connection replays {setup.equal} runs of {setup.equal_frames} equal frames each and reads "
            f"{setup.read_bytes_per_s:g} bytes a second. Jain's index over the frames of each, from when all "
            f"of them had begun until the first had ended: between {contended.frames_least} and {contended.frames_most} frames.",
        ],
        notes=[
            "Jain's index over the quiet runs counts the frames that came within 250 ms.",
            "Hot runs get their events 40 at a time; a quiet frame may share a commit with them.",
        ],
    )


def _table(names: Sequence[str], found: Sequence[QuietResult]) -> Table:
    rows = [
        [
            name,
            show(quiet.hot_per_s),
            show(quiet.p50_ms),
            show(quiet.p99_ms),
            show(quiet.max_ms),
            show(quiet.hot_p99_ms),
            str(quiet.deliveries),
            f"{quiet.jain:.4f}",
        ]
        for name, quiet in zip(names, found, strict=True)
    ]
    columns = ("", "hot/s", "quiet p50, ms", "p99, ms", "max, ms", "hot p99, ms", "quiet deliveries", "Jain")
    return Table("Quiet runs beside hot ones", columns, rows)


@click.command()
@click.option("--seconds", default=20.0, show_default=True, help="Of each of the first two parts.")
@click.option("--quiet", default=50, show_default=True, help="Quiet runs, one event a second each.")
@click.option("--hot-per-s", default=2_000.0, show_default=True, help="Events per second of the one hot run.")
@report_option
def fairness(seconds: float, quiet: int, hot_per_s: float, report_dir: Path | None) -> None:
    """Quiet runs beside hot ones, and equal runs on one slow connection; prints JSON.

    Starts a system of its own, with the rate of events per run lifted.
    """
    setup = FairnessSetup(seconds=seconds, quiet=quiet, hot_per_s=hot_per_s)
    try:
        with running_rig(RigSetup(config=CONFIG)) as rig:
            report = measure_fairness(setup, rig, say_progress)
    except (SystemFailedError, ReceiverFailedError, CompilerMissingError, AppendFailedError) as exc:
        raise click.ClickException(str(exc)) from exc
    give_report(report, report_dir)
