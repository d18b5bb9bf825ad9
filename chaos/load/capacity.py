"""What machines would carry, on paper: the tables of runbooks/capacity.md, computed from reports. Pure but for reading.

Every figure is one of a report in runbooks/reports, one of ``Machines``, or follows from these by the formula
beside it. The lane docs makes the tables again from the newest reports and compares.
"""

from __future__ import annotations

import errno
import json
import math
from typing import TYPE_CHECKING, Any, Final

import attrs

from chaos.load.nodes_setup import CROWD, PAIRS
from chaos.load.report import show
from khala.core.limits import NodeLimits

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Costs", "Machines", "capacity_tables", "newest_report", "read_costs"]

# The side whose figures are taken: a broker, and every record at two nodes.
SIDE: Final = "nats, 2 nodes"
# Of an agent at work, in the agent city (chaos/load/city_plan.py: 4,000 events a second of 2,000 runs).
EVENTS_PER_RUN_S: Final = 2.0


@attrs.frozen
class Costs:
    """What was measured.

    Attributes:
        sources: Names of the reports.
        crowd_s: CPU seconds of nodes for a million deliveries of one run with hundreds of followers.
        pairs_s: The same of runs with two followers.
        events_s: CPU seconds of each other process for a million events.
        idle_cores: Of a node that sends nothing.
        connection_kb: Of a node's memory for an idle connection.
        kernel_kb: Of the kernel's for it, both ends.
        connection_idle_cores: Of a node for an idle connection.
    """

    sources: tuple[str, ...]
    crowd_s: float
    pairs_s: float
    events_s: dict[str, float]
    idle_cores: float
    connection_kb: float
    kernel_kb: float
    connection_idle_cores: float


@attrs.frozen
class Machines:
    """What is assumed.

    Attributes:
        cores: Of a machine, each like one of those that were measured.
        memory_gb: Of a machine.
        busy: Share of a core that is planned for; the rest is for bursts, replays and returns.
        memory_share: Share of a node machine's memory for connections; windows and pages have bounds of their own.
    """

    cores: int = 8
    memory_gb: float = 32.0
    busy: float = 0.6
    memory_share: float = 0.25


def newest_report(folder: Path, name: str) -> Path:
    """Return the newest ``<date>-<name>.json``.

    Raises:
        FileNotFoundError: There is none.
    """
    # The date has three parts; a name that ends alike is another report.
    found = sorted(path for path in folder.glob(f"*-{name}.json") if path.stem.split("-", 3)[3:] == [name])
    if not found:
        raise FileNotFoundError(errno.ENOENT, f"no report {name}", str(folder / f"<date>-{name}.json"))
    return found[-1]


def read_costs(folder: Path) -> Costs:
    """Return the figures of the newest reports ``nodes`` and ``connections``."""
    nodes_file, connections_file = (newest_report(folder, name) for name in ("nodes", "connections"))
    (nodes,) = json.loads(nodes_file.read_text(encoding="utf-8"))["results"]
    (connections,) = json.loads(connections_file.read_text(encoding="utf-8"))["results"]
    memory = connections["memory"]

    def side(shape: str) -> dict[str, Any]:
        found: dict[str, Any] = nodes["shapes"][shape]["sides"][SIDE]
        return found

    return Costs(
        sources=(nodes_file.stem, connections_file.stem),
        crowd_s=side(CROWD)["node_cpu_s_per_million"]["median"],
        pairs_s=side(PAIRS)["node_cpu_s_per_million"]["median"],
        events_s=side(PAIRS)["system_cpu_s_per_million_events"],
        idle_cores=nodes["idle_cores_per_node"][SIDE],
        connection_kb=memory["rss_bytes_per_connection"] / 1e3,
        kernel_kb=memory["slab_bytes_per_connection"] / 1e3,
        connection_idle_cores=memory["idle_cores"] / memory["connections"],
    )


