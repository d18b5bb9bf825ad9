"""``khala bench added``: the time added after commit at fixed rates of appends, on the system as shipped.

The traffic of the city (``city_traffic.py``) with fewer runs and nobody who resumes; one rate after the other
on one system, each on runs of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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

__all__ = ["AddedSetup", "measure_added"]


@attrs.frozen
class AddedSetup:
    """What is measured.

    Attributes:
        requests_per_s: The rates, each a measurement.
        runs: Live runs, two watchers each.
        seconds: At each rate.
    """

    requests_per_s: tuple[float, ...] = (10.0, 50.0, 100.0, 200.0, 400.0)
    runs: int = 100
    seconds: float = 10.0


def measure_added(setup: AddedSetup, rig: Rig, progress: Callable[[str], None]) -> Report:
    """Measure each rate on a rig with NATS and return the report.

    Raises:
        SystemFailedError: As ``run_traffic``; no figure is given then.
        CompilerMissingError: No C compiler here.
    """
    environment = describe_environment()
    found: list[tuple[float, Traffic]] = []
    for rate in setup.requests_per_s:
        load = CityLoad(
            runs=setup.runs, requests_per_s=rate, delta_runs=0, resumed_per_min=0.0, seconds=setup.seconds
        )
        traffic = run_traffic(load, make_plan(load), rig, progress)
        found.append((rate, traffic))
        added = traffic.added
        progress(f"{rate:g} appends/s: p50 {added.p50_s * 1e3:.2f} ms, p99 {added.p99_s * 1e3:.2f} ms")
    rates = " ".join(f"--requests-per-s {rate:g}" for rate in setup.requests_per_s)
    return Report(
        name="added",
        title="Time added after commit",
        command=f"khala bench added {rates} --runs {setup.runs} --seconds {setup.seconds:g}",
        environment=environment,
        overrides=rig.overrides,
        targets=[
            Target.at_most(
                "watchers that differ from the journal, and events that it lacks",
                0,
                sum(traffic.lost for _, traffic in found),
            )
        ],
        results=[{"requests_per_s": rate, "traffic": attrs.asdict(traffic)} for rate, traffic in found],
        tables=[_table(found, rig.nodes[0].name)],
        plots=[_plot(found)],
        text=(
            f"{setup.runs} live runs, two watchers each; appends of ten events with sizes and pauses of recorded "
            "runs. From the return of the commit to the runtime, as the record at the broker says, to the read of the "
            "frame by a watcher, for each frame and watcher; what each of them received equals the journal.",
        ),
        notes=("All processes, the database and the load share the machine.",),
        not_measured=("The commit itself, and what comes before it: see the column of appends.",),
    )


def _table(found: list[tuple[float, Traffic]], node: str) -> Table:
    columns = ("appends/s", "p50", "p90", "p99", "longest", "append p50", "cores of node", "cores of runtime")
    rows = []
    for rate, traffic in found:
        added = traffic.added
        times = (added.p50_s, added.p90_s, added.p99_s, added.max_s, traffic.append_p50_s)
        cores = (traffic.cores[node], traffic.cores["runtime"])
        rows.append((f"{rate:g}", *(show(value * 1e3) for value in times), *map(show, cores)))
    return Table("Milliseconds after the commit", columns, rows)


def _plot(found: list[tuple[float, Traffic]]) -> Lines:
    p50 = [(rate, traffic.added.p50_s * 1e3) for rate, traffic in found]
    p99 = [(rate, traffic.added.p99_s * 1e3) for rate, traffic in found]
    return Lines(
        "Time added after commit",
        "appends of ten events per second",
        "milliseconds",
        [("p50", p50), ("p99", p99)],
        has_log_x=True,
    )
