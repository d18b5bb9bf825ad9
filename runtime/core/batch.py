"""What one transaction takes from the inbox.

Pure. No timer: a batch is whatever arrived while the previous one was being committed, so an idle
runtime commits at once and a busy one commits many requests together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections import deque

    from runtime.core.commands import Submission
    from runtime.core.limits import RuntimeLimits

__all__ = ["HasSubmission", "take_batch"]


class HasSubmission(Protocol):
    """An entry of the inbox."""

    @property
    def submission(self) -> Submission:
        """What the caller handed in."""


W = TypeVar("W", bound=HasSubmission)


def take_batch(inbox: deque[W], limits: RuntimeLimits) -> list[W]:
    """Remove and return the oldest entries that make one batch, in their order.

    A submission is taken whole; the first is taken whatever its size, because one request may be
    larger than a batch (500 events of 4 MiB against 512 events of 1 MiB).
    """
    taken: list[W] = []
    events = size_bytes = 0
    while inbox:
        submission = inbox[0].submission
        events += submission.event_count
        size_bytes += submission.size_bytes
        if taken and (events > limits.batch_events_max or size_bytes > limits.batch_bytes_max):
            break
        taken.append(inbox.popleft())
    return taken