def capacity_tables(costs: Costs, machines: Machines) -> str:
    """Return the generated part of the page: what was measured, what is assumed, one machine and three."""
    events = machines.busy / costs.events_s["runtime"] * 1e6
    cores = {name: events * cpu_s / 1e6 for name, cpu_s in costs.events_s.items()}
    # The runtime is one process; whatever else serves commits shares whole cores.
    others = 1 + math.ceil((sum(cores.values()) - cores["runtime"]) / machines.busy)
    # On a machine of nodes alone one core is the kernel's and the broker's.
    one, three = machines.cores - others, 2 * (machines.cores - 1)
    lines = [
        _measured(costs),
        _assumed(machines),
        f"Where the {show(events)} events a second go: "
        + ", ".join(f"{name} {show(cores[name])} cores" for name in sorted(cores))
        + f"; {others} cores with room.",
        _carried(costs, machines, events, {"one machine": one, "three machines": three}),
    ]
    return "\n\n".join(lines)


def _measured(costs: Costs) -> str:
    rows = [
        ("CPU seconds of nodes, a million deliveries, one run with hundreds of followers", costs.crowd_s),
        ("the same, runs with two followers", costs.pairs_s),
        *(
            (f"CPU seconds of {name}, a million events", cpu_s)
            for name, cpu_s in sorted(costs.events_s.items())
        ),
        ("cores of an idle node", costs.idle_cores),
        ("kB of a node for an idle connection", costs.connection_kb),
        ("kB of the kernel for it, both ends", costs.kernel_kb),
        ("cores of a node for a thousand idle connections", costs.connection_idle_cores * 1_000),
    ]
    named = " and ".join(f"[{name}](reports/{name}.md)" for name in costs.sources)
    table = [f"| {what} | {show(value)} |" for what, value in rows]
    return "\n".join([f"Measured, in {named} ({SIDE}):", "", "| what | figure |", "|---|---:|", *table])


def _assumed(machines: Machines) -> str:
    return (
        f"Assumed: machines of {machines.cores} cores like the measured ones and {machines.memory_gb:g} GB; "
        f"{machines.busy:.0%} of a core is planned for, and {machines.memory_share:.0%} of the memory of a machine "
        f"for connections; {EVENTS_PER_RUN_S:g} events a second of an agent at work."
    )


def _carried(costs: Costs, machines: Machines, events: float, nodes: dict[str, int]) -> str:
    free = machines.busy - costs.idle_cores
    by_memory = machines.memory_gb * machines.memory_share * 1e6 / (costs.connection_kb + costs.kernel_kb)
    # Machines that hold connections: the one, or two of the three.
    holders = {"one machine": 1, "three machines": 2}
    connections = {name: by_memory * count for name, count in holders.items()}
    admitted = NodeLimits().admission_per_s
    rows: list[tuple[str, str, dict[str, float]]] = [
        ("node processes", "cores that are left", {name: float(count) for name, count in nodes.items()}),
        (
            "events a second",
            "busy / CPU of the runtime, which is one process",
            dict.fromkeys(nodes, events),
        ),
        (
            "agents at work",
            "events / events of one agent",
            dict.fromkeys(nodes, events / EVENTS_PER_RUN_S),
        ),
        (
            "deliveries a second, two followers",
            "nodes x (busy - idle) / CPU of a delivery",
            {name: count * free / costs.pairs_s * 1e6 for name, count in nodes.items()},
        ),
        (
            "deliveries a second, hundreds of followers",
            "the same",
            {name: count * free / costs.crowd_s * 1e6 for name, count in nodes.items()},
        ),
        ("idle connections", "memory for them / kB of one, kernel included", connections),
        (
            "cores that those use while idle",
            "connections x cores of one",
            {name: count * costs.connection_idle_cores for name, count in connections.items()},
        ),
        (
            "seconds until all of those are back after a cut",
            f"connections / ({admitted:g} a second and node)",
            {name: count / (admitted * nodes[name]) for name, count in connections.items()},
        ),
    ]
    head = ["| on paper | how | " + " | ".join(nodes) + " |", "|---|---|" + "---:|" * len(nodes)]
    body = [
        f"| {what} | {how} | " + " | ".join(show(values[name]) for name in nodes) + " |"
        for what, how, values in rows
    ]
    return "\n".join([*head, *body])
