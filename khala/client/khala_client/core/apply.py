"""The apply rule: what to do with each frame of one topic. Pure.

Every client obeys the same scenarios, proto/fixtures/apply-rule.json:

    seq <= last_applied        duplicate   discard, change nothing
    seq == last_applied + 1    apply       the position moves, the chain grows by one link
    seq >  last_applied + 1    gap         resume after last_applied, never apply

Invariants, for the rule's whole life (tests/properties/test_client_apply.py):
    INV-A1  the applied frames are a contiguous run: start_seq + 1, start_seq + 2, ..., seq
    INV-A2  chain == the chain of the topic at seq
    INV-A3  offered == applied + duplicates + gaps
The rule does not decide when to resume, and does not store anything: follow.py and the store do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from khala_contracts.chain import CHAIN_BYTES, chain_after

if TYPE_CHECKING:
    from khala_contracts.frames import Frame
    from khala_contracts.topics import TopicName

__all__ = ["Applied", "ApplyCounts", "ApplyRule", "Duplicate", "Gap"]


@attrs.frozen
class Applied:
    """The frame is next; ``chain`` seals the topic up to and including it."""

    frame: Frame
    chain: bytes = attrs.field(repr=False)


@attrs.frozen
class Duplicate:
    """The frame was applied before; it changed nothing."""

    seq: int


@attrs.frozen
class Gap:
    """Frames ``expected_seq .. seq - 1`` are missing; nothing was applied."""

    expected_seq: int
    seq: int


@attrs.define
class ApplyCounts:
    """Exact totals since the rule was made."""

    applied: int = 0
    duplicates: int = 0
    gaps: int = 0


class ApplyRule:
    """Holds the last applied ``(seq, chain)`` of one topic and judges each frame against it."""

    def __init__(self, topic: TopicName, *, seq: int, chain: bytes) -> None:
        """Start after ``seq`` (0: nothing applied), where the topic's chain is ``chain``."""
        if len(chain) != CHAIN_BYTES or seq < 0:
            message = f"not a position: {topic} seq={seq}, chain of {len(chain)} bytes"
            raise ValueError(message)
        self.topic = topic
        self.seq = seq
        self.chain = chain
        self.counts = ApplyCounts()

    def offer(self, frame: Frame) -> Applied | Duplicate | Gap:
        """Judge one frame; only ``Applied`` moves the position.

        Raises:
            ValueError: a frame of another topic. The caller mixed up its subscriptions.
        """
        if frame.topic != self.topic:
            message = f"frame of {frame.topic} offered to {self.topic}"
            raise ValueError(message)
        if frame.seq <= self.seq:
            self.counts.duplicates += 1
            return Duplicate(frame.seq)
        if frame.seq > self.seq + 1:
            self.counts.gaps += 1
            return Gap(expected_seq=self.seq + 1, seq=frame.seq)
        self.chain = chain_after(self.chain, frame)
        self.seq = frame.seq
        self.counts.applied += 1
        return Applied(frame, self.chain)
