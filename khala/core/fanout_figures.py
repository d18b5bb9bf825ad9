"""What a node tells the runtime of its fan-out, as values; and how a look at it is summed up. Pure.

The contract, with the meaning of every field, is proto/openagents/runtime/v1/nodes.proto.

Fairness is Jain's index over shares x, one for each subscription to which something was due between two looks:

    its connection kept up     x = frames it got / frames that were due to it for longer than DUE_AFTER_S
    its connection's socket    x = bytes it got / the mean of those topics of the connection that always had
    was full all the time      frames waiting: among these the scheduler divides evenly by bytes

So a slow client lowers nothing by itself; a node that serves some and forgets others does, and so does a
connection on which one topic holds up the rest.
"""

from __future__ import annotations

from heapq import nlargest
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from khala_contracts.topics import TopicName

__all__ = ["DUE_AFTER_S", "TOPICS_PER_LIST", "FairnessSums", "NodeStatus", "TopicFigures", "choose_topics"]

# A look may come in the middle of a fan-out, whose last subscriber has a right to a moment.
DUE_AFTER_S: Final = 1.0
# The busiest, and as many of the most delayed.
TOPICS_PER_LIST: Final = 100
# What a topic may be ahead of another by the size of chunks alone; see core/scheduler.py.
_BYTES_EACH_MIN: Final = 4 * 64 * 1024


@attrs.define
class FairnessSums:
    """Sums of the shares of all who were judged; nodes add theirs up."""

    judged: int = 0
    total: float = 0.0
    squares: float = 0.0

    def note_share(self, share: float) -> None:
        """Add one share, 0..1 for somebody whose connection kept up."""
        self.judged += 1
        self.total += share
        self.squares += share * share

    def note_whole(self, count: int) -> None:
        """Add as many that got everything."""
        self.judged += count
        self.total += count
        self.squares += count

    def note_contended(self, got_bytes: Sequence[int]) -> None:
        """Add the topics of one connection that all had frames waiting while its socket was full.

        Nothing is added where one chunk more or less would decide.
        """
        if len(got_bytes) < 2 or sum(got_bytes) < len(got_bytes) * _BYTES_EACH_MIN:
            return
        mean = sum(got_bytes) / len(got_bytes)
        for got in got_bytes:
            self.note_share(got / mean)


@attrs.frozen(kw_only=True)
class TopicFigures:
    """One topic with subscribers on this node."""

    topic: TopicName
    topic_class: str
    head_seq: int
    subscribers: int
    replaying: int
    frames_per_s: float
    lag_frames_max: int


@attrs.frozen(kw_only=True)
class NodeStatus:
    """What a report says beside totals and topics.

    Attributes:
        not_ready: Checks of /readyz that fail, with their word.
    """

    is_draining: bool
    is_leaving: bool
    not_ready: Mapping[str, str]


def choose_topics(topics: Iterable[TopicFigures]) -> list[TopicFigures]:
    """Return the topics that are reported: the busiest and the most delayed, each once."""
    rows = tuple(topics)
    busiest = nlargest(TOPICS_PER_LIST, rows, key=lambda row: row.frames_per_s)
    delayed = nlargest(TOPICS_PER_LIST, rows, key=lambda row: row.lag_frames_max)
    return list({row.topic: row for row in (*busiest, *delayed)}.values())
