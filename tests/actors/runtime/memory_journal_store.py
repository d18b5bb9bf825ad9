"""The simulation's store for tests of actors: no delay, no chance, and a script of harm.

What it keeps is `chaos/sim/journal_model.py`, which passes the suite that PostgreSQL passes. It is slow, loses
connections before or after the commit, is out of reach or superseded exactly when a test says so.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import attrs
import trio

from chaos.sim.database_session import CommitFate
from chaos.sim.gates import DatabaseFaults, Latency, PortGate, WallClock, wall_now
from chaos.sim.journal_model import JournalModel, ModelStore
from khala_service.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala_contracts.topics import TopicName
    from runtime.core.batch_commit import BatchCommit


def open_gate(name: str = "test", role: str = "runtime") -> PortGate:
    """Return the gate of a process that nothing happens to."""
    return PortGate(name, role, name, WallClock(), _unnoted)


def calm_faults() -> DatabaseFaults:
    """Return a database without a delay and without trouble."""
    return DatabaseFaults(statement=Latency(), commit=Latency(), linger=Latency())


@attrs.define
class MemoryJournalStore(ModelStore):
    """See JournalStore.

    Attributes:
        commit_s: How long a transaction takes.
        lost_before: So many next transactions lose their connection before COMMIT is sent.
        lost_after: So many next transactions commit and lose the answer.
        unreachable_until: No connection can be opened before this time.
        held_topics: Heads that somebody else has locked: a transaction that needs one times out.
        attempts: Transactions of writers so far.
    """

    commit_s: float = 0.0
    lost_before: int = 0
    lost_after: int = 0
    unreachable_until: float = 0.0
    held_topics: set[str] = attrs.field(factory=set)
    attempts: int = 0
    # Called right after a commit, before its answer is lost or given.
    after_commit: Callable[[], object] | None = None
    is_migrated: bool = True
    _clock_offset_s: float = 0.0

    def __attrs_post_init__(self) -> None:
        model = JournalModel(
            rng=Random(0), faults=calm_faults(), wall=lambda: wall_now() + self._clock_offset_s
        )
        super().__init__(model, open_gate())
        self.database.is_away = lambda _: trio.current_time() < self.unreachable_until
        self.database.draw_fate = self._fate

    @property
    def commits(self) -> list[int]:
        """Events of each committed transaction, in commit order."""
        return self.model.commits

    async def commit(self, batch: BatchCommit, generation: int) -> None:
        self.attempts += 1
        await trio.sleep(self.commit_s)
        if self.held_topics & {target.topic for target in batch.lock_call.targets}:
            raise Unavailable("database_lock_timeout")
        before = len(self.commits)
        try:
            await super().commit(batch, generation)
        finally:
            if self.after_commit is not None and len(self.commits) > before:
                self.after_commit()

    async def check(self) -> str | None:
        trouble = await super().check()
        return trouble if self.is_migrated else "migration_required"

    def advance(self, seconds: float) -> None:
        """Let the database's clock run on."""
        self._clock_offset_s += seconds

    def supersede(self) -> None:
        """Let another runtime take over."""
        self.tables.generation += 1

    def entries(self, topic: TopicName) -> list[bytes]:
        """Return the journal's entries of a topic."""
        return self.tables.topics[topic].entries

    def key_count(self) -> int:
        """Return how many keys are remembered."""
        return len(self.tables.keys)

    def _fate(self) -> CommitFate:
        if self.lost_before:
            self.lost_before -= 1
            return CommitFate.LOST_BEFORE
        if self.lost_after:
            self.lost_after -= 1
            return CommitFate.LOST_AFTER
        return CommitFate.ANSWERED


def _unnoted(who: str, what: str, /, **facts: object) -> None:
    """Write nothing down."""
    del who, what, facts
