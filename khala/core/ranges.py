"""Joined ranges, framed once and shared by every connection that sends the same one.

A least-recently-used cache of one node, bounded in bytes. It is only a saving: what it does not
hold is joined again from the window or the page.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import attrs

if TYPE_CHECKING:
    from khala_contracts.topics import TopicName


class RangeKey(NamedTuple):
    """Which frames, in which encoding.

    ``history`` is one object for each history of the topic that a node has held. The lineage would
    not do: a copy restored behind our back has the same one, and other frames at the same seqs.
    """

    topic: TopicName
    history: object
    position: int
    end_seq: int
    is_text: bool


@attrs.define(eq=False)
class RangeCache:
    """Framed ranges by key. Invariant: ``size_bytes == sum(map(len, values)) <= max_bytes``."""

    max_bytes: int
    size_bytes: int = attrs.field(default=0, init=False)
    hits: int = attrs.field(default=0, init=False)
    misses: int = attrs.field(default=0, init=False)
    _by_key: OrderedDict[RangeKey, bytes] = attrs.field(factory=OrderedDict, init=False)

    def get(self, key: RangeKey) -> bytes | None:
        """Return the framed range if it is held."""
        framed = self._by_key.get(key)
        if framed is None:
            self.misses += 1
            return None
        self.hits += 1
        self._by_key.move_to_end(key)
        return framed

    def put(self, key: RangeKey, framed: bytes) -> None:
        """Hold a range, forgetting the least recently used ones; one above the bound is not held."""
        if len(framed) > self.max_bytes or key in self._by_key:
            return
        self._by_key[key] = framed
        self.size_bytes += len(framed)
        self._forget()

    def resize(self, max_bytes: int) -> None:
        """Change the bound; what is above it is forgotten at once."""
        self.max_bytes = max_bytes
        self._forget()

    def _forget(self) -> None:
        while self.size_bytes > self.max_bytes:
            _, oldest = self._by_key.popitem(last=False)
            self.size_bytes -= len(oldest)
