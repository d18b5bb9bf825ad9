"""The menu of faults: each proves itself, none without having happened; the page names all of them."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections import Counter
from copy import deepcopy
from typing import Any

import attrs
import pytest

from chaos.drills import fault_menu as menu
from chaos.drills.fault_menu import FAULTS
from chaos.drills.split_system import Ended
from chaos.faults.fault import Counters, Fault, directions_of
from chaos.faults.proxy import answer_command
from tests.ci.tree import ROOT

PIDS = {"node-1": 11, "postgres": 12, "nats": 13}


@attrs.define
class FakeSystem:
    """A system in which faults are only noted; it behaves as the real one does under them."""

    ended: list[Ended] = attrs.field(factory=list)
    stopped: set[int] = attrs.field(factory=set)
    links: dict[str, Counters] = attrs.field(factory=dict)
    words: Counter[str] = attrs.field(factory=Counter)
    faults: dict[str, Fault] = attrs.field(factory=dict)

    @property
    def system(self) -> FakeSystem:
        return self

    proxy = shim = under_test = system

    def pid(self, name: str) -> int:
        return PIDS[name]

    def wait_ready(self, name: str) -> None:
        assert name in PIDS

    def ends_of(self, name: str) -> list[Ended]:
        return [end for end in self.ended if end.name == name]

    def take_signal(self, pid: int, number: int) -> None:
        if number == signal.SIGSTOP:
            self.stopped.add(pid)
        elif number == signal.SIGCONT:
            self.stopped.discard(pid)
        else:
            (name,) = (name for name, known in PIDS.items() if known == pid)
            self.ended.append(Ended(name, pid, self.status_of(number)))

    def status_of(self, number: int) -> int:
        """PostgreSQL ends by itself when it is told to, if only in a hurry."""
        return 0 if number == signal.SIGQUIT else -number

    def counters(self, link: str) -> Counters:
        return deepcopy(self.links.setdefault(link, Counters()))

    def set(self, name: str, what: Fault | int, *, direction: Any = "both") -> None:
        if not isinstance(what, Fault):
            self.words[name] = what
            done = {
                "is_disk_full": "writes_refused",
                "sync_delay_us": "syncs_delayed",
                "clock_offset_us": "clock_reads",
            }[name]
            self.words[done] += bool(what)
            return
        self.faults[name] = what
        moved = self.links.setdefault(name, Counters())
        for way in directions_of(direction):
            moved.cut_waits[way] += what.is_cut
            moved.dropped_bytes[way] += what.is_dropping
            moved.delayed[way] += what.delay_s > 0
            moved.throttled_s[way] += what.rate_bytes_per_s is not None

    def clear(self, link: str) -> None:
        self.faults.pop(link, None)

    def reset(self, link: str) -> None:
        self.links.setdefault(link, Counters()).reset += 1

    def get(self, word: str) -> int:
        return self.words[word]

    def query(self, _sql: str) -> list[list[str]]:
        return [[str(time.time() + self.words["clock_offset_us"] / 1_000_000)]]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    """A stage on such a system; signals reach its processes and nobody else."""
    fake = FakeSystem()
    monkeypatch.setattr(os, "kill", fake.take_signal)
    monkeypatch.setattr(menu, "process_state", lambda pid: "T" if pid in fake.stopped else "S")
    return fake


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_proves_itself_and_ends(name: str, stage: Any) -> None:
    """No proof before it has begun, proof after; at its end nothing of it is left."""
    act = FAULTS[name].act()
    act.look(stage)
    assert act.proof(stage) == ""
    act.begin(stage)
    assert act.proof(stage)
    act.end(stage)
    assert not stage.stopped
    assert not stage.faults
    assert not any(stage.words[word] for word in ("is_disk_full", "sync_delay_us", "clock_offset_us"))


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "clock-skew"])
def test_another_ones_fault_is_no_proof(name: str, stage: Any) -> None:
    """What was counted before the look, on this shared system, is not counted again."""
    earlier = FAULTS[name].act()
    earlier.look(stage)
    earlier.begin(stage)
    earlier.end(stage)
    stage.ended.clear()
    act = FAULTS[name].act()
    act.look(stage)
    assert act.proof(stage) == ""


@pytest.mark.parametrize("name", ["process-kill", "nats-loss", "postgres-restart"])
def test_an_end_of_another_kind_is_no_proof(name: str, stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that failed by itself was not killed."""
    act = FAULTS[name].act()
    act.look(stage)
    monkeypatch.setattr(FakeSystem, "status_of", lambda _self, _number: 1)
    act.begin(stage)
    assert act.proof(stage) == ""


def test_the_page_names_every_fault() -> None:
    """In the order of the menu."""
    page = (ROOT / "runbooks" / "faults.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z-]+)` \|", page, flags=re.MULTILINE) == list(FAULTS)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_state_of_a_process() -> None:
    """We run; nobody has this number."""
    assert menu.process_state(os.getpid()) == "R"
    assert menu.process_state(2**22 + 1) == ""


def test_a_command_for_nobody_is_refused() -> None:
    """A proxy without links has nothing to harm."""
    assert "error" in answer_command({}, {"do": "clear", "links": "*"})
