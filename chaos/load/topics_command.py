"""``khala load topics``: what is demanded, and the report."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import attrs
import click

from chaos.load.many_topics import NODE_CONFIG, ManyTopicsSetup, measure_topics
from chaos.load.native_client import ReceiverFailedError
from chaos.load.native_tools import CompilerMissingError
from chaos.load.report import Report, Table, Target, show
from chaos.load.report_output import give_report, report_option, say_progress
from chaos.load.rig import RigSetup, running_rig
from chaos.load.statistics_of_pairs import describe_environment
from chaos.load.system_under_test import SystemFailedError
from khala.core.limits import NodeLimits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chaos.load.many_topics import ManyTopicsResult
    from chaos.load.rig import Rig

__all__ = ["topics_command"]

MIB: Final = 1024 * 1024
# SPEC section 6: what a node may have handed over and not sent.
IN_FLIGHT_MAX_BYTES: Final = 64 * MIB


def budgets_bytes() -> int:
    """Return what the budgets of one node allow together: windows, ranges, pages, in flight."""
    limits = NodeLimits()
    return (
        limits.windows_max_bytes
        + limits.shared_ranges_max_bytes
        + limits.pages_max_bytes
        + IN_FLIGHT_MAX_BYTES
    )


def _report(setup: ManyTopicsSetup, rig: Rig, progress: Callable[[str], None]) -> Report:
    environment = describe_environment()
    found = measure_topics(setup, rig, progress)
    grown = found.memory_max - found.memory_followed
    return Report(
        name="topics",
        title="Very many topics on one node",
        command="khala load topics",
        environment=environment,
        overrides=rig.overrides,
        targets=[
            Target.at_least("topics that were followed", setup.topics, found.topics_live),
            Target.at_most(
                "memory that the node counts for its windows, MiB, the most",
                NodeLimits().windows_max_bytes / MIB,
                found.windows_max / MIB,
            ),
            Target.at_most(
                "growth of the node's memory by the frames, MiB: the budgets of windows, ranges, pages and in flight",
                budgets_bytes() / MIB,
                grown / MIB,
            ),
        ],
        results=[{"setup": attrs.asdict(setup), **attrs.asdict(found)}],
        tables=[_table(setup, found)],
        text=[
            f"{setup.topics:,} topics, followed by connections with {setup.topics_per_connection} of them each; every "
            f"topic gets {setup.frames:,} frames of {setup.payload_bytes} bytes in {setup.rounds} rounds, each one record "
            "of every topic before the next round. A client in C verifies all of them (+1 and payload).",
            "Records are sealed as the runtime does it and published to the broker, at most "
            f"{setup.in_flight} more than clients have taken. Of the database only the heads are written, which the "
            "position check compares with; nobody reads the journal.",
        ],
        notes=[
            "What a topic costs without any frame (its task, its subscription, what explains its deliveries, its "
            "subscription at the broker) is the difference of the first two columns of memory, divided by the topics.",
        ],
        not_measured=["Appending 20 million events; `khala bench append` measures that path."],
    )


def _table(setup: ManyTopicsSetup, found: ManyTopicsResult) -> Table:
    empty_kib = (found.memory_followed - found.memory_before) / setup.topics / 1024
    memory = [show(held / MIB) for held in (found.memory_before, found.memory_followed, found.memory_max)]
    row = [f"{setup.topics:,}", f"{found.frames:,}", *memory, show(empty_kib), show(found.node_cpu_s)]
    columns = (
        "topics", "frames", "memory before, MiB", "all followed", "the most", "a topic without frames, KiB", "node's CPU, s",
    )  # fmt: skip
    return Table("The node", columns, [row])


@click.command("topics")
@click.option("--topics", default=20_000, show_default=True, help="Followed at once.")
@click.option("--frames", default=1_024, show_default=True, help="That each of them gets.")
@click.option(
    "--rounds", default=4, show_default=True, help="In so many records, one of each topic at a time."
)
@report_option
def topics_command(topics: int, frames: int, rounds: int, report_dir: Path | None) -> None:
    """20,000 topics of 1,024 frames on one node, within its memory budgets; prints JSON."""
    setup = ManyTopicsSetup(topics=topics, frames=frames, rounds=rounds)
    try:
        with running_rig(RigSetup(config={"node": NODE_CONFIG})) as rig:
            report = _report(setup, rig, say_progress)
    except (SystemFailedError, ReceiverFailedError, CompilerMissingError) as exc:
        raise click.ClickException(str(exc)) from exc
    give_report(report, report_dir)
    if not all(target.is_met for target in report.targets):
        sys.exit(1)
