"""``khala bench``: registered in the entry-point group ``khala.commands``.

Benchmarks of a node have a command module each (``stadium_command.py``) and give a ``Report``; of those,
``--smoke`` runs a second each on one system. The others print a document of their own.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from chaos.load.added import measure_added
from chaos.load.append import AppendSetup, measure_append
from chaos.load.append_client import AppendFailedError
from chaos.load.city import measure_city
from chaos.load.city_command import SMOKE_ADDED, SMOKE_CITY, added, city
from chaos.load.connections_command import SMOKE_CONNECTIONS, connections, measure_connections
from chaos.load.cycles_command import SMOKE_CYCLES, measure_cycles
from chaos.load.fairness_command import SMOKE_FAIRNESS, fairness, measure_fairness
from chaos.load.native_client import ReceiverFailedError
from chaos.load.native_tools import CompilerMissingError
from chaos.load.nodes_command import nodes, smoke_nodes
from chaos.load.origin import OUR_ROUTER, LostFramesError, OriginSetup, RouterFailedError, measure_origin
from chaos.load.origin_http import WrongAnswerError
from chaos.load.replay import measure_replay
from chaos.load.replay_command import SMOKE_REPLAY, replay
from chaos.load.resume import measure_resume
from chaos.load.resume_command import SMOKE_RESUME, resume
from chaos.load.revoke import RevokeSetup, measure_revoke
from chaos.load.rig import RigSetup, running_rig
from chaos.load.slow_consumer_command import SMOKE_SLOW_CONSUMER, measure_slow_consumer
from chaos.load.stadium import measure_stadium
from chaos.load.stadium_command import SMOKE_STADIUM, stadium
from chaos.load.system_under_test import SystemFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.load.report import Report
    from chaos.load.rig import Rig

# A second of each benchmark: shows that they run, not how fast anything is.
SMOKE_APPEND = AppendSetup(runs=2, connections=4, seconds=1)
SMOKE_ORIGIN = OriginSetup(connections=2, seconds=0.3, subscribers=10, writes=100, paced_writes=10)
SMOKE_REVOKE = RevokeSetup(sockets=12, revoked=3, people=2, rounds=1, poll_interval_s=1.0)
# Those that measure a node, one after the other on one system.
SMOKES_ON_RIG: Final[Sequence[Callable[[Rig, Callable[[str], None]], Report]]] = (
    partial(measure_added, SMOKE_ADDED),
    partial(measure_city, SMOKE_CITY),
    partial(measure_connections, SMOKE_CONNECTIONS),
    partial(measure_cycles, SMOKE_CYCLES),
    partial(measure_fairness, SMOKE_FAIRNESS),
    smoke_nodes,
    partial(measure_replay, SMOKE_REPLAY),
    partial(measure_resume, SMOKE_RESUME),
    partial(measure_slow_consumer, SMOKE_SLOW_CONSUMER),
    partial(measure_stadium, SMOKE_STADIUM),
)


@click.group(invoke_without_command=True)
@click.option("--smoke", is_flag=True, help="Run each benchmark for about a second; its figures mean little.")
@click.pass_context
def bench(context: click.Context, *, smoke: bool) -> None:
    """Measure this machine; where a reference exists, every figure is a ratio to it in the same run."""
    if context.invoked_subcommand is not None:
        return
    if not smoke:
        click.echo(context.get_help())
        return
    results = [
        _append(SMOKE_APPEND, pairs=1),
        _revoke(SMOKE_REVOKE),
        _origin(SMOKE_ORIGIN, pairs=1),
        *_smoke_on_rig(),
    ]
    _print({"benchmark": "smoke", "results": results})


bench.add_command(added)
bench.add_command(city)
bench.add_command(connections)
bench.add_command(fairness)
bench.add_command(nodes)
bench.add_command(replay)
bench.add_command(resume)
bench.add_command(stadium)


@bench.command()
@click.option("--batch-events", default=200, show_default=True, help="Events of one request.")
@click.option("--payload-bytes", default=200, show_default=True)
@click.option("--runs", default=4, show_default=True, help="Runs that are appended to.")
@click.option(
    "--connections", default=8, show_default=True, help="HTTP connections, one request in flight each."
)
@click.option("--seconds", default=3, show_default=True, help="Length of a measurement.")
@click.option("--pairs", default=9, show_default=True, help="Alternating pairs.")
def append(
    batch_events: int, payload_bytes: int, runs: int, connections: int, seconds: int, pairs: int
) -> None:
    """Durable appends through the API beside pgbench calling append_v1; prints JSON.

    Starts a system of its own on a temporary directory, with fsync on and the rate of events per run
    lifted.
    """
    setup = AppendSetup(batch_events, payload_bytes, runs, connections, seconds)
    _print(_append(setup, pairs=pairs))


@bench.command()
@click.option("--sockets", default=500, show_default=True, help="Streaming sockets, each of its own session.")
@click.option("--revoked", default=50, show_default=True, help="Sessions revoked at once in a round.")
@click.option("--people", default=1, show_default=True, help="Whose they are: one request and commit each.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--events-per-s", default=10.0, show_default=True, help="Appended to what all of them follow.")
@click.option("--driver", type=click.Choice(["postgres", "nats"]), default="postgres", show_default=True)
def revoke(sockets: int, revoked: int, people: int, rounds: int, events_per_s: float, driver: str) -> None:
    """From a revocation to the end of its socket, pushed and with every push lost; prints JSON.

    Starts a system with two nodes on a temporary directory for each of the two forms, and verifies that
    the revoked are closed and stay out, and that nobody else misses a frame.
    """
    _print(_revoke(RevokeSetup(sockets, revoked, people, rounds, events_per_s, driver)))


@bench.command()
@click.option("--connections", default=8, show_default=True, help="HTTP connections, one request in flight.")
@click.option("--body-bytes", default=1_000, show_default=True, help="Of a request and of its answer.")
@click.option("--seconds", default=3.0, show_default=True, help="Length of a measurement of requests.")
@click.option("--subscribers", default=100, show_default=True, help="WebSocket connections.")
@click.option("--writes", default=2_000, show_default=True, help="Frames that each of them gets.")
@click.option("--pairs", default=9, show_default=True, help="Alternating pairs.")
@click.option(
    "--router",
    default=OUR_ROUTER,
    show_default=True,
    help="Or a command that starts another one; {port}, {http} and {node} are put in.",
)
def origin(
    connections: int,
    body_bytes: int,
    seconds: float,
    subscribers: int,
    writes: int,
    pairs: int,
    router: str,
) -> None:
    """Requests and live frames through the one origin beside the same without it; prints JSON."""
    setup = OriginSetup(
        connections=connections,
        body_bytes=body_bytes,
        seconds=seconds,
        subscribers=subscribers,
        writes=writes,
        router=router,
    )
    _print(_origin(setup, pairs=pairs))


def _smoke_on_rig() -> list[dict[str, object]]:
    try:
        with running_rig(RigSetup(driver="nats")) as rig:
            return [measure(rig, _progress).as_json() for measure in SMOKES_ON_RIG]
    except CompilerMissingError as exc:
        return [{"benchmark": "node", "skipped": str(exc)}]
    except (SystemFailedError, ReceiverFailedError) as exc:
        raise click.ClickException(str(exc)) from exc


def _append(setup: AppendSetup, *, pairs: int) -> dict[str, object]:
    try:
        return measure_append(setup, pairs=pairs, report=_progress)
    except (SystemFailedError, AppendFailedError) as exc:
        raise click.ClickException(str(exc)) from exc


def _revoke(setup: RevokeSetup) -> dict[str, object]:
    try:
        return measure_revoke(setup, report=_progress)
    except SystemFailedError as exc:
        raise click.ClickException(str(exc)) from exc


def _origin(setup: OriginSetup, *, pairs: int) -> dict[str, object]:
    try:
        return measure_origin(setup, pairs=pairs, report=_progress)
    except CompilerMissingError as exc:
        return {"benchmark": "origin", "skipped": str(exc)}
    except (RouterFailedError, WrongAnswerError, LostFramesError) as exc:
        raise click.ClickException(str(exc)) from exc


def _print(result: dict[str, object]) -> None:
    click.echo(json.dumps(result, indent=2))


def _progress(line: str) -> None:
    click.echo(line, err=True)
