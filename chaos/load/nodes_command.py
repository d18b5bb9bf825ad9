"""``khala bench nodes``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import attrs
import click

from chaos.load.append_client import AppendFailedError
from chaos.load.native_client import ReceiverFailedError
from chaos.load.native_tools import CompilerMissingError
from chaos.load.nodes import RIG_CONFIG, measure_nodes
from chaos.load.nodes_setup import NodesSetup
from chaos.load.report_output import give_report, report_option, say_progress
from chaos.load.rig import RigSetup, running_rig
from chaos.load.system_under_test import SystemFailedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Literal

    from chaos.load.report import Report
    from chaos.load.rig import Rig

__all__ = ["nodes", "smoke_nodes"]

_DRIVERS: Final[tuple[Literal["memory", "postgres", "nats"], ...]] = ("memory", "postgres", "nats")
# A second of it: shows that it runs, not how fast anything is.
_SMOKE: Final = NodesSetup(
    crowd=6, crowd_requests=4, runs=2, run_requests=2, events_per_request=2, rounds=1, slices=2, idle_s=0.1
)


@click.command("nodes")
@click.option(
    "--crowd",
    type=click.IntRange(min=2 * NodesSetup().runs),
    default=NodesSetup().crowd,
    show_default=True,
    help="Connections of each side.",
)
@click.option("--rounds", default=NodesSetup().rounds, show_default=True, help="Alternating.")
@report_option
def nodes(crowd: int, rounds: int, report_dir: Path | None) -> None:
    """One and two node processes over memory, postgres and NATS: CPU for a delivery; prints JSON.

    Starts three systems on temporary directories. With the defaults about four minutes, one of them for
    2,500 real tokens.
    """
    setup = attrs.evolve(NodesSetup(), crowd=crowd, rounds=rounds)
    try:
        with ExitStack() as held:
            rigs = [
                held.enter_context(running_rig(RigSetup(driver, config=RIG_CONFIG))) for driver in _DRIVERS
            ]
            report = measure_nodes(setup, rigs, say_progress)
    except (AppendFailedError, CompilerMissingError, ReceiverFailedError, SystemFailedError) as exc:
        raise click.ClickException(str(exc)) from exc
    give_report(report, report_dir)


def smoke_nodes(rig: Rig, progress: Callable[[str], None]) -> Report:
    """Measure a second of it, on a system with NATS that runs already and one more in one process."""
    with running_rig(RigSetup("memory", config=RIG_CONFIG)) as memory:
        return measure_nodes(_SMOKE, [memory, rig], progress)
