"""Every fault by name: what it does to a running system, and what proves that it happened (CHA-04).

Each is done alone, under a small load, by ``khala drill fault NAME``; drills do the same faults with
more around them. None needs root. What only root could do is said in runbooks/faults.md.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from chaos.faults.fault import Counters, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chaos.drills.stage import Stage
    from chaos.faults.fault import Direction

__all__ = ["FAULTS", "MenuFault", "process_state"]

VICTIM: Final = "node-1"
HOLD_S: Final = 2.0
_SIGKILLED: Final = -signal.SIGKILL
_PROC: Final = Path("/proc")


class FaultAct(Protocol):
    """A fault that can be done once to a stage; an object is used for one stage only."""

    def look(self, stage: Stage) -> None:
        """Remember how it is before."""

    def begin(self, stage: Stage) -> None:
        """Let it begin."""

    def end(self, stage: Stage) -> None:
        """Let it end; harmless if it has not begun."""

    def proof(self, stage: Stage) -> str:
        """Return what shows that it happened; empty while nothing does."""


@attrs.frozen
class MenuFault:
    """One line of the menu.

    Attributes:
        text: What it does.
        hold_s: How long it is held.
        act: Makes what does it.
    """

    name: str
    text: str
    hold_s: float
    act: Callable[[], FaultAct]


@attrs.define
class _Killed:
    """SIGKILL, or another signal that ends a process; its supervisor has seen that very pid end so."""

    name: str
    signal: int
    status: int
    pid: int = 0

    def look(self, stage: Stage) -> None:
        self.pid = stage.system.pid(self.name)

    def begin(self, stage: Stage) -> None:
        os.kill(self.pid, self.signal)

    def end(self, stage: Stage) -> None:
        """Wait until its supervisor has started it again."""
        stage.system.wait_ready(self.name)

    def proof(self, stage: Stage) -> str:
        ended = any(end.pid == self.pid and end.status == self.status for end in stage.ends_of(self.name))
        return f"{self.name} ({self.pid}) ended with status {self.status}" if ended else ""


@attrs.define
class _Paused:
    """SIGSTOP; the kernel says that the process is stopped."""

    pid: int = 0
    is_stopped: bool = False

    def look(self, stage: Stage) -> None:
        self.pid = stage.system.pid(VICTIM)

    def begin(self, stage: Stage) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def end(self, stage: Stage) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def proof(self, stage: Stage) -> str:
        self.is_stopped = self.is_stopped or process_state(self.pid) == "T"
        return f"{VICTIM} ({self.pid}) was in state T" if self.is_stopped else ""


@attrs.define
class _OnLink:
    """A fault of the network between two processes; the proxy's counters have moved."""

    link: str
    fault: Fault
    counter: str
    direction: Direction = "both"
    before: Counters = attrs.field(factory=Counters)

    def look(self, stage: Stage) -> None:
        self.before = stage.system.proxy.counters(self.link)

    def begin(self, stage: Stage) -> None:
        stage.system.proxy.set(self.link, self.fault, direction=self.direction)

    def end(self, stage: Stage) -> None:
        stage.system.proxy.clear(self.link)

    def proof(self, stage: Stage) -> str:
        moved = _amount(stage.system.proxy.counters(self.link), self.counter) - _amount(
            self.before, self.counter
        )
        return f"{self.link}: {self.counter} grew by {moved:g}" if moved else ""


@attrs.define
class _Reset(_OnLink):
    """Every connection of a link is reset."""

    def begin(self, stage: Stage) -> None:
        stage.system.proxy.reset(self.link)


@attrs.define
class _InShim:
    """A fault of PostgreSQL's disk or clock; its processes have counted it."""

    word: str
    value: int
    counter: str
    before: int = 0

    def look(self, stage: Stage) -> None:
        self.before = stage.system.shim.get(self.counter)

    def begin(self, stage: Stage) -> None:
        stage.system.shim.set(self.word, self.value)

    def end(self, stage: Stage) -> None:
        stage.system.shim.set(self.word, 0)

    def proof(self, stage: Stage) -> str:
        moved = stage.system.shim.get(self.counter) - self.before
        return f"{self.counter} grew by {moved}" if moved else ""


@attrs.define
class _Skewed(_InShim):
    """The database's clock; it also says another time than ours."""

    def proof(self, stage: Stage) -> str:
        ((said,),) = stage.system.under_test.query("SELECT extract(epoch FROM clock_timestamp())")
        skew_s = float(said) - time.time()
        return f"the database's clock is {skew_s:+.1f} s from ours" if abs(skew_s) > 1 else ""


def process_state(pid: int) -> str:
    """Return the letter by which the kernel names the state of a process; empty if it cannot be told."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]


def _amount(counters: Counters, name: str) -> float:
    value = getattr(counters, name)
    return float(sum(value.values()) if isinstance(value, dict) else value)


def _network(
    name: str, text: str, link: str, fault: Fault, counter: str, *, direction: Direction = "both"
) -> MenuFault:
    return MenuFault(name, f"{link}: {text}", HOLD_S, lambda: _OnLink(link, fault, counter, direction))


_ALL: Final = (
    MenuFault(
        "process-kill", f"SIGKILL of {VICTIM}", 0.0, lambda: _Killed(VICTIM, signal.SIGKILL, _SIGKILLED)
    ),
    MenuFault("process-pause", f"SIGSTOP of {VICTIM}, then SIGCONT", HOLD_S, _Paused),
    _network(
        "network-delay",
        "150 to 250 ms later",
        f"{VICTIM}.postgres",
        Fault(delay_s=0.15, jitter_s=0.1),
        "delayed",
    ),
    _network(
        "network-drop",
        "bytes vanish, connections stay half open",
        f"{VICTIM}.nats",
        Fault(is_dropping=True),
        "dropped_bytes",
    ),
    _network("network-partition", "nothing passes", f"{VICTIM}.postgres", Fault(is_cut=True), "cut_waits"),
    _network(
        "network-partition-one-way",
        "nothing comes back",
        "runtime.postgres",
        Fault(is_cut=True),
        "cut_waits",
        direction="down",
    ),
    MenuFault(
        "network-reset",
        f"clients.{VICTIM}: every connection is reset",
        0.0,
        lambda: _Reset(f"clients.{VICTIM}", Fault(), "reset"),
    ),
    _network(
        "network-throttle",
        "20 kB/s",
        f"clients.{VICTIM}",
        Fault(rate_bytes_per_s=20_000),
        "throttled_s",
    ),
    MenuFault(
        "postgres-restart",
        "PostgreSQL is shut down in immediate mode (SIGQUIT)",
        0.0,
        lambda: _Killed("postgres", signal.SIGQUIT, 0),
    ),
    MenuFault("nats-loss", "SIGKILL of NATS", 0.0, lambda: _Killed("nats", signal.SIGKILL, _SIGKILLED)),
    MenuFault(
        "disk-full",
        "PostgreSQL's data files cannot grow (ENOSPC)",
        HOLD_S,
        lambda: _InShim("is_disk_full", 1, "writes_refused"),
    ),
    MenuFault(
        "disk-slow",
        "each fsync of PostgreSQL takes 100 ms longer",
        HOLD_S,
        lambda: _InShim("sync_delay_us", 100_000, "syncs_delayed"),
    ),
    MenuFault(
        "clock-skew",
        "PostgreSQL's clock is 30 s ahead",
        HOLD_S,
        lambda: _Skewed("clock_offset_us", 30_000_000, "clock_reads"),
    ),
)
FAULTS: Final[Mapping[str, MenuFault]] = {fault.name: fault for fault in _ALL}
