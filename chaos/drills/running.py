"""Runs drills one after the other, those that stand on the same system on one that is started once."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import attrs

from chaos.drills.reports import document_of
from chaos.drills.split_system import running_split_system
from chaos.drills.waiting import DrillFailed, FaultMissing
from chaos.faults.proxy_control import ProxyRefused
from chaos.faults.shim import ShimMissingError
from chaos.load.system_under_test import SystemFailedError
from chaos.transcripts import BrokenTranscriptError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from chaos.drills.catalog import Drill
    from chaos.drills.drill import DrillOptions
    from chaos.drills.split_system import SplitSystem
    from chaos.drills.system_setup import SystemSetup
    from chaos.load.svg_plots import Lines

__all__ = ["Done", "run_drills"]

_UNJUDGED = (DrillFailed, ProxyRefused, ShimMissingError, SystemFailedError, BrokenTranscriptError, OSError)


@attrs.frozen
class Done:
    """One drill that has been run.

    Attributes:
        name: Of the drill.
        document: What it found; None if it could not be judged.
        problem: Why it could not be judged; empty if it was.
        plots: For its report.
    """

    name: str
    document: Mapping[str, Any] | None
    problem: str = ""
    plots: tuple[Lines, ...] = ()

    @property
    def is_passed(self) -> bool:
        """Whether every promise was kept."""
        return self.document is not None and bool(self.document["is_passed"])


def run_drills(
    drills: Sequence[Drill], options: DrillOptions, *, words: Sequence[str], environment: Mapping[str, Any]
) -> Iterator[Done]:
    """Yield each drill when it has been run; ``words`` follow its name in the command of its report."""
    rest = list(drills)
    with _SharedSystem(options.folder) as shared:
        while rest:
            drill = rest.pop(0)
            is_shared = drill.system is not None and (
                shared.has(drill.system) or any(other.system == drill.system for other in rest)
            )
            began = time.monotonic()
            try:
                system = shared.take(drill.system) if is_shared and drill.system is not None else None
                folder = options.folder / drill.name
                folder.mkdir()
                outcome = drill.run(attrs.evolve(options, folder=folder, system=system))
            except _UNJUDGED as exc:
                if not isinstance(exc, FaultMissing):
                    # What it has left of the system is nothing for the next.
                    shared.close()
                yield Done(drill.name, None, f"{drill.name}: {exc} (files: {options.folder})")
                continue
            document = document_of(
                outcome,
                drill=drill.name,
                command=" ".join(["khala drill run", drill.name, *words]),
                date=time.strftime("%Y-%m-%d", time.gmtime()),
                seconds=time.monotonic() - began,
                environment=environment,
            )
            yield Done(drill.name, document, plots=outcome.plots)


class _SharedSystem:
    """At most one running system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held = ExitStack()
        self._setup: SystemSetup | None = None
        self._system: SplitSystem | None = None
        self._number = 0

    def __enter__(self) -> _SharedSystem:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def has(self, setup: SystemSetup) -> bool:
        return self._system is not None and self._setup == setup

    def take(self, setup: SystemSetup) -> SplitSystem:
        """Return the one that runs, or start one in place of another."""
        if self._system is None or self._setup != setup:
            self.close()
            self._number += 1
            folder = self._folder / f"system-{self._number}"
            folder.mkdir()
            self._system = self._held.enter_context(running_split_system(folder, setup))
            self._setup = setup
        return self._system

    def close(self) -> None:
        """End what runs."""
        self._system = None
        self._held.close()
