"""What a seed has shown: the checker's verdict over everything that the world's models and clients hold.

One judge for simulation, tests and drills: chaos/checker.py. What only the world can know (whether an ending
was justified, whether everything converged) was noted by those who saw it (`Findings`) or is judged here.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import attrs

from chaos.checker import CloseLine, Evidence, FaultWindow, History, Journal, Line, Right, judge
from chaos.sim.gates import WALL_START_S
from chaos.sim.kernel import run_seeded
from chaos.sim.measures import bounds_of
from chaos.sim.plan import make_plan
from chaos.sim.publisher import KIND
from chaos.sim.world import World
from khala.core.limits import NodeLimits
from khala_client.errors import Forbidden, ReauthRequired, StaleCursor
from khala_contracts.topics import parse_topic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chaos.sim.client_process import ClientProgram, Ended
    from chaos.sim.plan import Plan

__all__ = ["Verdict", "run_plan", "run_seed"]

# What may take a connection away without a word.
_CUTS: Final = ("network.", "node.kill", "node.dies", "node.drain", "client.", "clock.")
_ABNORMAL: Final = 1006
_JUDGED_TO_THE_HEAD: Final = frozenset({"run_events", "app"})


@attrs.frozen
class Verdict:
    """The outcome of one seed.

    Attributes:
        digest: Hash of the whole trace.
        findings: Everything that was not as promised; empty: all was.
        details: For people: tracebacks.
        coverage: (step, fault that was on, phase) and how often.
        virtual_s: How long the world lived.
    """

    seed: int
    digest: str
    findings: tuple[str, ...]
    details: tuple[str, ...]
    coverage: Mapping[tuple[str, str, str], int]
    events: int
    notes: int
    virtual_s: float
    lines: tuple[str, ...] = attrs.field(default=(), repr=False)

    @property
    def is_good(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def run_seed(seed: int, *, keeps_lines: bool = False) -> Verdict:
    """Run the world of a seed and judge it."""
    return run_plan(make_plan(seed), keeps_lines=keeps_lines)


def run_plan(plan: Plan, *, keeps_lines: bool = False) -> Verdict:
    """Run a world and judge it; whatever it raises is a finding."""
    world = World(plan, keeps_lines=keeps_lines)
    try:
        run_seeded(plan.seed, world.run)
    except Exception as error:  # noqa: BLE001 - a world that breaks is a finding with its seed
        world.findings.add("world", f"broke: {error!r}", error)
    findings = [*world.findings.lines, *(str(found) for found in judge(_evidence(world))), *_endings(world)]
    return Verdict(
        plan.seed,
        world.trace.digest,
        tuple(dict.fromkeys(findings)),
        tuple(world.findings.details),
        world.coverage,
        sum(len(row.events) for row in world.journal.tables.topics.values()),
        world.trace.count,
        world.ended_at,
        tuple(world.trace.lines),
    )


def _evidence(world: World) -> Evidence:
    journal = Journal({topic: lines for topic, lines in world.journal.lines().items() if lines})
    windows = [
        FaultWindow(WALL_START_S + step.at_s, float("inf"))
        for step in world.plan.steps
        if step.kind.startswith(_CUTS)
    ]
    return Evidence(
        journal=journal,
        histories=[
            history for name, client in world.clients.items() for history in _histories(world, name, client)
        ],
        acks={"producers": world.producers.acks},
        keyed_kind=KIND,
        rights=list(_rights(world)),
        closes=[
            CloseLine(
                close.client,
                f"socket {close.connection}",
                _ABNORMAL if close.code is None else close.code,
                WALL_START_S + close.at_s,
                close.error,
                has_go_away=close.has_go_away,
                is_by_client=close.is_by_client,
            )
            for client in world.clients.values()
            for close in client.closes
        ],
        faults=windows,
        samples=world.measures.samples,
        bounds=_bounds(world),
    )


def _bounds(world: World) -> dict[str, float]:
    measured = {sample.name for sample in world.measures.samples}
    bounds = bounds_of(NodeLimits(**world.plan.node_limits))  # type: ignore[arg-type]
    # A world may end before a client has come.
    return {name: most for name, most in bounds.items() if name in measured}


def _histories(world: World, name: str, client: ClientProgram) -> Iterator[History]:
    for topic in world.journal.tables.topics:
        lines = [
            Line(
                event.topic,
                event.seq,
                event.kind,
                event.schema_version,
                hashlib.sha256(event.payload).digest(),
                event.chain,
            )
            for event in client.kept.read_history(topic)
        ]
        followed = client.followed.get(topic)
        is_complete = (
            world.converged_at is not None
            and followed is not None
            and followed.is_live
            and not followed.is_forbidden
            # Lists go on for a moment after the last event.
            and parse_topic(topic).topic_class.name in _JUDGED_TO_THE_HEAD
        )
        if lines or is_complete:
            yield History(source=name, lines=lines, is_complete=is_complete, after_seq=None, topics=[topic])


def _rights(world: World) -> Iterator[Right]:
    """Yield what each client was ever granted a token for."""
    for name, client in world.clients.items():
        for topic in world.control.grants.get(client.user_id, {}):
            yield Right(name, topic)


def _endings(world: World) -> Iterator[str]:
    """Judge the errors with which clients ended subscriptions."""
    budgets = world.plan.node_limits.get("replay_budget_events")
    for client in world.clients.values():
        for ended in client.ended:
            if not _is_justified(world, ended, has_budget=budgets is not None):
                yield f"{ended.client}: {ended.topic} ended at {ended.position}: {ended.error}"


def _is_justified(world: World, ended: Ended, *, has_budget: bool) -> bool:
    row = world.journal.tables.topics.get(ended.topic)
    floor_seq = 1 if row is None else row.floor_seq
    match ended.error:
        case StaleCursor(reason="retention_expired") as stale:
            # Stale by retention iff cursor.seq + 1 < floor_seq.
            return ended.position + 1 < stale.floor_seq <= floor_seq
        case StaleCursor(reason="replay_budget_exceeded"):
            return has_budget
        case Forbidden():
            user_id = world.clients[ended.client].user_id
            return row is None or not world.control.may_read(user_id, ended.topic)
        case ReauthRequired():
            return any(
                step.kind == "session.revoke" and step.who == ended.client and step.at_s <= ended.at_s
                for step in world.plan.steps
            )
        case _:
            return False
