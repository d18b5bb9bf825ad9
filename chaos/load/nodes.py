"""``khala bench nodes``: what a delivery costs with one and with two node processes, on each driver.

    memory      ``khala up``, where the node shares its process with control and runtime
    postgres    ``khala up --split``, one node process, and two
    nats        the same with a broker

All systems run side by side for the whole time; each side has a node process or two that nobody else uses.
In each round every side gets the same appends, over HTTP as always, slice by slice in turns that begin with
another side each time; ratios to the memory driver are taken round by round.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from chaos.load.native_tools import compile_native
from chaos.load.nodes_report import Measured, nodes_report
from chaos.load.nodes_setup import MEMORY, Part
from chaos.load.nodes_sides import running_side
from chaos.load.statistics_of_pairs import describe_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.load.nodes_setup import NodesSetup, Shape
    from chaos.load.nodes_sides import Side
    from chaos.load.report import Report
    from chaos.load.rig import NodeUnderTest, Rig

__all__ = ["RIG_CONFIG", "measure_nodes"]

# SPEC section 2 allows a run 240 events a second; here it gets what the machine can do.
RIG_CONFIG: Final = {"runtime": {"publish_rate_per_s": {"run_events": 0}}}


def measure_nodes(setup: NodesSetup, rigs: Sequence[Rig], progress: Callable[[str], None]) -> Report:
    """Run the rounds on systems of different drivers, the one with ``memory`` first.

    Raises:
        CompilerMissingError: There are no clients without a C compiler.
        ReceiverFailedError: A follower missed something; no figure is given then.
        AppendFailedError: An append was refused.
        SystemFailedError: A system did not work.
    """
    environment = describe_environment()
    with ExitStack() as held:
        program = compile_native("delivery_client", rigs[0].folder)
        sides: list[Side] = []
        for rig in rigs:
            for name, nodes in _nodes_of_sides(rig, held):
                sides.append(held.enter_context(running_side(name, rig, nodes, setup, program)))
                progress(f"{setup.crowd} connections at {name}")
        idle = {side.name: side.node_cores(setup.idle_s) for side in sides}
        rows = [Measured(shape, {side.name: [] for side in sides}) for shape in setup.shapes]
        for number in range(setup.rounds):
            for row in rows:
                for name, slices in _run_round(setup, row.shape, sides).items():
                    row.parts[name].append(Part.of(slices))
                said = ", ".join(f"{name} {p[-1].cpu_s_per_million:.2f}" for name, p in row.parts.items())
                progress(f"round {number + 1}, {row.shape.name}, CPU s per million: {said}")
    return nodes_report(setup, rows, idle, environment, [rig.setup for rig in rigs])


def _run_round(setup: NodesSetup, shape: Shape, sides: Sequence[Side]) -> dict[str, list[Part]]:
    """Return the slices of each side; each time another one begins."""
    parts: dict[str, list[Part]] = {side.name: [] for side in sides}
    for number in range(setup.slices):
        for place in range(len(sides)):
            side = sides[(place + number) % len(sides)]
            parts[side.name].append(side.run(shape.slice(setup.slices)))
    return parts


def _nodes_of_sides(rig: Rig, held: ExitStack) -> list[tuple[str, list[NodeUnderTest]]]:
    """Return name and nodes of each side of a system; the second one's are further nodes of it."""
    if not rig.setup.is_split:
        return [(MEMORY, rig.nodes)]
    driver, first = rig.setup.driver, rig.nodes[:1]
    pair = [held.enter_context(rig.extra_node(f"node-pair-{number}", {})) for number in (1, 2)]
    return [(f"{driver}, 1 node", first), (f"{driver}, 2 nodes", pair)]
