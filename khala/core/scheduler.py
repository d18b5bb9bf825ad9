"""Turns among the topics of one connection, by bytes: deficit round-robin.

Shreedhar and Varghese 1996. A topic with 5,000 frames waiting delays a topic with one by at most
one turn of each topic: ``len(ready) * (quantum + largest frame)`` bytes. Pure; the connection
calls it when its socket takes more.

Invariants (tests/properties/test_scheduler.py):
    a topic waits at most once
    deficit_bytes == 0 for every topic that is not ready
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from khala.core.subscription import NeedsPage

if TYPE_CHECKING:
    from khala.core.in_flight import InFlight
    from khala.core.subscription import Subscription


@attrs.define(eq=False)
class DeficitRoundRobin:
    """The topics of one connection that have something to send, in turn."""

    quantum_bytes: int
    chunk_max_bytes: int
    is_text: bool
    in_flight: InFlight
    # In the order of their turns; the values mean nothing. A queue and a set would be 1 KiB of every idle
    # connection.
    _ready: dict[Subscription, None] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        """Number of topics that wait for their turn."""
        return len(self._ready)

    def add(self, subscription: Subscription) -> None:
        """Let a topic take part; no effect if it already does."""
        self._ready.setdefault(subscription)

    def discard(self, subscription: Subscription) -> None:
        """Take a topic out."""
        self.in_flight.forget(subscription)
        if subscription in self._ready:
            self._leave(subscription)

    def clear(self) -> None:
        """Take every topic out."""
        self._ready.clear()

    def take_next(self) -> tuple[Subscription, bytes] | None:
        """Return the next range to send and whose it is, or None if no topic has any.

        A topic that needs a page leaves the turn and its read is started; the page brings it back. A replay
        leaves while the node holds too much that sockets have not taken; room brings it back.
        """
        while self._ready:
            subscription = next(iter(self._ready))
            if not subscription.has_frames:
                self._leave(subscription)
                continue
            if subscription.is_replaying and not self.in_flight.has_room:
                self._leave(subscription)
                self.in_flight.wait(subscription)
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
                self._leave(subscription)
                subscription.source.request_page(subscription)
                continue
            if taken is None:
                self._go_last(subscription)
                continue
            subscription.deficit_bytes = max(0, subscription.deficit_bytes - len(taken))
            if subscription.has_frames:
                self._go_last(subscription)
            else:
                self._leave(subscription)
            return subscription, taken
        return None

    def _go_last(self, subscription: Subscription) -> None:
        del self._ready[subscription]
        self._ready[subscription] = None

    def _leave(self, subscription: Subscription) -> None:
        del self._ready[subscription]
        subscription.deficit_bytes = 0
