"""Drill ``node-loss``: every node dies at once, again and again, under 500 events/s (ARC-14).

Nothing durable lives in a node: after each restart the clients reconnect, resume after their own
cursors, and hold what the journal holds.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from chaos.drills.drill import Claim, Outcome, claims_of, delivery_facts
from chaos.drills.stage import StageSetup, running_stage
from chaos.drills.waiting import pause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.drills.drill import DrillOptions

__all__ = ["run_node_loss_drill"]

NODES: Final = 3
EVENTS_PER_S: Final = 500.0
ROUNDS: Final = 10
QUICK_ROUNDS: Final = 2
DELIVERED_S: Final = 60.0


def run_node_loss_drill(options: DrillOptions) -> Outcome:
    """Run the drill; see ``chaos.drills.drill.RunDrill``."""
    rounds = QUICK_ROUNDS if options.is_quick else ROUNDS
    if options.kills is not None:
        rounds = max(1, round(options.kills / NODES))
    rng = random.Random(options.seed)
    delivered_s: list[float] = []
    killed = 0
    with running_stage(options.folder, StageSetup(nodes=NODES, events_per_s=EVENTS_PER_S)) as stage:
        system = stage.system
        for number in range(1, rounds + 1):
            for name in system.node_names:
                system.wait_ready(name)
            pause(rng.uniform(0.5, 2.5))
            options.progress(f"{number} of {rounds}: all {NODES} nodes at once")
            pids = [
                system.kill(name) if options.has_faults else system.pid(name) for name in system.node_names
            ]
            killed += len([system.wait_killed(pid) for pid in pids])
            # From the moment at which no node lives.
            delivered_s.append(
                stage.wait_delivered(
                    timeout_s=DELIVERED_S, what="what was committed before the kill is delivered"
                )
            )
        verdict = stage.finish()
    claims = [
        Claim(
            "Every node died by SIGKILL, all at once",
            f"{killed} processes in {rounds} rounds, exit status -9 each",
            killed == rounds * NODES,
        ),
        *claims_of(verdict, offered_per_s=EVENTS_PER_S),
        Claim(
            "Every client reconnected to the new nodes",
            f"{min(client['connections'] for client in verdict.clients)} connections at the least",
            all(client["connections"] > rounds for client in verdict.clients),
        ),
    ]
    tables: dict[str, list[Mapping[str, Any]]] = {
        "Clients": verdict.clients,
        "Deliveries": [
            delivery_facts("all, outages and reconnects included", verdict.deliveries.latencies_s)
        ],
        "From no node to every client at the head of before": [
            {"round": number, "seconds": round(seconds, 2)}
            for number, seconds in enumerate(delivered_s, start=1)
        ],
    }
    violations = [str(violation) for violation in verdict.broken_histories + verdict.broken_appends]
    return Outcome(claims, tables, violations)
