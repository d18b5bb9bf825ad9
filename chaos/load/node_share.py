"""How much of a process's time its node takes: ``khala up`` is one process with control, runtime and a node.

    python -m chaos.load.node_share FILE up --data-dir ...

runs ``khala up --data-dir ...`` as shipped, with one addition: each step of a task is timed, and FILE has the
nanoseconds of the node's tasks and of all tasks, two u64 in the machine's order (``ShareReader``). A task is the
node's if it is ``serve_node`` or below it. What the event loop needs between steps is in neither of the two.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Final, Self

import trio

__all__ = ["NODE_TASK", "ShareMeter", "ShareReader", "run_metered"]

# As trio names it: where it is defined.
NODE_TASK: Final = "khala.app.serve_node"
_FIGURES: Final = struct.Struct("=QQ")
# A task has the context of whoever started it, so that everything below the node's first task has this.
_IS_NODES: Final = ContextVar("is_nodes", default=False)


class ShareMeter(trio.abc.Instrument):
    """Adds up the time of steps; see the module."""

    def __init__(self, file: Path, *, node_task: str = NODE_TASK) -> None:
        """Begin at nothing, in a file of our own."""
        file.write_bytes(bytes(_FIGURES.size))
        with file.open("r+b") as opened:
            self._figures = mmap.mmap(opened.fileno(), _FIGURES.size)
        self._node_task = node_task
        self._node_ns = 0
        self._all_ns = 0
        self._began_ns = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """Mark the node's first task; those below inherit it."""
        if task.name == self._node_task:
            task.context.run(_IS_NODES.set, True)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Note the time."""
        del task
        self._began_ns = time.thread_time_ns()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Add what the step took, and let readers see it."""
        took_ns = time.thread_time_ns() - self._began_ns
        self._all_ns += took_ns
        if task.context.get(_IS_NODES, False):
            self._node_ns += took_ns
        _FIGURES.pack_into(self._figures, 0, self._node_ns, self._all_ns)


class ShareReader:
    """Reads what a ``ShareMeter`` in another process writes."""

    def __init__(self, file: Path) -> None:
        """Open it; the meter has made it."""
        with file.open("rb") as opened:
            self._figures = mmap.mmap(opened.fileno(), _FIGURES.size, access=mmap.ACCESS_READ)

    def read(self) -> tuple[float, float]:
        """Return seconds so far of the node's tasks, and of all tasks."""
        node_ns, all_ns = _FIGURES.unpack_from(self._figures)
        return node_ns / 1e9, all_ns / 1e9

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._figures.close()


def run_metered(file: Path, words: list[str]) -> None:
    """Run ``khala`` with these words, metered."""
    trio.run = partial(trio.run, instruments=[ShareMeter(file)])  # type: ignore[assignment]
    sys.argv = ["khala", *words]
    # Late: nothing of it may have taken the other `trio.run`.
    from khala.cli.main import main

    main()


if __name__ == "__main__":
    run_metered(Path(sys.argv[1]), sys.argv[2:])
