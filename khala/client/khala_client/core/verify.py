"""Verification of a history by its hash chain. Pure.

Only wire-visible fields enter the chain, and payloads enter by their hash: so whoever holds the
frames and one known link can prove that nothing was lost, added, changed or reordered, also after
some payloads were erased.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from khala_contracts.chain import chain_after, chain_start
from khala_contracts.frames import ERASED_KIND, Frame

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Broken", "Verified", "verify_frames"]


@attrs.frozen
class Verified:
    """The frames continue the known link without a hole, up to ``(seq, chain)``.

    ``erased_frames`` of ``frames`` no longer carry their payload; their place is still proven.
    """

    seq: int
    chain: bytes = attrs.field(repr=False)
    frames: int
    erased_frames: int

    def __str__(self) -> str:
        erased = f", {self.erased_frames} of {self.frames} erased" if self.erased_frames else ""
        return f"verified through seq {self.seq}, {self.frames} frames{erased}"


@attrs.frozen
class Broken:
    """The history does not hold at ``seq``; ``reason`` says in which way."""

    seq: int
    reason: str


def verify_frames(
    topic: str,
    frames: Iterable[Frame],
    *,
    after_seq: int = 0,
    chain: bytes | None = None,
    expected_chain: bytes | None = None,
) -> Verified | Broken:
    """Check that ``frames`` continue a known link, and end in ``expected_chain`` if that is given.

    Args:
        topic: The topic of all frames.
        frames: Ascending from ``after_seq + 1`` without holes.
        after_seq: Position of the known link.
        chain: The known link; None takes the topic's start, which only seq 0 has.
        expected_chain: What the authority says for the last frame (replay_complete, heartbeat, a
            receipt); None proves only that the frames are consecutive.

    Raises:
        ValueError: ``after_seq`` above 0 without ``chain``.
    """
    if chain is None:
        if after_seq != 0:
            message = "only seq 0 has a chain that everybody knows"
            raise ValueError(message)
        chain = chain_start(topic)
    seq, count, erased = after_seq, 0, 0
    for frame in frames:
        if frame.topic != topic:
            return Broken(frame.seq, f"belongs to {frame.topic}")
        if frame.seq != seq + 1:
            return Broken(frame.seq, f"expected seq {seq + 1}")
        chain = chain_after(chain, frame)
        seq, count = frame.seq, count + 1
        erased += frame.kind == ERASED_KIND
    if expected_chain is not None and chain != expected_chain:
        return Broken(seq, "another chain than the authority's")
    return Verified(seq=seq, chain=chain, frames=count, erased_frames=erased)
