"""Which drills share a system, when a new one is started, and that a missing fault ends a drill at once."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from chaos.drills import running
from chaos.drills.catalog import Drill
from chaos.drills.drill import Claim, DrillOptions, Outcome
from chaos.drills.running import run_drills
from chaos.drills.system_setup import SystemSetup
from chaos.drills.waiting import DrillFailed, FaultMissing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE = SystemSetup(nodes=1)
THREE = SystemSetup(nodes=3)
PASSED = Outcome([Claim("Nothing is lost", "0", is_met=True)], {}, [])


@attrs.define
class Systems:
    """Counts what was started, and remembers what runs."""

    started: list[SystemSetup] = attrs.field(factory=list)
    is_running: bool = False

    @contextmanager
    def run(self, folder: Path, setup: SystemSetup) -> Iterator[str]:
        assert folder.is_dir()
        assert not self.is_running, "two systems at once"
        self.started.append(setup)
        self.is_running = True
        yield f"system {len(self.started)}"
        self.is_running = False


@pytest.fixture
def systems(monkeypatch: pytest.MonkeyPatch) -> Systems:
    """Systems that are started in no time."""
    fake = Systems()
    monkeypatch.setattr(running, "running_split_system", fake.run)
    return fake


@attrs.define
class Noted:
    """Makes drills that note the system they were given."""

    systems: list[Any] = attrs.field(factory=list)

    def drill(self, name: str, setup: SystemSetup | None, error: Exception | None = None) -> Drill:
        def run(options: DrillOptions) -> Outcome:
            assert options.folder.is_dir()
            self.systems.append(options.system)
            if error is not None:
                raise error
            return PASSED

        return Drill(name, name, 1, run, setup)

    def run(self, folder: Path, *drills: Drill) -> list[str]:
        done = list(run_drills(drills, DrillOptions(folder=folder), words=["--quick"], environment={}))
        return [one.problem.split(" (")[0] or one.name for one in done]


def test_drills_on_the_same_system_share_it(systems: Systems, tmp_path: Path) -> None:
    """It is started once; one alone starts its own, and so does one that says nothing of a system."""
    noted = Noted()
    named = noted.run(
        tmp_path,
        noted.drill("a", ONE),
        noted.drill("b", ONE),
        noted.drill("c", None),
        noted.drill("d", THREE),
    )
    assert named == ["a", "b", "c", "d"]
    assert noted.systems == ["system 1", "system 1", None, None]
    assert systems.started == [ONE]
    assert not systems.is_running


def test_another_system_takes_the_place_of_the_first(systems: Systems, tmp_path: Path) -> None:
    """At most one runs."""
    noted = Noted()
    setups = (ONE, ONE, THREE, THREE)
    noted.run(tmp_path, *(noted.drill(f"drill-{n}", setup) for n, setup in enumerate(setups)))
    assert noted.systems == ["system 1", "system 1", "system 2", "system 2"]


def test_after_a_failure_the_next_drill_gets_a_new_system(systems: Systems, tmp_path: Path) -> None:
    """What a failed drill left of the system is nothing for the next; a missing fault left it whole."""
    noted = Noted()
    named = noted.run(
        tmp_path,
        noted.drill("a", ONE, FaultMissing("no fault")),
        noted.drill("b", ONE, DrillFailed("no end")),
        noted.drill("c", ONE),
        noted.drill("d", ONE),
    )
    assert named == ["a: no fault", "b: no end", "c", "d"]
    assert noted.systems == ["system 1", "system 1", "system 2", "system 2"]


def test_a_missing_fault_ends_a_drill_at_once(tmp_path: Path) -> None:
    """Without faults nothing is waited for; with them a proof may come a moment later."""
    began = time.monotonic()
    with pytest.raises(FaultMissing, match="proof of the fault: a kill"):
        DrillOptions(folder=tmp_path, has_faults=False).prove("a kill", lambda: False)
    assert time.monotonic() - began < 5
    looks = iter([False, False, True])
    DrillOptions(folder=tmp_path).prove("a kill", lambda: next(looks))
