"""What a process uses: CPU seconds and memory; and what the kernel holds for all sockets.

CPU time of one process is exact, that of a tree has the resolution of the scheduler's clock, usually 10 ms.
Linux only; ``can_measure`` says so.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Final

import attrs

from chaos.load.cpu_time import cpu_time_of_tree, measures_cpu_time

__all__ = [
    "ProcessMemory",
    "can_measure",
    "cpu_s_of_process",
    "cpu_s_of_tree",
    "kernel_socket_bytes",
    "memory_of_process",
]

_PROC: Final = Path("/proc")
_KIB: Final = 1024
# clock_getcpuclockid(3), which Python does not have: the clock of a process is made of its pid and this.
_CPU_CLOCK_SCHED: Final = 2
_ROLLUP_LINE: Final = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)
_TCP_PAGES: Final = re.compile(r"^TCP: .*\bmem (\d+)", re.MULTILINE)


@attrs.frozen
class ProcessMemory:
    """Memory of one process, bytes.

    Attributes:
        rss_bytes: Resident, shared pages in full.
        pss_bytes: Resident, each shared page divided by its users.
        private_bytes: Resident and in no other process.
    """

    rss_bytes: int
    pss_bytes: int
    private_bytes: int


def can_measure() -> bool:
    """Return whether this system tells these figures the way we read them."""
    return measures_cpu_time() and (_PROC / "self" / "smaps_rollup").exists()


def cpu_s_of_tree(pid: int) -> float:
    """Return CPU seconds so far of a process and everything below it."""
    seconds = cpu_time_of_tree(pid)
    return seconds["self"] + seconds["children"]


def cpu_s_of_process(pid: int) -> float:
    """Return CPU seconds so far of all threads of one process, without its children.

    Raises:
        ProcessLookupError: It has ended.
    """
    try:
        return time.clock_gettime((~pid << 3) | _CPU_CLOCK_SCHED)
    except OSError:
        raise ProcessLookupError(f"process {pid} has ended") from None


def memory_of_process(pid: int) -> ProcessMemory:
    """Return what one process holds now.

    Raises:
        ProcessLookupError: It has ended.
    """
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} has ended") from None
    kib = {name: int(size) for name, size in _ROLLUP_LINE.findall(text)}
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    return ProcessMemory(kib["Rss"] * _KIB, kib["Pss"] * _KIB, private * _KIB)


def kernel_socket_bytes() -> int:
    """Return what the kernel holds now for the buffers of all TCP sockets of this network namespace."""
    found = _TCP_PAGES.search((_PROC / "net" / "sockstat").read_text())
    return int(found.group(1)) * os.sysconf("SC_PAGE_SIZE") if found is not None else 0
