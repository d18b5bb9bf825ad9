"""``khala load slow-consumer``: what is demanded, and the report."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import attrs
import click

from chaos.load.append_client import AppendFailedError
from chaos.load.held_clients import HeldSetup, measure_held
from chaos.load.native_client import ReceiverFailedError
from chaos.load.native_tools import CompilerMissingError
from chaos.load.report import Report, Table, Target, show, show_spread
from chaos.load.report_output import give_report, report_option, say_progress
from chaos.load.rig import RigSetup, running_rig
from chaos.load.slow_consumer import ArmResult, SlowConsumerSetup, measure_arms
from chaos.load.statistics_of_pairs import Spread, describe_environment
from chaos.load.svg_plots import Bars
from chaos.load.system_under_test import SystemFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from chaos.load.held_clients import HeldResult
    from chaos.load.rig import Rig

__all__ = ["SMOKE_SLOW_CONSUMER", "measure_slow_consumer", "slow_consumer_command"]

# Nobody is acted on in so little time.
SMOKE_SLOW_CONSUMER: Final = SlowConsumerSetup(clients=6, stalled=2, seconds=0.6, pairs=1)

# The figures.
P99_RATIO_MAX: Final = 1.2
P99_ADDED_MAX_MS: Final = 5.0
GROWTH_MAX_MIB: Final = 20.0
ACTED_WITHIN_S: Final = 15.0
FEED_SHARE_MIN: Final = 0.95
MIB: Final = 1024 * 1024
# The second part writes 1,000 frames a second to one run.
CONFIG: Final[Mapping[str, Mapping[str, object]]] = {"runtime": {"publish_rate_per_s": {"run_events": 0.0}}}


def measure_slow_consumer(
    setup: SlowConsumerSetup, rig: Rig, progress: Callable[[str], None], *, held: HeldSetup | None = None
) -> Report:
    """Run both forms on a rig, and the part in which nobody acts if it is given; return the report.

    Raises:
        ReceiverFailedError: Somebody got what no client may get, or lacks something.
        SystemFailedError: The system did not do its part.
        CompilerMissingError: There is no C compiler.
        AppendFailedError: The runtime refused events.
    """
    environment = describe_environment()
    reading, stalled = measure_arms(setup, rig, progress)
    report = _report_arms(setup, rig, environment, reading, stalled)
    if held is None:
        return report
    kept = measure_held(held, rig, progress)
    return attrs.evolve(
        report,
        overrides={**report.overrides, f"extra node {held.node_name}": held.node_config},
        targets=[
            *report.targets,
            Target.at_most(
                f"growth of the node's memory with {held.clients} held, MiB: their bytes and 20 %",
                held.growth_max_bytes / MIB,
                kept.growth_bytes / MIB,
            ),
            Target.at_most(
                "bytes that wait for one connection, KiB, the most",
                held.outbound_max_bytes / 1024,
                kept.outbound_max_bytes / 1024,
            ),
        ],
        results=[*report.results, {"held": attrs.asdict(kept), "setup": attrs.asdict(held)}],
        tables=[*report.tables, _held_table(held, kept)],
        text=[
            *report.text,
            f"Then {held.clients} clients that take nothing of a run with {held.frames_per_s:g} events a second, on a "
            "node that does not act on them: what it holds for them while they stay.",
        ],
    )


def _report_arms(
    setup: SlowConsumerSetup,
    rig: Rig,
    environment: Mapping[str, object],
    reading: Sequence[ArmResult],
    stalled: Sequence[ArmResult],
) -> Report:
    p99_reading, p99_stalled = (Spread.of([arm.p99_ms for arm in arms]) for arms in (reading, stalled))
    growth = max(arm.node_growth_bytes for arm in stalled) / MIB
    # Who was not acted on at all was not acted on in time.
    acted = max(arm.acted_after_s if arm.acted_after_s is not None else setup.seconds * 2 for arm in stalled)
    readers = setup.clients - setup.stalled
    return Report(
        name="slow-consumer",
        title="Slow consumers",
        command="khala load slow-consumer",
        environment=environment,
        overrides=rig.overrides,
        targets=[
            Target.at_most(
                f"p99 of the {readers} beside {setup.stalled} that take nothing, ms, median of {setup.pairs} runs",
                P99_RATIO_MAX * p99_reading.median + P99_ADDED_MAX_MS,
                p99_stalled.median,
            ),
            Target.at_most("growth of the node's memory meanwhile, MiB, the largest", GROWTH_MAX_MIB, growth),
            Target.at_most(f"until all {setup.stalled} were acted on, s, the longest", ACTED_WITHIN_S, acted),
            Target.at_least(
                "clients that had stopped, came back with their cursor and have everything",
                setup.stalled * setup.pairs,
                sum(arm.completed for arm in stalled),
            ),
            Target.at_most(
                "frames that the client at half the rate lacks",
                0,
                sum(arm.half_rate_missing for arm in [*reading, *stalled]),
            ),
            Target.at_least(
                "frames per second that the run got, the least: a load that was late proves nothing",
                FEED_SHARE_MIN * setup.frames_per_s,
                min(arm.frames_per_s for arm in [*reading, *stalled]),
            ),
        ],
        results=[
            {"setup": attrs.asdict(setup)},
            {"reading": [attrs.asdict(arm) for arm in reading], "p99_ms": p99_reading.as_json()},
            {"stalled": [attrs.asdict(arm) for arm in stalled], "p99_ms": p99_stalled.as_json()},
        ],
        tables=[_arms_table(reading, stalled)],
        plots=[
            Bars(
                "p99 after the commit of those who read",
                "ms",
                [("everybody reads", [("p99", p99_reading)]), ("ten take nothing", [("p99", p99_stalled)])],
            )
        ],
        text=[
            f"{setup.clients} clients of one run that gets {setup.frames_per_s:g} events a second of "
            f"{setup.payload_bytes} bytes through the runtime's HTTP, each client with a token of its own; the last "
            f"{setup.stalled} have SO_RCVBUF {setup.receive_buffer_bytes} and stop reading. One more reads at half "
            "the rate. Every frame is verified (+1 and payload) by a client in C; times are from committed_at of "
            "the row to the read.",
        ],
        notes=["Clients, runtime, database, broker and node share the machine."],
        not_measured=["A client that is slow because of its network: the loopback has no loss and no delay."],
    )


def _arms_table(reading: Sequence[ArmResult], stalled: Sequence[ArmResult]) -> Table:
    rows = []
    for name, arms in (("everybody reads", reading), ("ten take nothing", stalled)):
        acted = [arm.acted_after_s for arm in arms if arm.acted_after_s is not None]
        rows.append(
            [
                name,
                show_spread(Spread.of([arm.p50_ms for arm in arms])),
                show_spread(Spread.of([arm.p99_ms for arm in arms])),
                show_spread(Spread.of([arm.node_growth_bytes / MIB for arm in arms])),
                show_spread(Spread.of(acted)) if acted else "-",
                show(min(arm.frames_per_s for arm in arms)),
            ]
        )
    columns = ("", "p50, ms", "p99, ms", "node grew by, MiB", "acted on after, s", "frames/s, the least")
    return Table("Those who read", columns, rows)


def _held_table(held: HeldSetup, kept: HeldResult) -> Table:
    row = [str(held.clients), show(kept.seconds), str(kept.frames), show(kept.growth_bytes / MIB)]
    columns = (
        "held clients",
        "seconds",
        "frames that they do not take",
        "node grew by, MiB",
        "on one connection, KiB",
    )
    return Table("Nobody acts", columns, [[*row, show(kept.outbound_max_bytes / 1024)]])


@click.command("slow-consumer")
@click.option("--pairs", default=5, show_default=True, help="Runs of each form, in turn.")
@click.option("--seconds", default=16.0, show_default=True, help="Of each run, from the stop on.")
@click.option("--held-seconds", default=30.0, show_default=True, help="Of the part in which nobody acts.")
@report_option
def slow_consumer_command(pairs: int, seconds: float, held_seconds: float, report_dir: Path | None) -> None:
    """Ten of a hundred clients stop reading: the others, the node, and what becomes of the ten; prints JSON."""
    setup, held = SlowConsumerSetup(pairs=pairs, seconds=seconds), HeldSetup(seconds=held_seconds)
    try:
        with running_rig(RigSetup(config=CONFIG)) as rig:
            report = measure_slow_consumer(setup, rig, say_progress, held=held)
    except (SystemFailedError, ReceiverFailedError, CompilerMissingError, AppendFailedError) as exc:
        raise click.ClickException(str(exc)) from exc
    give_report(report, report_dir)
    if not all(target.is_met for target in report.targets):
        sys.exit(1)
