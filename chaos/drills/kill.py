"""Drill ``kill``: processes of a running system die by SIGKILL between any two steps.

Under 200 events/s, in an order drawn from the seed: the runtime between commit and hint, a node in the
middle of a WebSocket frame, any service at any instant, PostgreSQL itself, every other failpoint, all
nodes at once, and the runtime between commit and hint with nobody there to start it again: then the
nodes must find by themselves what was committed. A kill counts once the supervisor has seen exit
status -9 of that very pid, and a failpoint once the dying process has written that it was hit.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import attrs

from chaos.drills.drill import Claim, Outcome, claims_of, delivery_facts
from chaos.drills.stage import StageSetup
from chaos.drills.system_setup import SystemSetup
from chaos.drills.waiting import pause, wait_until
from khala_service.failpoints import FAILPOINTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.drills.drill import DrillOptions
    from chaos.drills.split_system import Ended
    from chaos.drills.stage import Stage

__all__ = ["KILL_SYSTEM", "KillPlan", "plan_of", "run_kill_drill"]

KILL_SYSTEM: Final = SystemSetup(nodes=2)

COMMITTED: Final = "runtime.committed"
MID_FRAME: Final = "node.mid_frame"
EVENTS_PER_S: Final = 200.0
# At most so many hits later the armed point acts: not always at the first request after arming.
HITS_MAX: Final = 20
POINT_TIMEOUT_S: Final = 30.0
# RT-06: with the runtime down, by the nodes' own position checks.
LEFT_DOWN_S: Final = 5.0
_SERVICES: Final = ("runtime", "control")


@attrs.frozen(kw_only=True)
class KillPlan:
    """How often each fault is done."""

    committed: int = 20
    mid_frame: int = 20
    at_random: int = 20
    postgres: int = 5
    each_failpoint: int = 3
    left_down: int = 3
    all_nodes: int = 3

    @property
    def faults(self) -> list[str]:
        """The faults one by one, in a fixed order."""
        others = [point for point in FAILPOINTS if point not in (COMMITTED, MID_FRAME)]
        return [
            *[COMMITTED] * self.committed,
            *[MID_FRAME] * self.mid_frame,
            *["random"] * self.at_random,
            *["postgres"] * self.postgres,
            *others * self.each_failpoint,
            *["left down"] * self.left_down,
            *["all nodes"] * self.all_nodes,
        ]


QUICK: Final = KillPlan(
    committed=2, mid_frame=2, at_random=3, postgres=1, each_failpoint=1, left_down=1, all_nodes=1
)


def plan_of(kills: int | None, *, is_quick: bool) -> KillPlan:
    """Return the plan of the quick form, of the usual one, or of one with about so many kills."""
    if kills is None:
        return QUICK if is_quick else KillPlan()
    usual = KillPlan()
    share = kills / (usual.committed + usual.mid_frame + usual.at_random + usual.postgres)
    return attrs.evolve(
        usual,
        committed=max(1, round(usual.committed * share)),
        mid_frame=max(1, round(usual.mid_frame * share)),
        at_random=max(1, round(usual.at_random * share)),
        postgres=max(1, round(usual.postgres * share)),
    )


def run_kill_drill(options: DrillOptions) -> Outcome:
    """Run the drill; see ``chaos.drills.drill.RunDrill``."""
    plan = plan_of(options.kills, is_quick=options.is_quick)
    with options.open_stage(StageSetup(events_per_s=EVENTS_PER_S), KILL_SYSTEM) as stage:
        killing = _Killing(stage, options)
        faults = plan.faults
        killing.rng.shuffle(faults)
        if not options.has_faults:
            # Nobody is killed, so nobody is seen to have died.
            options.prove("a killed process", lambda: bool(stage.ends_of("runtime")))
        for number, fault in enumerate(faults, start=1):
            stage.check_clients()
            options.progress(f"{number} of {len(faults)}: {fault}")
            killing.do(fault)
        for name in (*_SERVICES, *stage.system.node_names):
            stage.system.wait_ready(name)
        verdict = stage.finish()
        stage.system.look()
        hits = Counter(hit["failpoint"] for hit in stage.system.hits)
    done = killing.done
    kills = sum(row["killed"] for row in done.values())
    left_down_s = max(killing.left_down_s, default=0.0)
    claims = [
        Claim(
            "Every planned process died by SIGKILL",
            f"{kills} processes in {len(faults)} faults, exit status -9 each",
            sum(row["faults"] for row in done.values()) == len(faults),
        ),
        Claim(
            "Every failpoint was hit",
            f"{len(hits)} of {len(FAILPOINTS)}, the rarest {min(hits.values(), default=0)} times",
            set(hits) == set(FAILPOINTS),
        ),
        *claims_of(verdict, offered_per_s=EVENTS_PER_S),
        Claim(
            f"Committed, not published, the runtime left down: with every client within {LEFT_DOWN_S:g} s",
            f"at most {left_down_s:.2f} s in {len(killing.left_down_s)} cases",
            0.0 < left_down_s <= LEFT_DOWN_S,
        ),
    ]
    latencies = verdict.deliveries.latencies_s
    tables: dict[str, list[Mapping[str, Any]]] = {
        "Faults": [{"fault": fault, **row} for fault, row in sorted(done.items())],
        "Failpoints": [
            {"failpoint": point, "hits": hits[point], "where": where} for point, where in FAILPOINTS.items()
        ],
        "Clients": verdict.clients,
        "Deliveries": [delivery_facts("all, outages and reconnects included", latencies)],
    }
    violations = [str(violation) for violation in verdict.broken_histories + verdict.broken_appends]
    return Outcome(claims, tables, violations)


class _Killing:
    """Does one fault after the other and counts what happened."""

    def __init__(self, stage: Stage, options: DrillOptions) -> None:
        self._stage = stage
        self._system = stage.system
        self._has_faults = options.has_faults
        self.rng = random.Random(options.seed)
        self.done: dict[str, dict[str, int]] = {}
        self.left_down_s: list[float] = []

    def do(self, fault: str) -> None:
        """Do one fault and wait for its proof."""
        nodes = self._system.node_names
        match fault:
            case "random":
                self._count(fault, self._kill_at_random())
            case "postgres":
                self._system.wait_ready("runtime")
                self._count(fault, self._kill("postgres"))
            case "all nodes":
                for name in nodes:
                    self._system.wait_ready(name)
                self._count(fault, *self._kill_together(nodes))
            case "left down":
                self._count(fault, self._leave_down())
            case _ if fault.startswith("runtime."):
                self._count(fault, self._kill_at("runtime", fault))
            case _:
                # The rereader's node: there, replays and commands are always under way.
                name = self.rng.choice(nodes) if fault == MID_FRAME else nodes[-1]
                self._count(fault, self._kill_at(name, fault))

    def _count(self, fault: str, *ended: Ended) -> None:
        row = self.done.setdefault(fault, {"faults": 0, "killed": 0, "exit status": -9})
        row["faults"] += 1
        row["killed"] += len(ended)

    def _kill_at(self, name: str, point: str) -> Ended:
        pid = self._arm(name, point)
        ended = self._system.wait_killed(pid, timeout_s=POINT_TIMEOUT_S)
        self._wait_hit(point, pid)
        return ended

    def _arm(self, name: str, point: str) -> int:
        self._system.wait_ready(name)
        pid = self._system.pid(name)
        at = self.rng.randint(1, HITS_MAX) if point in (COMMITTED, MID_FRAME) else 1
        if self._has_faults:
            self._system.arm(name, f"{point}=kill@{at}")
        return pid

    def _wait_hit(self, point: str, pid: int) -> None:
        wait_until(
            lambda: self._system.has_hit(point, pid),
            timeout_s=POINT_TIMEOUT_S,
            what=f"{point} is hit in process {pid}",
        )

    def _kill_at_random(self) -> Ended:
        # Also a process that has just been started: nobody waits for it to be ready.
        pause(self.rng.uniform(0.05, 0.8))
        name = self.rng.choice((*_SERVICES, *self._system.node_names))
        wait_until(
            lambda: self._system.is_running(name), timeout_s=POINT_TIMEOUT_S, what=f"{name} is started"
        )
        return self._kill(name)

    def _kill(self, name: str) -> Ended:
        return self._kill_together([name])[0]

    def _kill_together(self, names: list[str]) -> list[Ended]:
        if self._has_faults:
            pids = [self._system.kill(name) for name in names]
        else:
            pids = [self._system.pid(name) for name in names]
        return [self._system.wait_killed(pid) for pid in pids]

    def _leave_down(self) -> Ended:
        """Kill the runtime after a commit; nobody restarts it before the commit is delivered."""
        for name in (*_SERVICES, *self._system.node_names):
            self._system.wait_ready(name)
        # Connected again after whatever was before: without the runtime nobody new gets a token.
        self._stage.wait_delivered(timeout_s=POINT_TIMEOUT_S, what="every client is connected")
        with self._system.held_supervisor():
            pid = self._arm("runtime", COMMITTED)
            self._wait_hit(COMMITTED, pid)
            self.left_down_s.append(
                self._stage.wait_delivered(
                    timeout_s=2 * LEFT_DOWN_S, what="what the dead runtime has committed is delivered"
                )
            )
        return self._system.wait_killed(pid)
