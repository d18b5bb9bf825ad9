"""Drill ``rolling-restart``: three nodes leave and come back, one after the other, under load (KH-10, OPS-12).

Many clients come in by the one origin, as behind a load balancer, and go to whoever is there. Each node in
turn gets SIGTERM: it is not ready first, tells its clients when to come back, sends them what they have not
had, and ends with status 0. Nobody sees a gap, nobody applies anything twice, and whoever returns finds room.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs

from chaos.drills.client_setup import CrowdSetup
from chaos.drills.committed import read_committed
from chaos.drills.crowd_process import CrowdProcess
from chaos.drills.drill import Claim, Outcome, claims_of, delivery_facts
from chaos.drills.leaving import DRAIN_LIMIT_S, READINESS_LIMIT_S, Left, ask_to_leave
from chaos.drills.node_kill import THREE_NODES
from chaos.drills.node_limits import changed_limits
from chaos.drills.plots import latency_plot
from chaos.drills.stage import SETTLE_TIMEOUT_S, StageSetup
from chaos.drills.verdict import percentile
from chaos.drills.waiting import wait_until
from khala.core.limits import NodeLimits
from khala_client.settings import format_sync_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chaos.drills.drill import DrillOptions
    from chaos.drills.stage import Stage

__all__ = ["run_rolling_restart_drill"]

# Of which each client gets a twentieth: 300 of them are busy with 1,500 events a second.
EVENTS_PER_S: Final = 100.0
TOPICS: Final = 20
CLIENTS: Final = 300
QUICK_CLIENTS: Final = 60
ROUNDS: Final = 2
QUICK_ROUNDS: Final = 1
OPEN_TIMEOUT_S: Final = 240.0
BACK_TIMEOUT_S: Final = 60.0
# What `khala up` gives a node is for a terminal that waits; a deployment gives it the default.
_LIMITS: Final = NodeLimits()
DRAINING: Final = "draining"


@attrs.frozen
class _Restart:
    """One node's leave and return.

    Attributes:
        clients: Of the crowd that it had.
        back_s: From SIGTERM until every client of the crowd was live again.
    """

    left: Left
    began_at_s: float
    ended_at_s: float
    clients: int
    back_s: float

    def as_row(self, number: int) -> Mapping[str, Any]:
        return {
            "restart": number,
            "node": self.left.name,
            "clients": self.clients,
            "not ready after s": round(self.left.not_ready_after_s, 2),
            "left after s": round(self.left.seconds, 2),
            "exit status": self.left.status,
            "ready again after s": round(self.left.back_after_s, 2),
            "everybody live after s": round(self.back_s, 2),
        }


def run_rolling_restart_drill(options: DrillOptions) -> Outcome:
    """Run the drill; see ``chaos.drills.drill.RunDrill``."""
    rounds, clients = (QUICK_ROUNDS, QUICK_CLIENTS) if options.is_quick else (ROUNDS, CLIENTS)
    setup = StageSetup(topics=TOPICS, events_per_s=EVENTS_PER_S, has_rereader=False)
    restarts: list[_Restart] = []
    with options.open_stage(setup, THREE_NODES) as stage, _crowd(stage, options, clients) as crowd:
        steady_at_s = time.time()
        for number in range(1, rounds + 1):
            for name in stage.system.node_names:
                options.progress(f"round {number} of {rounds}: {name}")
                restarts.append(_restart(stage, crowd, options, name))
        verdict = stage.finish()
        committed = read_committed(stage.system.under_test, stage.topics)
        wait_until(
            lambda: not crowd.behind(committed),
            timeout_s=SETTLE_TIMEOUT_S,
            what="every client is at the head",
        )
        crowd.stop()
    broken = crowd.check_histories(committed)
    deliveries = committed.deliveries(crowd.received(), since_s=stage.began_at_s)
    returns = [line for line in crowd.of("disconnected") if line["at_s"] >= steady_at_s]
    others = [line["code"] for line in returns if line["code"] != DRAINING]
    moves = crowd.count_by_client("connected")
    busiest = max(
        (max(each.values()) for each in crowd.connects_per_s(since_s=steady_at_s).values()), default=0
    )
    repeats = sum(line["duplicates"] for line in crowd.of("counts"))
    absences_s = crowd.absences_s()
    claims = [
        Claim(
            f"Every node left in order within {DRAIN_LIMIT_S:g} s, {rounds} time(s): "
            f"not ready within {READINESS_LIMIT_S:g} s, exit status 0",
            f"{len(restarts)} restarts, statuses {sorted({one.left.status for one in restarts})}, "
            f"not ready after at most {max(one.left.not_ready_after_s for one in restarts):.2f} s, "
            f"gone after at most {max(one.left.seconds for one in restarts):.1f} s",
            all(one.left.is_orderly for one in restarts),
        ),
        Claim(
            f"What each of {clients} clients has applied is the journal: no gap, nothing twice, to the head",
            f"{len(deliveries.latencies_s):,} applied events: {len(broken)} differences, "
            f"{len(crowd.of('gap'))} gaps on the wire, {repeats} repeats on the wire",
            not broken and not crowd.of("gap") and len(deliveries.latencies_s) > 0,
        ),
        *claims_of(verdict, offered_per_s=EVENTS_PER_S),
        Claim(
            "Whoever had to move was told to, and nobody was turned away",
            f"{len(returns)} ends of connections, {len(others)} of them not `{DRAINING}`: "
            f"{', '.join(sorted(set(others))) or 'none'}; each client moved at least "
            f"{min(moves.values(), default=0) - 1} times",
            not others and len(moves) == clients and min(moves.values()) > rounds,
        ),
        Claim(
            f"They came back spread: no node was asked for more than its admission, {_LIMITS.admission_per_s:g}/s",
            f"{busiest} in the busiest second of one node",
            busiest <= _LIMITS.admission_per_s,
        ),
    ]
    tables: dict[str, list[Mapping[str, Any]]] = {
        "Restarts": [one.as_row(number) for number, one in enumerate(restarts, start=1)],
        "Deliveries": [
            delivery_facts(f"the {clients} clients, moves included", deliveries.latencies_s),
            delivery_facts("followers of one node each", verdict.deliveries.latencies_s),
        ],
        "Moves": [
            {
                "moves": len(absences_s),
                "median ms without a stream": round(percentile(absences_s, 0.5) * 1000),
                "p99 ms": round(percentile(absences_s, 0.99) * 1000),
                "max ms": round(max(absences_s, default=0.0) * 1000),
            }
        ],
        "Clients": verdict.clients,
    }
    spans = [(one.left.name, one.began_at_s, one.ended_at_s) for one in restarts]
    plot = latency_plot(deliveries, began_at_s=stage.began_at_s, spans=spans)
    return Outcome(claims, tables, [*map(str, broken), *verdict.violations], (plot,))


@contextmanager
def _crowd(stage: Stage, options: DrillOptions, clients: int) -> Iterator[CrowdProcess]:
    """Open the crowd, and let nodes take the time that a deployment gives them."""
    system = stage.system
    crowd = CrowdProcess.start(
        "crowd",
        CrowdSetup(
            name="crowd",
            folder=stage.publisher.setup.folder,
            profile=stage.publisher.setup.profile,
            topics=stage.topics,
            sync_url=format_sync_url(str(system.record["origin"])),
            clients=clients,
        ),
    )
    try:
        if options.has_faults:
            waited_s = wait_until(
                crowd.are_all_live, timeout_s=OPEN_TIMEOUT_S, what=f"{clients} clients are live"
            )
            options.progress(f"{clients} clients are live after {waited_s:.1f} s")
        with changed_limits(system, system.node_names, {"drain_timeout_s": _LIMITS.drain_timeout_s}):
            yield crowd
    finally:
        crowd.end()


def _restart(stage: Stage, crowd: CrowdProcess, options: DrillOptions, name: str) -> _Restart:
    """Let one node leave and come back; return when everybody is live again."""
    system = stage.system
    crowd.look()
    clients = sum(node == name for node in crowd.node_of.values())
    began_at_s, began = time.time(), time.monotonic()
    leaving = ask_to_leave(system, name, is_asked=options.has_faults)
    options.prove(f"{name} leaves", leaving.is_not_ready)
    left = leaving.wait_replaced()
    ended_at_s = time.time()
    wait_until(crowd.are_all_live, timeout_s=BACK_TIMEOUT_S, what="every client is live again")
    stage.wait_delivered(timeout_s=BACK_TIMEOUT_S, what="every follower is at the head of now")
    return _Restart(left, began_at_s, ended_at_s, clients, time.monotonic() - began)
