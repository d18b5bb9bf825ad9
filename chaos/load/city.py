"""``khala bench city``: a city of agents and those who watch them, on the system as shipped.

2,000 live runs, each followed by two connections; 4,000 events a second come as 400 requests of ten, with sizes
and pauses of recorded runs; 100 of the runs stream tokens; a tenth of the watchers leaves and resumes each minute.
What the workload is: ``city_plan.py``. How it is run and judged: ``city_traffic.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from chaos.load.city_plan import CityLoad, make_plan
from chaos.load.city_traffic import run_traffic
from chaos.load.report import Report, Table, Target, show
from chaos.load.statistics_of_pairs import describe_environment
from chaos.load.svg_plots import Lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.load.city_traffic import Traffic
    from chaos.load.rig import Rig

__all__ = ["measure_city"]

ADDED_P50_S: Final = 0.003
ADDED_P99_S: Final = 0.015
CORES: Final = 1.4
NODE_MB: Final = 350.0
_MB: Final = 1e6


def measure_city(load: CityLoad, rig: Rig, progress: Callable[[str], None]) -> Report:
    """Run a city on a rig with NATS and return the report.

    Raises:
        SystemFailedError: As ``run_traffic``; no figure is given then.
        CompilerMissingError: No C compiler here.
    """
    environment = describe_environment()
    traffic = run_traffic(load, make_plan(load), rig, progress)
    node = rig.nodes[0].name
    both = traffic.cores["runtime"] + traffic.cores[node]
    peak_mb = max(traffic.node_bytes) / _MB
    added = traffic.added
    progress(
        f"added after commit p50 {added.p50_s * 1e3:.2f} ms, p99 {added.p99_s * 1e3:.2f} ms; "
        f"node and runtime {both:.2f} cores, node {peak_mb:.0f} MB, lost {traffic.lost}"
    )
    return Report(
        name="city",
        title="Agent city",
        command=f"khala bench city --runs {load.runs} --requests-per-s {load.requests_per_s:g} "
        f"--seconds {load.seconds:g}",
        environment=environment,
        overrides=rig.overrides,
        targets=[
            Target.at_most("time added after commit, p50, seconds", ADDED_P50_S, added.p50_s),
            Target.at_most("time added after commit, p99, seconds", ADDED_P99_S, added.p99_s),
            Target.at_most("cores of node and runtime together", CORES, both),
            Target.at_most("memory of the node at its highest, MB", NODE_MB, peak_mb),
            Target.at_most(
                "watchers that differ from the journal, and events that it lacks", 0, traffic.lost
            ),
        ],
        results=[{"load": attrs.asdict(load), "traffic": attrs.asdict(traffic)}],
        tables=[_times(traffic), _processes(traffic)],
        plots=[_memory_plot(traffic)],
        text=(
            f"{load.runs} live runs, {load.watchers} watchers with a connection, a token and a user each, "
            f"{load.requests_per_s:g} appends a second of {load.events_per_request} events, sizes and pauses drawn "
            f"from recorded runs, {load.delta_runs} runs that stream tokens; {traffic.resumes} times a watcher "
            f"left without a word and resumed behind its cursor {load.away_s:g} s later.",
            "Time added after commit: from the return of the commit to the runtime, as the record at the broker says, "
            "to the read of the frame by a watcher that follows live, for each frame and watcher. The checker "
            "compares what each watcher received, byte for byte from the first frame on, with the journal.",
        ),
        notes=(
            "All processes, the database and the load share the machine.",
            "Lateness is how much later than planned an append was sent: one request in flight per run, 32 in all.",
        ),
        not_measured=(
            "Minting: the tokens of the resumes are made before the clock runs.",
            "Chains of the cursors: a resume here gives seq and lineage.",
        ),
    )


def _times(traffic: Traffic) -> Table:
    added = traffic.added
    rows = (
        ("added after commit, p50", added.p50_s),
        ("added after commit, p90", added.p90_s),
        ("added after commit, p99", added.p99_s),
        ("added after commit, longest", added.max_s),
        ("append, sent to answered, p50", traffic.append_p50_s),
        ("append, sent to answered, p99", traffic.append_p99_s),
        ("append, lateness, p99", traffic.late_p99_s),
    )
    return Table("Times", ("what", "milliseconds"), [(name, show(value * 1e3)) for name, value in rows])


def _processes(traffic: Traffic) -> Table:
    rows = [*traffic.cores.items(), ("load (feed and watchers)", traffic.client_cores)]
    return Table("CPU", ("process", "cores"), [(name, show(value)) for name, value in rows])


def _memory_plot(traffic: Traffic) -> Lines:
    count = len(traffic.node_bytes)
    points = [(float(2 * index), traffic.node_bytes[index] / _MB) for index in range(count)]
    return Lines("Memory of the node", "seconds", "MB", [("node", points)], target=NODE_MB)
