"""``khala load hopping``: what is demanded, and the report."""

from __future__ import annotations

import sys
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click

from chaos.load.hopping import CONFIG, HoppingSetup, run_hopping
from chaos.load.hopping_proof import write_proof
from chaos.load.report import Report, Table, Target, show
from chaos.load.report_output import give_report, report_option, say_progress
from chaos.load.rig import RigSetup, running_rig
from chaos.load.statistics_of_pairs import describe_environment
from chaos.load.system_under_test import SystemFailedError
from khala_client.errors import KhalaError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.load.hopping import HoppingResult
    from chaos.load.rig import Rig

__all__ = ["QUICK_HOPPING", "hopping_command", "report_hopping"]

NODES: Final = 3
QUICK_HOPPING: Final = HoppingSetup(clients=60, seconds=30.0)
# A client stays for 1.5 of the mean at the longest, and connects; a machine may be slow for a while.
MOVES_SHARE_MIN: Final = 0.5
_SHOWN_MAX: Final = 20


def report_hopping(
    setup: HoppingSetup, result: HoppingResult, rig: Rig, environment: Mapping[str, object]
) -> Report:
    """Return the report of one run."""
    # One less: a client begins some time after the others, and its last stay is cut.
    moves_min = max(1, floor(MOVES_SHARE_MIN * setup.seconds / setup.stay_s) - 1)
    nodes_min = min(len(rig.nodes), moves_min + 1)
    return Report(
        name="hopping",
        title="Clients that move between nodes",
        command="khala load hopping",
        environment=environment,
        overrides=rig.overrides,
        targets=[
            Target.at_most("violations found by the checker", 0, len(result.violations)),
            Target.at_least("moves of the client with the fewest", moves_min, result.moves_min),
            Target.at_least(
                "nodes that the client with the fewest has seen", nodes_min, result.nodes_seen_min
            ),
            Target.at_least("records held back on the node with the fewest", 1, min(result.delayed.values())),
        ],
        results=[
            {
                "setup": attrs.asdict(setup),
                **attrs.asdict(result, filter=lambda field, _value: field.name != "violations"),
                "violations": [str(violation) for violation in result.violations[:_SHOWN_MAX]],
            }
        ],
        tables=[
            Table(
                "Nodes",
                ("node", "welcomes", "records held back"),
                [
                    [name, show(count), show(result.delayed.get(name, 0))]
                    for name, count in sorted(result.welcomes.items())
                ],
            )
        ],
        text=[
            f"{setup.clients} clients on {len(rig.nodes)} nodes for {setup.seconds:g} s, each at a node for "
            f"{setup.stay_s:g} s on average, without any affinity; {setup.topics} runs with {setup.events_per_s:g} "
            f"events a second together, each client follows {setup.topics_each} of them from the beginning. NATS brings "
            "nine of ten records up to 500 ms late, to each node at another time.",
            f"Every one of {result.applied} applied events was compared with PostgreSQL's journal, in the order of "
            f"applying: {len(result.violations)} violations over {result.moves} moves.",
        ],
        notes=[
            "The clients are the Python client's connection, apply rule and memory store, in one process."
        ],
        not_measured=[
            "Throughput and latency: `khala bench nodes`.",
            "Lost records: `khala drill run broker-loss`.",
        ],
    )


@click.command("hopping")
@click.option("--clients", type=click.IntRange(1, 5_000), default=None, help="How many.  [default: 300]")
@click.option("--seconds", type=click.FloatRange(1), default=None, help="Of writing.  [default: 600]")
@click.option("--quick", is_flag=True, help=f"{QUICK_HOPPING.clients} clients, {QUICK_HOPPING.seconds:g} s.")
@click.option(
    "--proof",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Write what is where and who holds what here, as JSON lines: topic, seq, hash.",
)
@report_option
def hopping_command(
    clients: int | None, seconds: float | None, proof: Path | None, report_dir: Path | None, *, quick: bool
) -> None:
    """Clients move between three nodes every few seconds, NATS lags: is each one's history whole? Prints JSON."""
    setup = QUICK_HOPPING if quick else HoppingSetup()
    setup = attrs.evolve(setup, clients=clients or setup.clients, seconds=seconds or setup.seconds)
    environment = describe_environment()
    try:
        with running_rig(RigSetup(nodes=NODES, config=CONFIG)) as rig:
            result, journal, histories = run_hopping(setup, rig, say_progress)
            report = report_hopping(setup, result, rig, environment)
    except (SystemFailedError, KhalaError) as exc:
        raise click.ClickException(str(exc)) from exc
    if proof is not None:
        write_proof(proof, journal, histories)
        say_progress(f"wrote {proof}")
    give_report(report, report_dir)
    if not all(target.is_met for target in report.targets):
        sys.exit(1)
