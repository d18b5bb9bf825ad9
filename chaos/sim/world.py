"""One seed from its first second to its verdict: a database, a broker, control, runtimes, nodes, clients.

    world = World(make_plan(seed)); verdict = run_seeded(seed, world.run)

Faults stop at the plan's time; from then on everything must converge within `CONVERGE_S`, and be prompt
again (`probes.py`). Nothing above the ports knows that it is simulated.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from chaos.sim.client_process import ClientProgram
from chaos.sim.control_model import ControlModel
from chaos.sim.convergence import what_lags
from chaos.sim.driver_model import FanoutModel
from chaos.sim.faults import Faults, Switches
from chaos.sim.gates import PortGate, WallClock
from chaos.sim.journal_model import JournalModel
from chaos.sim.measures import Measures
from chaos.sim.network import Network
from chaos.sim.node_process import NodeProgram
from chaos.sim.plan import QUIET_S
from chaos.sim.probes import probe
from chaos.sim.processes import Place
from chaos.sim.publisher import Producers
from chaos.sim.reports import Findings, collect_errors
from chaos.sim.runtime_front import RuntimeFront
from chaos.sim.runtime_process import RuntimeProgram, make_ids
from chaos.sim.trace import Trace
from khala.core.classification import HeadRights
from khala.core.limits import NodeLimits
from khala_contracts.topics import TopicName, format_org_runs, format_run_events, format_user_runs
from runtime.core.limits import RuntimeLimits

if TYPE_CHECKING:
    from chaos.sim.control_model import SimulatedSession
    from chaos.sim.plan import Plan
    from chaos.sim.steps import Step

__all__ = ["World"]

# From the end of the faults until every client stands at every head that it may read. A client that was
# refused for long waits up to 30 s (SPEC section 6), a relay 5 s, a projector 10 s.
CONVERGE_S: Final = 90.0
_LOOK_S: Final = 0.25


class World:
    """Everything that one plan names, in the process that runs it."""

    def __init__(self, plan: Plan, *, keeps_lines: bool = False) -> None:
        """Build it; `run` lives it."""
        self.plan = plan
        self.trace = Trace(keeps_lines=keeps_lines)
        self.findings = Findings()
        # Action or fault, what else was on, phase: how often.
        self.coverage: Counter[tuple[str, str, str]] = Counter()
        self.switches = switches = Switches()
        self.journal = JournalModel(rng=self._rng("journal"), faults=switches.database)
        self.fanout = FanoutModel(rng=self._rng("fanout"), faults=switches.broker)
        self.control = ControlModel(
            rng=self._rng("control"), faults=switches.control, find_rights=self._find_rights
        )
        self.control.on_revoked = self.fanout.carry_hint
        self.network = Network(rng=self._rng("network"), faults=switches.network)
        self.front = RuntimeFront(rng=self._rng("front"), faults=switches.front, findings=self.findings)
        gate = PortGate("world", "world", "world", WallClock(), self.trace.note)
        self._ids = make_ids(gate, f"{plan.seed}:world")
        self.places: dict[str, Place] = {}
        self.nodes: dict[str, NodeProgram] = {}
        self.runtimes: dict[str, RuntimeProgram] = {}
        self.clients: dict[str, ClientProgram] = {}
        self.measures = Measures(self.nodes)
        self.producers: Producers
        self.faults: Faults
        self.users: dict[int, str] = {}
        self.org_id = ""
        # Virtual time at which everything had converged; None if it has not.
        self.converged_at: float | None = None
        self.ended_at = 0.0

    def _rng(self, name: str) -> Random:
        return Random(f"{self.plan.seed}:{name}")

    def _find_rights(self, topic: TopicName) -> HeadRights | None:
        row = self.journal.tables.topics.get(topic)
        return None if row is None else HeadRights(row.owner_user_id, row.org_id)

    # -- life ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live the plan, converge, probe; what was found is in `findings` and the models."""
        collect_errors(partial(self.findings.add, "log"))
        self.users = {1: self._ids.new("usr"), 2: self._ids.new("usr")}
        self.org_id = self._ids.new("org")
        for user_id in self.users.values():
            self.control.join(self.org_id, user_id)
        async with trio.open_nursery() as nursery:
            self._build(nursery)
            nursery.start_soon(self.measures.watch)
            for step in self.plan.steps:
                nursery.start_soon(self._at, step)
            await trio.sleep_until(self.plan.faults_end_s)
            self.trace.note("world", "faults are over")
            await self._converge()
            if self.converged_at is not None:
                await probe(self)
            self.ended_at = trio.current_time()
            for place in self.places.values():
                place.end()
            nursery.cancel_scope.cancel()

    def _build(self, nursery: trio.Nursery) -> None:
        plan = self.plan
        self.producers = Producers(
            self.front,
            users=self.users,
            org_id=self.org_id,
            ids=self._ids,
            rng=self._rng("producers"),
            note=self.trace.note,
            findings=self.findings,
        )
        runtime_limits = RuntimeLimits(**plan.runtime_limits)
        node_limits = NodeLimits(**plan.node_limits)  # type: ignore[arg-type]
        for name in ("runtime-1", "runtime-2"):
            program = self.runtimes[name] = RuntimeProgram(
                seed=plan.seed,
                limits=runtime_limits,
                journal=self.journal,
                fanout=self.fanout,
                front=self.front,
                findings=self.findings,
            )
            self._add_place(name, "runtime", program, nursery)
        for number in range(1, plan.nodes + 1):
            node = self.nodes[f"node-{number}"] = NodeProgram(
                seed=plan.seed,
                limits=node_limits,
                journal=self.journal,
                fanout=self.fanout,
                control=self.control,
                network=self.network,
                findings=self.findings,
            )
            self._add_place(f"node-{number}", "node", node, nursery)
        for number, wanted in enumerate(plan.clients, start=1):
            client = self.clients[wanted.name] = ClientProgram(
                wanted.name,
                seed=plan.seed,
                user_id=self.users[wanted.user],
                device_id=f"dev_{number:08d}",
                control=self.control,
                network=self.network,
                findings=self.findings,
                token_ttl_s=plan.token_ttl_s,
                sign_in=self._sign_in,
            )
            self._add_place(wanted.name, "client", client, nursery)
            nursery.start_soon(self._start_client, wanted.name, wanted.starts_at_s)
            for alias, word in wanted.follows:
                nursery.start_soon(self._follow, client, alias, word)
        self.faults = Faults(
            self.switches,
            places=self.places,
            journal=self.journal,
            fanout=self.fanout,
            network=self.network,
            note=self.trace.note,
        )
        for name, place in self.places.items():
            if place.role == "node" or name == "runtime-1":
                place.start()
        for name in plan.apps:
            self.producers.add_app(name)
        for name, owner, is_org in plan.runs:
            nursery.start_soon(partial(self.producers.make_run, name, owner, is_org=is_org))

    def _add_place(
        self,
        name: str,
        role: str,
        program: RuntimeProgram | NodeProgram | ClientProgram,
        nursery: trio.Nursery,
    ) -> None:
        self.places[name] = Place(
            name, role, program, nursery=nursery, note=self.trace.note, failed=self._note_failure
        )

    def _note_failure(self, name: str, error: BaseException) -> None:
        self.findings.add(name, f"the process failed: {error!r}", error)

    def _sign_in(self, user_id: str, device_id: str) -> SimulatedSession:
        return self.control.sign_in(self._ids.new("ses"), user_id, device_id)

    async def _start_client(self, name: str, at_s: float) -> None:
        await trio.sleep_until(at_s)
        self.places[name].start()

    async def _follow(self, client: ClientProgram, alias: str, word: str) -> None:
        """Let a client follow a topic as soon as that has a name."""
        while (topic := self.topic_of(alias)) is None:  # noqa: ASYNC110 - a run is made at some time
            await trio.sleep(0.2)
        client.follow(alias, topic, word)

    def topic_of(self, alias: str) -> TopicName | None:
        """Return the topic that a plan means, None while there is none."""
        match alias.split("-"):
            case ["user", number, "runs"]:
                return format_user_runs(self.users[int(number)])
            case ["org", "runs"]:
                return format_org_runs(self.org_id)
            case ["no", "run"]:
                return format_run_events(f"run_{'0' * 26}")
            case _:
                target = self.producers.targets.get(alias)
                return None if target is None else target.topic

    # -- steps -------------------------------------------------------------------------------------------

    async def _at(self, step: Step) -> None:
        await trio.sleep_until(step.at_s)
        phase = "quiet" if step.at_s < QUIET_S else "faults"
        for other in self.faults.active or ("none",):
            self.coverage[step.kind, other, phase] += 1
        group = step.kind.partition(".")[0]
        if group == "floor":
            await self._move_floor(step)
        elif group in {"client", "session", "member"} or step.kind in {"node.drain", "runtime.leave"}:
            self._act(step)
        elif group in {"append", "run"}:
            await self.producers.carry_out(step)
        else:
            await self.faults.carry_out(step)

    def _act(self, step: Step) -> None:
        self.trace.note("world", "acts", kind=step.kind, who=step.who)
        match step.kind:
            case "node.drain":
                self.nodes[step.who].leave.set()
            case "runtime.leave":
                self.runtimes[step.who].leave.set()
            case "session.revoke":
                self.control.end_session(self.clients[step.who].session.session_id)
            case "member.leave":
                self.control.leave(self.org_id, self.clients[step.who].user_id)
            case _:
                self._act_on_client(step)

    async def _move_floor(self, step: Step) -> None:
        """Move a floor; sometimes right before, at or behind the frame that a client needs when it is back."""
        topic, rng = self.topic_of(step.who), Random(step.seed)
        followers = [name for name, client in self.clients.items() if topic in client.followed]
        is_away = bool(followers) and rng.random() < 0.6
        place = self.places[rng.choice(followers)] if is_away else None
        if place is not None:
            place.kill()
            await trio.sleep(rng.uniform(0.2, 2.0))
        row = None if topic is None else self.journal.tables.topics.get(topic)
        if topic is not None and row is not None:
            floor_seq = row.floor_seq + int(step.amount * (row.head_seq + 1 - row.floor_seq))
            cursor = None if place is None else self.clients[place.name].kept.load_cursor(topic)
            if cursor is not None:
                floor_seq = cursor.seq + rng.choice((1, 2, 2, 3))
            self.journal.move_floor(topic, floor_seq, "retention_expired")
        if place is not None:
            place.start()

    def _act_on_client(self, step: Step) -> None:
        client, place = self.clients[step.who], self.places[step.who]
        rng = Random(step.seed)
        topics = list(client.followed)
        match step.kind:
            case "client.crash" | "client.wipe":
                place.kill()
                if step.kind == "client.wipe":
                    client.wipe()
                place.start_in(rng.uniform(0.0, 2.0))
            case "client.leave" | "client.again" if topics:
                topic = rng.choice(topics)
                alias = client.followed[topic].alias
                client.leave(topic)
                if step.kind == "client.again":
                    word = rng.choice(("saved", "beginning", "earliest", "now"))
                    client.follow(alias, topic, word)
            case "client.slow":
                client.pace.read_max_bytes, client.pace.read_pause_s = 200, 0.02 + 0.2 * step.amount
            case "client.stop":
                client.pace.stop()
            case _:
                return

    # -- the end -----------------------------------------------------------------------------------------

    async def _converge(self) -> None:
        for client in self.clients.values():
            client.pace.read_max_bytes, client.pace.read_pause_s = 1 << 16, 0.0
            client.pace.go()
        for name, place in self.places.items():
            if place.role != "runtime" or name == "runtime-1":
                place.start()
        give_up_at = trio.current_time() + CONVERGE_S
        while any(what_lags(self)):
            if trio.current_time() >= give_up_at:
                for what in what_lags(self):
                    self.findings.add("world", f"has not converged: {what}")
                return
            await trio.sleep(_LOOK_S)
        self.converged_at = trio.current_time()
        self.trace.note("world", "has converged")
