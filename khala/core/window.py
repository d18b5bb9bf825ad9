"""The encoded tail of one topic: every frame once, ready to be joined and sent.

Owned and written by one topic actor; read by the connections of its subscribers, in the same
thread and never across an await. Position 0 is before the first frame.

Invariants (INV-3, INV-7; tests/properties/test_window.py):
    head_seq - base_seq + 1 == len(entries)           base_seq is the oldest frame held
    entries[i] is the frame base_seq + i               so a range is a slice
    size_bytes == sum(len(entry) for entry in entries)
    len(entries) <= max_frames, and size_bytes <= max_bytes unless one frame is larger alone
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

# Ranges of clients that lag end at multiples of this, so that laggards meet at the same
# boundaries and share the joined bytes. Larger: small frames fill a chunk before the boundary.
RANGE_ALIGNMENT = 64
# What a frame costs above its bytes: an object's header (33), its rounding (8), two slots of 8. Measured by
# tests/unit/khala/test_window.py. Less: small frames take more memory than their node's budget says.
FRAME_OVERHEAD_BYTES: Final = 57


def aligned_end(first_seq: int, last_seq: int, *, head_seq: int) -> int:
    """Return where a range starting at first_seq should end, at most last_seq.

    A range that reaches the head ends there. Another ends at the last multiple of ``RANGE_ALIGNMENT`` inside it,
    unless less than half of it would be left: of frames of 1 KiB sixty fit into a chunk, and every second
    chunk would be the four to the next boundary.
    """
    if last_seq >= head_seq:
        return last_seq
    boundary = last_seq - last_seq % RANGE_ALIGNMENT
    return boundary if 2 * (boundary - first_seq + 1) >= last_seq - first_seq + 1 else last_seq


@attrs.define(eq=False)
class Window:
    """Frames ``base_seq..head_seq`` of one topic, encoded."""

    max_frames: int
    max_bytes: int
    head_seq: int = 0
    head_chain: bytes = b""
    _entries: list[bytes] = attrs.field(factory=list, init=False)
    # _ends[i] is the running total of bytes up to and including entries[i]; never rebased, so
    # that trimming the front does not touch the rest.
    _ends: array[int] = attrs.field(factory=lambda: array("q"), init=False)
    _start_total: int = attrs.field(default=0, init=False)

    @property
    def base_seq(self) -> int:
        """Oldest frame held; ``head_seq + 1`` if none is."""
        return self.head_seq - len(self._entries) + 1

    @property
    def size_bytes(self) -> int:
        """Bytes of all frames held."""
        return self._ends[-1] - self._start_total if self._ends else 0

    @property
    def memory_bytes(self) -> int:
        """What all frames held cost: their bytes, and what the process needs for each."""
        return self.size_bytes + FRAME_OVERHEAD_BYTES * len(self._entries)

    def __len__(self) -> int:
        """Number of frames held."""
        return len(self._entries)

    def covers(self, position: int) -> bool:
        """Whether the frame after ``position`` and all later ones are held."""
        return position + 1 >= self.base_seq

    def bytes_after(self, position: int) -> int | None:
        """Return the bytes of all frames after ``position``; None if they are not all held."""
        index = position + 1 - self.base_seq
        if index < 0:
            return None
        if index >= len(self._ends):
            return 0
        return self._ends[-1] - (self._ends[index - 1] if index else self._start_total)

    def reset(self, head_seq: int, head_chain: bytes) -> None:
        """Forget all frames; the next one is ``head_seq + 1``."""
        self._entries.clear()
        del self._ends[:]
        self._start_total = 0
        self.head_seq = head_seq
        self.head_chain = head_chain

    def extend(self, entries: Sequence[bytes], head_chain: bytes) -> None:
        """Append the frames that follow the head, and trim to the bounds.

        Args:
            entries: Encoded frames ``head_seq + 1, head_seq + 2, ...``.
            head_chain: Chain at the last of them.
        """
        total = self._ends[-1] if self._ends else self._start_total
        for entry in entries:
            total += len(entry)
            self._entries.append(entry)
            self._ends.append(total)
        self.head_seq += len(entries)
        self.head_chain = head_chain
        self._trim()

    def _trim(self) -> None:
        excess = max(0, len(self._entries) - self.max_frames)
        if self._ends:
            over_bytes = self._ends[-1] - self.max_bytes
            # The newest frame stays even if it is larger than max_bytes alone.
            excess = max(excess, min(self._index_above(over_bytes), len(self._entries) - 1))
        self.drop_oldest(excess)

    def _index_above(self, start_total: int) -> int:
        """Number of oldest frames to drop so that what is left begins at or after start_total."""
        if start_total <= self._start_total:
            return 0
        index = bisect_right(self._ends, start_total)
        if index and self._ends[index - 1] == start_total:
            return index
        return index + 1

    def drop_oldest(self, count: int) -> int:
        """Forget the ``count`` oldest frames; return how much less ``memory_bytes`` is."""
        count = min(count, len(self._entries))
        if count <= 0:
            return 0
        freed = self._ends[count - 1] - self._start_total
        self._start_total = self._ends[count - 1]
        del self._entries[:count]
        del self._ends[:count]
        return freed + FRAME_OVERHEAD_BYTES * count

    def choose_end(self, position: int, *, max_bytes: int, last_seq: int) -> int | None:
        """Return the last frame of a range that starts after ``position``.

        Args:
            position: The range starts at ``position + 1``, which must be held.
            max_bytes: The range is no larger, except that ``None`` says that not even its
                first frame fits.
            last_seq: The range does not go beyond this frame.
        """
        index = position + 1 - self.base_seq
        before = self._ends[index - 1] if index else self._start_total
        fitting = bisect_right(self._ends, before + max_bytes) - index
        if fitting <= 0:
            return None
        end = min(position + fitting, last_seq, self.head_seq)
        return aligned_end(position + 1, end, head_seq=min(last_seq, self.head_seq))

    def entries(self, position: int, end_seq: int) -> list[bytes]:
        """Return the encoded frames ``position + 1 .. end_seq``, all of which must be held."""
        base = self.base_seq
        return self._entries[position + 1 - base : end_seq + 1 - base]
