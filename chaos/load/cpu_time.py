"""CPU time of a process and everything below it, read from /proc."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROC: Final = Path("/proc")
# Positions after the command's name in /proc/<pid>/stat, see proc(5).
_PARENT: Final = 1
_TIMES: Final = slice(11, 15)  # utime, stime, and both of the children that were waited for


def measures_cpu_time() -> bool:
    """Return whether this system tells the CPU time of other processes the way we read it."""
    return (_PROC / "self" / "stat").exists()


def cpu_time_of_tree(pid: int) -> Mapping[str, float]:
    """Return CPU seconds so far, ``{"self": .., "children": ..}``, of a process and its descendants.

    Children that have ended count once their parent has waited for them. Without /proc both are 0.
    """
    children: dict[int, list[int]] = defaultdict(list)
    seconds: dict[int, float] = {}
    for stat in _PROC.glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # it has ended
            continue
        fields = text.rpartition(")")[2].split()
        child = int(stat.parent.name)
        children[int(fields[_PARENT])].append(child)
        seconds[child] = sum(map(int, fields[_TIMES])) / os.sysconf("SC_CLK_TCK")
    below, at = children[pid], 0
    while at < len(below):
        below += children[below[at]]
        at += 1
    return {"self": seconds.get(pid, 0.0), "children": sum(seconds[child] for child in below)}
