"""What ``khala bench nodes`` says: CPU of nodes for a million deliveries, and the ratios to one node over memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from chaos.load.nodes_setup import CROWD, MEMORY, NodesSetup
from chaos.load.report import Report, Table, Target, show, show_spread
from chaos.load.statistics_of_pairs import Spread
from chaos.load.svg_plots import Bars

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chaos.load.nodes_setup import Part, Shape
    from chaos.load.rig import RigSetup

__all__ = ["JUDGED", "TARGET", "Measured", "nodes_report"]

# Two nodes over NATS, to one over memory, for the crowd.
JUDGED: Final = "nats, 2 nodes"
TARGET: Final = 1.2


@attrs.frozen
class Measured:
    """One shape: the parts of every side, round by round."""

    shape: Shape
    parts: Mapping[str, list[Part]]

    def spread(self, side: str, figure: Callable[[Part], float]) -> Spread:
        """Return a figure of a side over all rounds."""
        return Spread.of([figure(part) for part in self.parts[side]])

    def ratio(self, side: str, figure: Callable[[Part], float]) -> Spread:
        """Return a figure to that of the memory driver, round by round."""
        pairs = zip(self.parts[side], self.parts[MEMORY], strict=True)
        return Spread.of([figure(part) / figure(reference) for part, reference in pairs])


def nodes_report(
    setup: NodesSetup,
    rows: Sequence[Measured],
    idle_cores: Mapping[str, float],
    environment: Mapping[str, object],
    systems: Sequence[RigSetup],
) -> Report:
    """Return the report of these rows; ``idle_cores`` is of one node process of each side."""
    (crowd,) = (row for row in rows if row.shape.name == CROWD)
    ratio = crowd.ratio(JUDGED, _cpu)
    return Report(
        name="nodes",
        title="Nodes: what a delivery costs with one and two of them",
        command=_command(setup),
        environment=environment,
        overrides={
            "up": {"driver": [system.driver for system in systems]},
            **{section: table for system in systems for section, table in system.config.items()},
        },
        targets=[
            Target.at_most(
                f"CPU for a delivery, two nodes over NATS to one over memory, crowd of {setup.crowd}",
                TARGET,
                ratio.median,
            )
        ],
        results=[
            {
                "setup": attrs.asdict(setup),
                "idle_cores_per_node": dict(idle_cores),
                "shapes": {row.shape.name: _result(row) for row in rows},
            }
        ],
        tables=[_costs(rows), _ratios(rows), *(_system(row) for row in rows), _idle(idle_cores)],
        plots=[_plot(rows)],
        text=_TEXT,
        notes=_NOTES,
        not_measured=_NOT_MEASURED,
    )


def _command(setup: NodesSetup) -> str:
    default = NodesSetup()
    given = [
        f" --{name} {getattr(setup, name)}"
        for name in ("crowd", "rounds")
        if getattr(setup, name) != getattr(default, name)
    ]
    return "khala bench nodes" + "".join(given)


def _cpu(part: Part) -> float:
    return part.cpu_s_per_million


def _wall(part: Part) -> float:
    return part.seconds


def _result(row: Measured) -> dict[str, object]:
    return {
        "shape": attrs.asdict(row.shape),
        "events": row.shape.events,
        "deliveries": row.shape.deliveries,
        "sides": {
            side: {
                "node_cpu_s_per_million": row.spread(side, _cpu).as_json(),
                "node_cpu_ratio_to_memory": row.ratio(side, _cpu).as_json(),
                "wall_ratio_to_memory": row.ratio(side, _wall).as_json(),
                "deliveries_per_s": row.spread(side, lambda part: part.deliveries_per_s).as_json(),
                "frames_per_write": row.spread(side, _frames_per_write).as_json(),
                "system_cpu_s_per_million_events": {
                    name: spread.median for name, spread in _system_spreads(row, side).items()
                },
                "parts": [attrs.asdict(part) for part in parts],
            }
            for side, parts in row.parts.items()
        },
    }


def _frames_per_write(part: Part) -> float:
    return part.deliveries / max(part.writes, 1)


def _system_spreads(row: Measured, side: str) -> dict[str, Spread]:
    """Return CPU seconds for a million events of every other process."""
    events = row.shape.events
    return {
        name: row.spread(side, lambda part, name=name: part.system_cpu_s[name] / events * 1e6)  # type: ignore[misc]
        for name in row.parts[side][0].system_cpu_s
    }


def _label(row: Measured) -> str:
    shape = row.shape
    runs = "one run" if shape.runs == 1 else f"{shape.runs} runs"
    return f"{runs}, {shape.followers} followers each, {shape.events_per_request} events per record"


def _costs(rows: Sequence[Measured]) -> Table:
    cells = [
        [side, *(show_spread(row.spread(side, _cpu)) for row in rows)]
        for side in rows[0].parts
    ]  # fmt: skip
    return Table(
        "CPU seconds of node processes for a million deliveries", ("side", *map(_label, rows)), cells
    )


def _ratios(rows: Sequence[Measured]) -> Table:
    figures = (("CPU", _cpu), ("wall", _wall))
    cells = [
        [side, *(show_spread(row.ratio(side, figure)) for row in rows for _, figure in figures)]
        for side in rows[0].parts
    ]
    columns = [f"{row.shape.name}, {name}" for row in rows for name, _ in figures]
    return Table(f"Ratio to {MEMORY}, round by round", ("side", *columns), cells)


def _system(row: Measured) -> Table:
    names = sorted({name for parts in row.parts.values() for name in parts[0].system_cpu_s})
    cells = []
    for side in row.parts:
        spreads = _system_spreads(row, side)
        frames = show(row.spread(side, _frames_per_write).median)
        cells.append(
            [side, frames, *(show(spreads[name].median) if name in spreads else "" for name in names)]
        )
    columns = ("side", "frames per write", *names)
    return Table(f"{row.shape.name}: CPU seconds of the other processes for a million events", columns, cells)


def _idle(idle_cores: Mapping[str, float]) -> Table:
    return Table(
        "Cores of one node process while nothing is appended",
        ("side", "cores"),
        [(side, show(cores)) for side, cores in idle_cores.items()],
    )


def _plot(rows: Sequence[Measured]) -> Bars:
    groups = [
        (row.shape.name, [(side, row.ratio(side, _cpu)) for side in row.parts if side != MEMORY])
        for row in rows
    ]
    return Bars(f"CPU of nodes for a delivery, to {MEMORY}", "ratio, round by round", groups, target=TARGET)


_TEXT: Final = (
    "Systems as `khala up` starts them, side by side for the whole time: tokens minted by control and redeemed by the "
    "node, rights, chain, MAC and metrics on. Events are appended over HTTP, one request in flight for each run, as "
    "fast as they are taken. Receivers in C verify that each frame follows the one before and has the payload of its "
    "seq, and count them. Connections are dealt to the nodes of a side in turn.",
    "CPU is that of the node processes alone. With the memory driver the node shares its process with control and "
    "runtime: every step of a task is timed there, and of what the process used the node gets the share that its tasks "
    "had of the time of all tasks. Medians, ranges in brackets.",
)
_NOTES: Final = (
    "Two nodes decode, verify and keep every record twice, and each has its own sweeps and position checks: a small "
    "part of a record for hundreds of followers, most of it for two. `pairs` is the worst placement: of the two "
    "followers of a run each is on a node of its own.",
    "`wall` is the whole system, from the first append to the last frame, on a machine that all sides share: no "
    "figure of what nodes alone can do (`khala bench stadium`). Below 1 is faster.",
    "`frames per write` above 1 in the crowd: a node was busy when the next record came, and sent both at once.",
)  # fmt: skip
_NOT_MEASURED: Final = (
    "A network between the processes, and machines of their own for them: [capacity](../capacity.md) says what these "
    "figures would mean there.",
    "Replays, connections that come and go, slow clients.",
)
