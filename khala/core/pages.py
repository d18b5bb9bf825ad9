"""One bounded read from the journal, as it came: encoded frames in one piece of bytes.

A page is immutable and shared by every subscription that waits for the same position; nothing
is done per frame until a JSON connection asks for it.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

import attrs

from khala.core.window import aligned_end

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khala.core.classification import Observation


@attrs.define(eq=False)
class Page:
    """Frames ``after_seq + 1 .. last_seq`` of one topic.

    Invariant: ``ends[i]`` is where frame ``after_seq + 1 + i`` ends in ``blob``.
    """

    after_seq: int
    blob: bytes
    last_chain: bytes
    observation: Observation
    ends: list[int]
    # The row after last_seq, if its bytes are not its frame: the page was cut before it.
    unreadable_seq: int | None = None
    # Subscriptions that still send from this page; the reader's byte budget is freed at zero.
    users: int = attrs.field(default=0, init=False)

    @classmethod
    def from_sizes(
        cls,
        after_seq: int,
        blob: bytes,
        sizes: Sequence[int],
        *,
        last_chain: bytes,
        observation: Observation,
    ) -> Page:
        """Make a page from the joined entries and the size of each in bytes."""
        return cls(after_seq, blob, last_chain, observation, list(accumulate(sizes)))

    def cut(self, count: int) -> Page:
        """Return the first ``count`` frames; the one after them cannot be read.

        The chain at the new end is not known; nothing that is replayed needs it.
        """
        ends = self.ends[:count]
        return Page(
            self.after_seq,
            self.blob[: ends[-1]] if ends else b"",
            b"",
            self.observation,
            ends,
            unreadable_seq=self.after_seq + count + 1,
        )

    @property
    def last_seq(self) -> int:
        """Last frame of the page; ``after_seq`` if it is empty."""
        return self.after_seq + len(self.ends)

    def covers(self, position: int) -> bool:
        """Whether the frame after ``position`` is in this page."""
        return self.after_seq <= position < self.last_seq

    def choose_end(self, position: int, *, max_bytes: int, last_seq: int) -> int | None:
        """Return the last frame of a range after ``position``; see Window.choose_end."""
        index = position - self.after_seq
        before = self.ends[index - 1] if index else 0
        fitting = bisect_right(self.ends, before + max_bytes) - index
        if fitting <= 0:
            return None
        end = min(position + fitting, last_seq, self.last_seq)
        return aligned_end(position + 1, end, head_seq=min(last_seq, self.last_seq))

    def joined(self, position: int, end_seq: int) -> bytes:
        """Return the bytes of frames ``position + 1 .. end_seq``."""
        index = position - self.after_seq
        start = self.ends[index - 1] if index else 0
        return self.blob[start : self.ends[end_seq - self.after_seq - 1]]

    def entries(self, position: int, end_seq: int) -> list[bytes]:
        """Return frames ``position + 1 .. end_seq`` one by one."""
        first = position - self.after_seq
        starts = [self.ends[first - 1] if first else 0, *self.ends[first:]]
        count = end_seq - position
        return [self.blob[starts[i] : starts[i + 1]] for i in range(count)]
