"""What seldom changes about runs, kept so that an append needs no extra read.

Shared by RunCommands, which asks, and RunTransfers, which tells when a run has another owner: this process
is the only one that writes, so nobody else can change what is kept here (org, topic and creation time never
change). A run that is not there is not remembered: it may exist a moment later.
Invariant: at most RUNS_MAX entries; the one not used for longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from runtime.core.commands import RunFacts
    from runtime.ports import JournalStore

__all__ = ["RUNS_MAX", "KnownRun", "RunDirectory"]

# About 1 KiB each. A miss costs one read of 0.5 ms.
RUNS_MAX: Final = 4_096


@attrs.frozen
class KnownRun:
    """A run without what every command changes."""

    facts: RunFacts
    created_at_us: int


class RunDirectory:
    """A bounded memory in front of JournalStore.read_run."""

    def __init__(self, store: JournalStore, *, capacity: int = RUNS_MAX) -> None:
        self._store = store
        self._capacity = capacity
        self._runs: OrderedDict[str, KnownRun] = OrderedDict()
        # Grows with each `forget`: what was read before is then not kept.
        self._generation = 0

    @property
    def run_count(self) -> int:
        """How many runs are remembered."""
        return len(self._runs)

    async def find(self, run_id: str) -> KnownRun | None:
        """Return a run, None if there is none.

        Raises:
            Unavailable: The run is not remembered and the database does not answer.
        """
        known = self._runs.get(run_id)
        if known is None:
            generation = self._generation
            record = await self._store.read_run(run_id)
            if record is None:
                return None
            known = KnownRun(record.facts, record.created_at_us)
            # Race: a transfer while the read is in flight.
            #   find:      read_run() .................... the former owner arrives
            #   transfer:             COMMIT, forget()
            # Kept, the former owner would stay the owner here for as long as the run is written.
            if generation != self._generation:
                return known
            self._runs[run_id] = known
            if len(self._runs) > self._capacity:
                self._runs.popitem(last=False)
        self._runs.move_to_end(run_id)
        return known

    def forget(self, run_id: str) -> None:
        """Read the run again when it is asked for next: it may have another owner."""
        self._generation += 1
        self._runs.pop(run_id, None)
