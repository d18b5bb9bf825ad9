"""Turns among the topics of one connection, by bytes: deficit round-robin.

Shreedhar and Varghese 1996. A topic with 5,000 frames waiting delays a topic with one by at most
one turn of each topic: ``len(ready) * (quantum + largest frame)`` bytes. Pure; the connection
calls it when its socket takes more.

Invariants (tests/properties/test_scheduler.py):
    a topic is in ``_ready`` at most once
    deficit_bytes == 0 for every topic that is not ready
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs

from khala.core.subscription import NeedsPage

if TYPE_CHECKING:
    from khala.core.subscription import Subscription


@attrs.define(eq=False)
class DeficitRoundRobin:
    """The topics of one connection that have something to send, in turn."""

    quantum_bytes: int
    chunk_max_bytes: int
    is_text: bool
    _ready: deque[Subscription] = attrs.field(factory=deque, init=False)
    _members: set[Subscription] = attrs.field(factory=set, init=False)

    def __len__(self) -> int:
        """Number of topics that wait for their turn."""
        return len(self._ready)

    def add(self, subscription: Subscription) -> None:
        """Let a topic take part; no effect if it already does."""
        if subscription not in self._members:
            self._members.add(subscription)
            self._ready.append(subscription)

    def discard(self, subscription: Subscription) -> None:
        """Take a topic out."""
        if subscription in self._members:
            self._members.remove(subscription)
            self._ready.remove(subscription)
            subscription.deficit_bytes = 0

    def clear(self) -> None:
        """Take every topic out."""
        self._ready.clear()
        self._members.clear()

    def take_next(self) -> tuple[Subscription, bytes] | None:
        """Return the next range to send and whose it is, or None if no topic has any.

        A topic that needs a page leaves the turn and its read is started; the page brings it back.
        """
        while self._ready:
            subscription = self._ready[0]
            if not subscription.has_frames:
                self._leave()
                continue
            subscription.deficit_bytes += self.quantum_bytes
            # Alone there is nobody to be fair to, and larger writes cost less.
            allowance = (
                self.chunk_max_bytes
                if len(self._ready) == 1
                else min(subscription.deficit_bytes, self.chunk_max_bytes)
            )
            # A frame larger than a whole chunk travels alone once its deficit is saved up.
            if subscription.deficit_bytes > self.chunk_max_bytes:
                allowance = max(allowance, subscription.deficit_bytes)
            taken = subscription.source.frame_range(subscription, max_bytes=allowance, is_text=self.is_text)
            if isinstance(taken, NeedsPage):
                self._leave()
                subscription.source.request_page(subscription)
                continue
            if taken is None:
                self._ready.rotate(-1)
                continue
            subscription.deficit_bytes = max(0, subscription.deficit_bytes - len(taken))
            if subscription.has_frames:
                self._ready.rotate(-1)
            else:
                self._leave()
            return subscription, taken
        return None

    def _leave(self) -> None:
        subscription = self._ready.popleft()
        self._members.discard(subscription)
        subscription.deficit_bytes = 0
