"""Keeps one trouble that repeats from filling the log: many equal lines become a few and a count.

Lines are equal if level, source, event and reason are. Of those at warning or above, the first
LINES_PER_WINDOW of a window are written; the rest are counted, and once the window is over one line says
``suppressed: n``. It is written with the next line of any kind, or by `flush` at the end of the process.

Invariant: at most KINDS_MAX kinds are remembered; the oldest makes room, and its count is written.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["KINDS_MAX", "LINES_PER_WINDOW", "WINDOW_S", "LineSampler", "Suppressed"]

# Enough to see that a trouble repeats, and whom it concerns.
LINES_PER_WINDOW: Final = 10
# Longer: the count comes too late to be seen beside its cause.
WINDOW_S: Final = 10.0
KINDS_MAX: Final = 256

_SAMPLED: Final = frozenset({"warning", "error", "critical"})
_IDENTITY: Final = ("level", "source", "event", "reason", "service", "node")
_Kind = tuple[str, ...]


@attrs.frozen
class Suppressed:
    """Lines of one kind that were not written: what they had in common, and how many."""

    fields: Mapping[str, str]
    count: int


@attrs.define
class _Window:
    ends_at: float
    written: int = 0
    suppressed: int = 0


class LineSampler:
    """Decides for each line whether it is written."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Take time from ``now``: monotonic seconds."""
        self._now = now
        # In the order in which the windows end: all are equally long.
        self._windows: OrderedDict[_Kind, _Window] = OrderedDict()

    def admit(self, fields: Mapping[str, object]) -> tuple[bool, list[Suppressed]]:
        """Return whether a line is written, and the counts that are due before it."""
        due = self._close(until=self._now())
        if fields.get("level") not in _SAMPLED:
            return True, due
        kind = tuple(str(fields.get(name, "")) for name in _IDENTITY)
        window = self._windows.get(kind)
        if window is None:
            if len(self._windows) >= KINDS_MAX:
                due += _counted(*self._windows.popitem(last=False))
            window = self._windows[kind] = _Window(self._now() + WINDOW_S)
        if window.written < LINES_PER_WINDOW:
            window.written += 1
            return True, due
        window.suppressed += 1
        return False, due

    def flush(self) -> list[Suppressed]:
        """Return every count that has not been written yet, and begin anew."""
        return self._close(until=float("inf"))

    def _close(self, *, until: float) -> list[Suppressed]:
        due: list[Suppressed] = []
        while self._windows:
            kind, window = next(iter(self._windows.items()))
            if window.ends_at > until:
                break
            del self._windows[kind]
            due += _counted(kind, window)
        return due


def _counted(kind: _Kind, window: _Window) -> list[Suppressed]:
    if not window.suppressed:
        return []
    return [
        Suppressed(
            {name: value for name, value in zip(_IDENTITY, kind, strict=True) if value}, window.suppressed
        )
    ]
