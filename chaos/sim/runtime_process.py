"""One runtime process: the product's actors over the models, composed as runtime/app.py does it.

Without the adapters (HTTP, PostgreSQL, metrics): runtime_front.py and journal_model.py stand for them.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from chaos.sim.reports import ProjectionReport, RuntimeReport
from chaos.sim.runtime_front import RuntimeApi
from khala_contracts.fanout_records import RecordSigner
from khala_contracts.topics import TOPIC_CLASSES
from khala_service.errors import DatabaseError, SerializationTrouble, Unavailable
from khala_service.identifiers import SystemIds, UuidV7Source
from khala_service.supervision import supervise
from runtime.actors.app_topic_commands import AppTopicCommands
from runtime.actors.appender import Appender
from runtime.actors.command_path import CommandPath
from runtime.actors.generation_watch import GenerationWatch
from runtime.actors.head_news import tell_heads
from runtime.actors.key_cleaner import KeyCleaner
from runtime.actors.projector import Projector
from runtime.actors.relay import Relay
from runtime.actors.run_commands import RunCommands
from runtime.actors.run_directory import RunDirectory
from runtime.core.rate_limit import RateLimiter, rates_of

if TYPE_CHECKING:
    from chaos.sim.driver_model import FanoutModel
    from chaos.sim.gates import PortGate
    from chaos.sim.journal_model import JournalModel, ModelStore
    from chaos.sim.reports import Findings
    from chaos.sim.runtime_front import RuntimeFront
    from khala_service.supervision import Service
    from runtime.core.limits import RuntimeLimits
    from runtime.ports import Authority

__all__ = ["FANOUT_KEY", "FANOUT_KEY_ID", "RuntimeProgram", "make_ids"]

FANOUT_KEY_ID: Final = "sim"
FANOUT_KEY: Final = bytes(range(32))
# As runtime/app.py: how often a starting runtime asks again for its database.
_START_RETRY_S: Final = 0.5


def make_ids(gate: PortGate, seed: str) -> SystemIds:
    """Return the product's source of ids on the process's own clock and a generator of its own."""
    rng = Random(seed)
    return SystemIds(
        UuidV7Source(time_ns=lambda: int(gate.clock.now() * 1_000_000_000), random_bytes=rng.randbytes)
    )


class RuntimeProgram:
    """What a runtime's place runs."""

    def __init__(
        self,
        *,
        seed: int,
        limits: RuntimeLimits,
        journal: JournalModel,
        fanout: FanoutModel,
        front: RuntimeFront,
        findings: Findings,
    ) -> None:
        """Serve commands at ``front``."""
        self._seed = seed
        self._limits = limits
        self._journal = journal
        self._fanout = fanout
        self._front = front
        self._findings = findings
        self.leave = trio.Event()

    async def __call__(self, gate: PortGate) -> None:
        """Serve until killed or asked to leave; see Program."""
        self.leave = leave = trio.Event()
        store = self._journal.open_store(gate)
        report = RuntimeReport(gate, self._findings)
        ids = make_ids(gate, f"{self._seed}:{gate.name}")
        limiter = RateLimiter(rates_of(TOPIC_CLASSES, {}))
        relay = Relay(
            self._fanout.open_driver(gate),
            RecordSigner(FANOUT_KEY_ID, FANOUT_KEY),
            clock=gate.clock,
            metrics=report,
            bytes_max=self._limits.relay_bytes_max,
        )
        appender = Appender(store, relay, limits=self._limits, limiter=limiter, metrics=report)
        projector = Projector(
            store,
            relay,
            ids=ids,
            metrics=ProjectionReport(gate, self._findings),
            supersede=appender.supersede,
            tell_heads=partial(tell_heads, store, relay),
        )
        relay.listen(projector)
        path = CommandPath(
            store=store, appender=appender, limiter=limiter, limits=self._limits, ids=ids, metrics=report
        )
        runs = RunCommands(path, directory=RunDirectory(store), limits=self._limits, ids=ids)
        authority = await self._wait_authority(gate, store, ids)
        gate.note(gate.name, "has authority", generation=authority.generation, lineage=authority.lineage)
        async with trio.open_nursery() as services:
            for kind, task in _tasks(store, relay, appender, projector, authority).items():
                await services.start(partial(supervise, kind, task, restarted=report.task_restarted))
            async with trio.open_nursery() as handlers:
                close = self._front.open(RuntimeApi(gate, handlers, runs, AppTopicCommands(path)))
                await leave.wait()
                close()
            services.cancel_scope.cancel()

    @staticmethod
    async def _wait_authority(gate: PortGate, store: ModelStore, ids: SystemIds) -> Authority:
        while True:
            try:
                if await store.check() is None:
                    return await store.take_authority(holder=gate.name, lineage_candidate=ids.new("lin"))
            except (Unavailable, DatabaseError, SerializationTrouble):
                gate.note(gate.name, "waits for the database")
            await trio.sleep(_START_RETRY_S)


def _tasks(
    store: ModelStore, relay: Relay, appender: Appender, projector: Projector, authority: Authority
) -> dict[str, Service]:
    return {
        "relay": relay.serve,
        "appender": partial(appender.serve, authority),
        "generation_watch": GenerationWatch(store, appender, authority).serve,
        "key_cleaner": KeyCleaner(store).serve,
        "projector": partial(projector.serve, authority),
    }
