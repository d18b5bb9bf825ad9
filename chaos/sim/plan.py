"""What a seed means: the size of a world, its limits, who follows what, and every step with its time. Pure.

A plan is a value that can be printed, and made smaller: each step stands alone (`shrink.py` leaves steps
out), and carries a number of its own from which whatever it leaves to chance is drawn, so that leaving one
out changes no other.

    0 ............ 1.5 s        quiet     runs are made, clients connect
    1.5 s ... `faults_end_s`    faults    most steps, and every fault begins and ends
    then                        healing   until all have converged, then probes

Limits are drawn small, so that edges are met by dozens of events: windows of a few frames, pages of a few
rows, buffers of a few hundred bytes.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import attrs

from chaos.sim.steps import ACTIONS, FAULTS, Step

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["QUIET_S", "ClientPlan", "Plan", "make_plan"]

QUIET_S: Final = 1.5
KIB: Final = 1024


@attrs.frozen
class ClientPlan:
    """One client: who it is, what it follows from where, when it starts."""

    name: str
    user: int
    follows: tuple[tuple[str, str], ...]
    starts_at_s: float


@attrs.frozen
class Plan:
    """One world.

    Attributes:
        runs: Names of the runs, each with the number of its owner and whether it belongs to the org.
        apps: Names of app topics of the org.
        node_limits: Fields of NodeLimits that differ from the defaults.
        runtime_limits: Fields of RuntimeLimits that differ.
        steps: By time.
        token_ttl_s: Life of a sync token.
    """

    seed: int
    nodes: int
    runs: tuple[tuple[str, int, bool], ...]
    apps: tuple[str, ...]
    clients: tuple[ClientPlan, ...]
    node_limits: Mapping[str, object]
    runtime_limits: Mapping[str, int]
    steps: tuple[Step, ...]
    faults_end_s: float
    token_ttl_s: float

    def without(self, *, steps: frozenset[int] = frozenset(), clients: frozenset[str] = frozenset()) -> Plan:
        """Return the plan without some steps (by number) and clients (by name, with their steps)."""
        return attrs.evolve(
            self,
            clients=tuple(client for client in self.clients if client.name not in clients),
            steps=tuple(step for step in self.steps if step.number not in steps and step.who not in clients),
        )


def make_plan(seed: int) -> Plan:
    """Return the world of a seed."""
    rng = Random(f"plan:{seed}")
    runs = tuple(
        (f"run-{number}", rng.randint(1, 2), rng.random() < 0.5) for number in range(1, rng.randint(2, 4))
    )
    apps = ("app-1",) if rng.random() < 0.4 else ()
    nodes = rng.choice((1, 2, 2, 3))
    clients = tuple(_make_client(rng, number, runs, apps) for number in range(1, rng.choice((3, 3, 4, 5, 6))))
    faults_end_s = QUIET_S + rng.uniform(5.0, 12.0)
    plan = Plan(
        seed=seed,
        nodes=nodes,
        runs=runs,
        apps=apps,
        clients=clients,
        node_limits=_draw_node_limits(rng),
        runtime_limits=_draw_runtime_limits(rng),
        steps=(),
        faults_end_s=faults_end_s,
        token_ttl_s=rng.choice((8.0, 20.0, 60.0, 300.0)),
    )
    return attrs.evolve(plan, steps=_draw_steps(rng, plan))


def _make_client(
    rng: Random, number: int, runs: tuple[tuple[str, int, bool], ...], apps: tuple[str, ...]
) -> ClientPlan:
    user = rng.randint(1, 2)
    # Mostly what it may read; a run of somebody else looks like none.
    names = [name for name, owner, is_org in runs if owner == user or is_org or rng.random() < 0.1]
    names += [*apps, f"user-{user}-runs", "org-runs"]
    if rng.random() < 0.05:
        names.append("no-run")
    chosen = rng.sample(names, min(len(names), rng.randint(1, 3)))
    if runs and not any(name.startswith("run-") for name in chosen) and names[0].startswith("run-"):
        chosen.append(names[0])
    words = ("saved", "saved", "saved", "beginning", "earliest", "now")
    follows = tuple((name, rng.choice(words)) for name in chosen)
    late = rng.random() < 0.3
    return ClientPlan(
        f"client-{number}", user, follows, rng.uniform(0.3, 8.0) if late else rng.uniform(0.1, 1.0)
    )


def _draw_node_limits(rng: Random) -> dict[str, object]:
    """Return limits under which every bound of a node is met now and then."""
    chunk = rng.choice((600, 1200, 4 * KIB, 16 * KIB))
    limits: dict[str, object] = {
        "window_max_frames": rng.choice((2, 4, 8, 16, 64)),
        "window_max_bytes": rng.choice((1 * KIB, 4 * KIB, 16 * KIB)),
        "windows_max_bytes": rng.choice((2 * KIB, 8 * KIB, 64 * KIB)),
        "shared_ranges_max_bytes": rng.choice((1 * KIB, 8 * KIB)),
        "page_max_frames": rng.choice((1, 3, 7, 20, 64)),
        "page_max_bytes": rng.choice((600, 2 * KIB, 8 * KIB)),
        "pages_max_bytes": rng.choice((2 * KIB, 8 * KIB, 32 * KIB)),
        "in_flight_max_bytes": rng.choice((2 * KIB, 8 * KIB, 64 * KIB)),
        "journal_readers_max": rng.randint(1, 3),
        "held_records_max": rng.choice((1, 2, 4, 16)),
        "held_max_bytes": rng.choice((600, 2 * KIB, 16 * KIB)),
        "inbox_max_bytes": rng.choice((1 * KIB, 4 * KIB, 64 * KIB)),
        "chunk_max_bytes": chunk,
        "drr_quantum_bytes": rng.choice((chunk // 4, chunk)),
        "send_buffer_bytes": rng.choice((256, 1 * KIB, 4 * KIB, 16 * KIB)),
        "control_lane_max_messages": rng.choice((16, 64)),
        "heartbeat_interval_s": rng.choice((1.0, 2.0, 5.0)),
        "dead_after_s": rng.choice((6.0, 10.0, 15.0)),
        "write_stall_timeout_s": rng.choice((2.0, 4.0, 10.0)),
        "lagging_after_warm_s": rng.choice((0.2, 1.0)),
        "release_after_warm_s": rng.choice((1.0, 3.0, 10.0)),
        "slow_rate_window_s": rng.choice((1.0, 3.0)),
        "topic_linger_s": rng.choice((0.3, 2.0, 10.0)),
        "revocation_poll_interval_s": rng.choice((1.0, 3.0, 5.0)),
        "drain_timeout_s": rng.choice((1.0, 3.0, 6.0)),
        "hello_timeout_s": rng.choice((2.0, 5.0)),
        "admission_per_s": rng.choice((3.0, 10.0, 250.0)),
        "admission_burst": rng.choice((2, 10, 250)),
        "handshakes_max": rng.choice((1, 3, 64)),
        "fanout_quantum_sends": rng.choice((1, 2, 512)),
    }
    if rng.random() < 0.25:
        limits["replay_budget_events"] = {"run_events": rng.choice((5, 20, 60))}
    return limits


def _draw_runtime_limits(rng: Random) -> dict[str, int]:
    return {
        "batch_events_max": rng.choice((1, 4, 16, 512)),
        # At least one chunk of a stream: what never fits is never taken.
        "inbox_requests_max": rng.choice((12, 30, 2_048)),
        "relay_bytes_max": rng.choice((600, 4 * KIB, 64 * KIB)),
        "commit_deadline_s": rng.choice((2, 5, 10)),
    }


def _draw_steps(rng: Random, plan: Plan) -> tuple[Step, ...]:
    targets = {
        "topic": [name for name, _, _ in plan.runs] + list(plan.apps),
        "run": [name for name, _, _ in plan.runs],
        "client": [client.name for client in plan.clients],
        "node": [f"node-{number}" for number in range(1, plan.nodes + 1)],
        "runtime": ["runtime-1", "runtime-2"],
        "place": ["runtime-1", *(f"node-{number}" for number in range(1, plan.nodes + 1))],
        "": [""],
    }
    steps: list[Step] = []

    def add(kind: str, target: str, at_s: float, lasts_s: float = 0.0) -> None:
        who = rng.choice(targets[target])
        steps.append(Step(len(steps) + 1, at_s, kind, who, rng.random(), lasts_s, rng.getrandbits(32)))

    # Each seed has its own favourites, so that kinds meet themselves, too.
    appends = [action for action in ACTIONS if action.kind.startswith("append.")]
    others = [action for action in ACTIONS if not action.kind.startswith("append.")]
    for _ in range(rng.randint(12, 45)):
        action = rng.choices(appends, [each.weight for each in appends])[0]
        add(action.kind, action.target, rng.uniform(0.3, plan.faults_end_s))
    for _ in range(rng.randint(0, 8)):
        action = rng.choices(others, [each.weight for each in others])[0]
        add(action.kind, action.target, rng.uniform(QUIET_S, plan.faults_end_s))
    favourites = rng.sample(FAULTS, rng.randint(0, 6))
    for _ in range(rng.choice((0, 2, 4, 6, 8, 10, 12)) if favourites else 0):
        fault = rng.choice(favourites)
        at_s = rng.uniform(QUIET_S, plan.faults_end_s - 0.2)
        lasts_s = min(rng.choice((0.3, 1.0, 3.0, 6.0)), plan.faults_end_s - at_s)
        add(fault.kind, fault.target, at_s, lasts_s)
    return tuple(sorted(steps, key=lambda step: (step.at_s, step.number)))
