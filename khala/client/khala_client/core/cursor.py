"""Where a follower stands in one topic. Pure values.

A cursor is what was last *applied*; only applying moves it, and resuming means *after* it. How far
a node has sent is the node's business and never appears here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

import attrs

from khala_contracts.chain import CHAIN_BYTES
from khala_contracts.codec import CursorStart, FromStart, SubscribeFrom
from khala_contracts.frames import SEQ_MAX

if TYPE_CHECKING:
    from khala_contracts.topics import Lineage, Seq, TopicName

__all__ = ["AFTER_WORDS", "After", "Cursor", "FromWord", "parse_after", "start_of"]

FromWord = Literal["beginning", "earliest", "now"]
AFTER_WORDS: Final[tuple[FromWord, ...]] = ("beginning", "earliest", "now")
_DIGITS: Final = re.compile(r"[0-9]{1,19}", re.ASCII)


@attrs.frozen
class Cursor:
    """The last applied position of one topic.

    Attributes:
        topic: The topic it belongs to.
        seq: Last applied position; 0 means that nothing was applied yet.
        lineage: History to which seq belongs; empty only at seq 0.
        chain: Chain at seq, or None if it is not known (a bare seq typed by a person). With it the
            node tells another history apart from ours, without it only another lineage.
    """

    topic: TopicName
    seq: Seq
    lineage: Lineage
    chain: bytes | None = attrs.field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.seq <= SEQ_MAX:
            message = f"seq {self.seq} of {self.topic} is outside 0..{SEQ_MAX}"
            raise ValueError(message)
        if self.seq > 0 and not self.lineage:
            message = f"a cursor above 0 needs its lineage: {self.topic} seq={self.seq}"
            raise ValueError(message)
        if self.chain is not None and len(self.chain) != CHAIN_BYTES:
            message = f"a chain has {CHAIN_BYTES} bytes: {self.topic} seq={self.seq}"
            raise ValueError(message)


# Where a subscription begins: after a cursor, or at one of the three words.
After = Cursor | FromWord


def start_of(after: After) -> CursorStart | FromStart:
    """Return what a subscribe message says for ``after``; the words become their enum."""
    if isinstance(after, Cursor):
        return CursorStart(seq=after.seq, lineage=after.lineage, chain=after.chain or b"")
    return FromStart(SubscribeFrom(after))


def parse_after(text: str) -> int | FromWord | Literal["saved"]:
    """Read a person's ``--after``: a decimal seq, ``saved`` or one of AFTER_WORDS.

    Raises:
        ValueError: anything else, or a seq outside 0..2**63-1.
    """
    if text == "saved":
        return "saved"
    for word in AFTER_WORDS:
        if text == word:
            return word
    if not _DIGITS.fullmatch(text) or int(text) > SEQ_MAX:
        message = f"not a position: {text!r}; say a seq, saved, {', '.join(AFTER_WORDS)}"
        raise ValueError(message)
    return int(text)
