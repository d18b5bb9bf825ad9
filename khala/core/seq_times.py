"""When positions of a topic were passed, remembered in constant memory; the older, the coarser.

A mark says that the frames ``first_seq .. last_seq`` were passed between two times, which are equal
where one instant is known. When there is no room, older neighbours become one mark: so what was once
covered stays covered, within bounds that are wider the longer ago it was, and no time is ever invented.

Used for the age of frames (core/slow_consumer.py) and for explanations (core/delivery_trace.py).
Pure; times are whatever the caller's clock says.

Invariants (tests/properties/test_seq_times.py):
    len(marks) <= max_marks
    marks ascend without overlap: last_seq(i) < first_seq(i + 1)
    a seq that was noted for first_at..last_at lies in a mark whose bounds contain them
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Final, NamedTuple

import attrs

# Marks of one level. More: exact for longer. Fewer: less memory where little happens.
_LEVEL_MARKS: Final = 16


class Passed(NamedTuple):
    """A seq was passed not before ``first_at`` and not after ``last_at``."""

    first_at: float
    last_at: float


def _seqs() -> array[int]:
    return array("q")


def _times() -> array[float]:
    return array("d")


@attrs.define(eq=False)
class _Level:
    """Marks of about the same width, ascending; the next level has older ones of twice that width."""

    first_seqs: array[int] = attrs.field(factory=_seqs)
    last_seqs: array[int] = attrs.field(factory=_seqs)
    first_ats: array[float] = attrs.field(factory=_times)
    last_ats: array[float] = attrs.field(factory=_times)

    def take_pairs(self, newer: _Level, count: int) -> None:
        """Append the ``count`` oldest marks of a newer level, two as one, and take them out there."""
        self.first_seqs.extend(newer.first_seqs[0:count:2])
        self.first_ats.extend(newer.first_ats[0:count:2])
        self.last_seqs.extend(newer.last_seqs[1:count:2])
        self.last_ats.extend(newer.last_ats[1:count:2])
        for column in (newer.first_seqs, newer.last_seqs, newer.first_ats, newer.last_ats):
            del column[:count]

    def merge_pairs(self, count: int) -> None:
        """Make two marks one among the ``count`` oldest."""
        self.first_seqs[:count] = self.first_seqs[0:count:2]
        self.first_ats[:count] = self.first_ats[0:count:2]
        self.last_seqs[:count] = self.last_seqs[1:count:2]
        self.last_ats[:count] = self.last_ats[1:count:2]


class SeqTimes:
    """Marks of one topic, or of one subscription: 32 bytes each.

    In levels, like an exponential histogram: a full level gives its older half, two as one, to the next
    one. So a note costs the same whatever is remembered, and a mark is an eighth as wide as it is old;
    from the last level on, coarser.
    """

    __slots__ = ("_level_marks", "_levels", "_levels_max")

    def __init__(self, max_marks: int) -> None:
        """Remember at most ``max_marks`` marks, which is 4 at least."""
        self._level_marks = min(_LEVEL_MARKS, max_marks) // 4 * 4
        self._levels_max = max_marks // self._level_marks
        # Newest first.
        self._levels = [_Level()]

    def __len__(self) -> int:
        """Number of marks."""
        return sum(len(level.last_seqs) for level in self._levels)

    @property
    def last_seq(self) -> int:
        """Newest seq that was noted, 0 if none was."""
        newest = self._levels[0].last_seqs
        return newest[-1] if newest else 0

    def note(self, first_seq: int, last_seq: int, first_at: float, last_at: float | None = None) -> None:
        """Remember when ``first_seq .. last_seq`` were passed: at one time, or between two.

        What was noted before keeps its time: only seqs above it are taken.
        """
        newest = self._levels[0]
        if newest.last_seqs and first_seq <= newest.last_seqs[-1]:
            first_seq = newest.last_seqs[-1] + 1
            if last_seq < first_seq:
                return
        if len(newest.last_seqs) >= self._level_marks:
            self._make_room(0)
        newest.first_seqs.append(first_seq)
        newest.last_seqs.append(last_seq)
        newest.first_ats.append(first_at)
        newest.last_ats.append(first_at if last_at is None else last_at)

    def find(self, seq: int) -> Passed | None:
        """Return when ``seq`` was passed; None if no mark covers it."""
        for level in self._levels:
            if level.first_seqs and seq >= level.first_seqs[0]:
                index = bisect_left(level.last_seqs, seq)
                if index == len(level.last_seqs) or level.first_seqs[index] > seq:
                    return None
                return Passed(level.first_ats[index], level.last_ats[index])
        return None

    def clear(self) -> None:
        """Forget everything: the history changed."""
        self._levels = [_Level()]

    def _make_room(self, index: int) -> None:
        """Take the older half out of a full level: into the next one, or, of the last, together."""
        half = self._level_marks // 2
        level = self._levels[index]
        if index + 1 == self._levels_max:
            level.merge_pairs(half)
            return
        if index + 1 == len(self._levels):
            self._levels.append(_Level())
        older = self._levels[index + 1]
        if len(older.last_seqs) + half // 2 > self._level_marks:
            self._make_room(index + 1)
        older.take_pairs(level, half)
