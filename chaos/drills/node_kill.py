"""Drill ``node-kill``: nodes die, one alone and all at once, again and again, under 500 events/s (ARC-14).

Nothing durable lives in a node: clients of the others notice nothing, and after each restart everybody
resumes after their own cursors and holds what the journal holds.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final

from chaos.drills.drill import Claim, Outcome, claims_of, delivery_facts
from chaos.drills.plots import latency_plot
from chaos.drills.stage import StageSetup
from chaos.drills.system_setup import SystemSetup
from chaos.drills.waiting import pause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.drills.drill import DrillOptions
    from chaos.drills.stage import Stage

__all__ = ["THREE_NODES", "run_node_kill_drill"]

NODES: Final = 3
# Also the system of rolling-restart and reconnect-storm.
THREE_NODES: Final = SystemSetup(nodes=NODES)
EVENTS_PER_S: Final = 500.0
ROUNDS: Final = 10
QUICK_ROUNDS: Final = 1
DELIVERED_S: Final = 60.0


def run_node_kill_drill(options: DrillOptions) -> Outcome:
    """Run the drill; see ``chaos.drills.drill.RunDrill``."""
    rounds = QUICK_ROUNDS if options.is_quick else ROUNDS
    if options.kills is not None:
        rounds = max(1, round(options.kills / (NODES + 1)))
    rng = random.Random(options.seed)
    kills: list[Mapping[str, Any]] = []
    spans: list[tuple[str, float, float]] = []
    disturbed = 0
    with options.open_stage(StageSetup(events_per_s=EVENTS_PER_S), THREE_NODES) as stage:
        names = stage.system.node_names
        for number in range(1, rounds + 1):
            alone = rng.choice(names)
            options.progress(f"{number} of {rounds}: {alone} alone, then all {NODES} nodes at once")
            before = _disconnects_besides(stage, alone)
            spans.append(_kill(stage, options, [alone], rng, kills))
            disturbed += _disconnects_besides(stage, alone) - before
            spans.append(_kill(stage, options, names, rng, kills))
        verdict = stage.finish()
    killed = sum(row["killed"] for row in kills)
    connections = {client["name"]: client["connections"] for client in verdict.clients}
    claims = [
        Claim(
            "Nodes died by SIGKILL, one alone and all at once",
            f"{killed} processes in {len(kills)} kills, exit status -9 each",
            killed == rounds * (NODES + 1),
        ),
        *claims_of(verdict, offered_per_s=EVENTS_PER_S),
        Claim(
            "While one node is dead, clients of the others stay connected",
            f"{disturbed} disconnects of theirs in {rounds} kills",
            disturbed == 0,
        ),
        Claim(
            "Every client came back after every death of its node",
            f"{min(connections.values())} connections at the least",
            min(connections.values()) > rounds,
        ),
    ]
    tables: dict[str, list[Mapping[str, Any]]] = {
        "Clients": verdict.clients,
        "Deliveries": [
            delivery_facts("all, outages and reconnects included", verdict.deliveries.latencies_s)
        ],
        "From the death to every client at the head of before": kills,
    }
    plot = latency_plot(verdict.deliveries, began_at_s=stage.began_at_s, spans=spans)
    return Outcome(claims, tables, verdict.violations, (plot,))


def _kill(
    stage: Stage,
    options: DrillOptions,
    names: list[str],
    rng: random.Random,
    kills: list[Mapping[str, Any]],
) -> tuple[str, float, float]:
    """Kill nodes at once, wait until everybody has what was committed before; return the span of it."""
    system = stage.system
    if options.has_faults:
        for name in system.node_names:
            system.wait_ready(name)
        # A client whose node has just died in the round before must be back, or it is no witness.
        stage.wait_delivered(timeout_s=DELIVERED_S, what="every client is connected")
        pause(rng.uniform(0.3, 1.5))
    began_at_s = time.time()
    pids = [system.kill(name) if options.has_faults else system.pid(name) for name in names]
    options.prove(f"{', '.join(names)} killed", lambda: _are_dead(stage, pids))
    seconds = stage.wait_delivered(timeout_s=DELIVERED_S, what="what was committed before is delivered")
    kills.append(
        {"kill": len(kills) + 1, "nodes": ", ".join(names), "killed": len(pids), "seconds": round(seconds, 2)}
    )
    return "all" if len(names) > 1 else names[0], began_at_s, time.time()


def _are_dead(stage: Stage, pids: list[int]) -> bool:
    stage.system.look()
    ends = stage.system.ends
    return all(pid in ends and ends[pid].status == -9 for pid in pids)


def _disconnects_besides(stage: Stage, node: str) -> int:
    """Return how often followers of the other nodes have lost their connections."""
    return sum(
        follower.count("disconnected")
        for follower in stage.followers
        if follower.setup.name != f"follower-{node}"
    )
