"""One node process: khala.app.run_engine over the models, with what `serve_node` puts around it.

Its clients come from the simulated network; WebSocket adapter, connections, topics, sweeper and
evictions are the product's.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.sim.runtime_process import FANOUT_KEY, FANOUT_KEY_ID, make_ids
from khala.actors.access_audit import AccessAudit
from khala.actors.evictions import Evictions
from khala.actors.start_gate import StartGate
from khala.actors.supervision import Supervisor
from khala.adapters.node_log import NodeLog
from khala.app import NodeParts, run_engine
from khala.core.counters import NodeCounters

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chaos.sim.control_model import ControlModel
    from chaos.sim.driver_model import FanoutModel
    from chaos.sim.gates import PortGate
    from chaos.sim.journal_model import JournalModel
    from chaos.sim.network import Network
    from chaos.sim.reports import Findings
    from khala.actors.connection import Connection
    from khala.actors.registry import TopicRegistry
    from khala.core.limits import NodeLimits

__all__ = ["NodeProgram"]


class _WatchedEvictions(Evictions):
    """Lets the world look at the connections, which only the engine knows."""

    watched: Iterable[Connection] = ()

    def watch(self, connections: Iterable[Connection]) -> None:
        """See Evictions.watch."""
        super().watch(connections)
        self.watched = connections


@attrs.frozen(eq=False)
class LivingNode:
    """What the world may look at while a node serves."""

    gate: PortGate
    counters: NodeCounters
    topics: TopicRegistry
    evictions: _WatchedEvictions


# How a connection never ends between two that speak the protocol: the client met bytes, or a message, that it does not
# understand, or the node did, or a bug. Codes are those with which the client closed.
_VIOLATIONS: Final = frozenset(
    {"1002", "1007", "protocol_error", "malformed_message", "framing_error", "internal"}
)


class NodeProgram:
    """What a node's place runs."""

    def __init__(
        self,
        *,
        seed: int,
        limits: NodeLimits,
        journal: JournalModel,
        fanout: FanoutModel,
        control: ControlModel,
        network: Network,
        findings: Findings,
    ) -> None:
        """Serve whoever the network brings."""
        self._seed = seed
        self._limits = limits
        self._journal = journal
        self._fanout = fanout
        self._control = control
        self._network = network
        self._findings = findings
        self.leave = trio.Event()
        self.living: LivingNode | None = None

    async def __call__(self, gate: PortGate) -> None:
        """Serve until killed or asked to leave; see Program."""
        self.leave = leave = trio.Event()
        limits, counters = attrs.evolve(self._limits), NodeCounters()
        rng = Random(f"{self._seed}:{gate.name}")
        control = self._control.open_client(gate)
        supervisor = Supervisor(counters, NodeLog())
        reader = self._journal.open_reader(gate, limits)
        evictions = _WatchedEvictions(control, limits=limits, counters=counters, clock=gate.clock, rng=rng)
        ids = make_ids(gate, f"{self._seed}:{gate.name}")
        audit = AccessAudit(control, limits=limits, counters=counters, clock=gate.clock, ids=ids, rng=rng)
        start_gate = StartGate({"revocations": evictions.check}, rng=rng)
        parts = NodeParts(
            journal=reader,
            tokens=self._control.open_tokens(gate),
            control=control,
            driver=self._fanout.open_driver(gate),
            fanout_keys={FANOUT_KEY_ID: FANOUT_KEY},
            clock=gate.clock,
            rng=rng,
            ids=ids,
            gate=start_gate,
            evictions=evictions,
            audit=audit,
        )
        acceptor = self._network.listen(gate, send_buffer_bytes=limits.send_buffer_bytes)
        try:
            async with trio.open_nursery() as services:
                for kind, task in {
                    "revocation_feed": evictions.feed.run,
                    "access_audit": audit.run,
                    "start_gate": start_gate.run,
                }.items():
                    services.start_soon(supervisor.run_restarted, kind, kind, task)
                async with trio.open_nursery() as engine:

                    async def serve(task_status: trio.TaskStatus[tuple[int, TopicRegistry]]) -> None:
                        await run_engine(
                            parts,
                            node_id=gate.name,
                            acceptor=acceptor,
                            limits=limits,
                            cors_origins=(),
                            counters=counters,
                            drain=leave,
                            task_status=task_status,
                        )

                    _, topics = await engine.start(serve)
                    self.living = LivingNode(gate, counters, topics, evictions)
                    gate.on_sever(self._forget)
                await audit.say_last_words()
                services.cancel_scope.cancel()
        finally:
            self._judge(gate, counters)

    def _forget(self) -> None:
        living = self.living
        self.living = None
        if living is not None:
            self._judge(living.gate, living.counters)

    def _judge(self, gate: PortGate, counters: NodeCounters) -> None:
        for kind, count in counters.task_restarts.items():
            self._findings.add(gate.name, f"{count} crashes of {kind}")
        counters.task_restarts.clear()
        for label in sorted(_VIOLATIONS & counters.closes.keys()):
            self._findings.add(gate.name, f"{counters.closes.pop(label)} connections ended as {label}")
