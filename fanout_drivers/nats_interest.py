"""Keeps what a NATS server has subscribed for us equal to what nodes' ends follow.

Whoever follows another subject asks for a round; one round settles all that changed meanwhile and ends with
a round trip, which is also the sign of life of a server. Invariants:

1. ``follow`` returns when the server delivers the subject, or without a session; then ``begin`` settles it.
2. In a cluster a subscription reaches the other servers a moment later, and a server that leaves or joins takes
   with it or missed what crossed it: fresh subscriptions are announced again after SPREAD_S, and after a change
   of the cluster everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from khala_service.errors import Unavailable

if TYPE_CHECKING:
    from fanout_drivers.delivery_queue import DeliveryQueue
    from fanout_drivers.nats_connection import NatsSession
    from fanout_drivers.nats_routes import NatsRoutes

__all__ = ["SIGN_OF_LIFE_S", "SPREAD_S", "NatsInterest"]

# Without a subscribe for so long, a round trip shows whether the server still answers.
SIGN_OF_LIFE_S: Final = 5.0
# Within it a subscription has reached every server of a cluster. Longer: a record that fell between waits for
# the position check anyway. Shorter: it may be announced before it was lost.
SPREAD_S: Final = 0.2


@attrs.define(eq=False)
class NatsInterest:
    """The subscriptions of one driver, over all its sessions."""

    _routes: NatsRoutes
    _session: NatsSession | None = attrs.field(default=None, init=False)
    # Subjects whose subscription the server has confirmed and which nobody has left since.
    _confirmed: set[str] = attrs.field(factory=set, init=False)
    # Subjects to look at in the next round, and the event of its end.
    _unsettled: set[str] = attrs.field(factory=set, init=False)
    _has_unsettled: trio.Event = attrs.field(factory=trio.Event, init=False)
    _next_round: trio.Event = attrs.field(factory=trio.Event, init=False)
    # What to announce again once it is everywhere; None: everything.
    _spreading: set[str] | None = attrs.field(factory=set, init=False)
    _has_spreading: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def follow(self, queue: DeliveryQueue, subject: str) -> None:
        """Route a subject to an end; return when the server delivers it, or without a session.

        Cancellation: safe; the route stays.
        """
        self._routes.begin(queue, subject)
        if self._session is None or subject in self._confirmed:
            await trio.lowlevel.checkpoint()
            return
        self.look_at(subject)
        await self._next_round.wait()

    def leave(self, queue: DeliveryQueue, subject: str) -> None:
        """End a route, if there is one."""
        if self._routes.end(queue, subject):
            self.left(subject)

    def left(self, subject: str) -> None:
        """Take note that nobody follows this subject any more."""
        self._confirmed.discard(subject)
        self.look_at(subject)

    def look_at(self, subject: str) -> None:
        """Settle this subject in the next round."""
        if self._session is not None:
            self._unsettled.add(subject)
            self._has_unsettled.set()

    async def begin(self, session: NatsSession) -> None:
        """Subscribe at a new server whatever is followed.

        Raises:
            Unavailable: the session was lost, or the server did not answer.
        """
        self._session = session
        self._unsettled = self._routes.subjects
        await self._settle_round(session)

    def end(self) -> None:
        """Forget the session; nobody waits for it any more."""
        self._session = None
        self._confirmed.clear()
        self._unsettled.clear()
        self._spreading = set()
        self._next_round.set()
        self._next_round = trio.Event()

    async def serve(self, session: NatsSession) -> None:
        """Settle whatever changes, and look for signs of life, until the session is lost."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce_spread)
            try:
                while True:
                    with trio.move_on_after(SIGN_OF_LIFE_S):
                        await self._has_unsettled.wait()
                    await self._settle_round(session)
            except Unavailable:
                nursery.cancel_scope.cancel()

    def cluster_changed(self) -> None:
        """Announce what may have been lost between two servers, now and when they have found each other."""
        self._routes.announce_everything()
        self._spread(None)

    async def _settle_round(self, session: NatsSession) -> None:
        subjects, self._unsettled = self._unsettled, set()
        self._has_unsettled = trio.Event()
        done, self._next_round = self._next_round, trio.Event()
        try:
            # Asked when its turn comes: a subject may be left and followed again during the round.
            await session.settle(subjects, self._routes.__contains__)
        finally:
            done.set()
        # Those that were looked at again meanwhile wait for the next round.
        settled = {s for s in subjects if s in self._routes and s not in self._unsettled}
        fresh = settled - self._confirmed
        if fresh and session.is_clustered:
            self._spread(fresh)
        self._confirmed |= settled

    def _spread(self, subjects: set[str] | None) -> None:
        if subjects is None or self._spreading is None:
            self._spreading = None
        else:
            self._spreading |= subjects
        self._has_spreading.set()

    async def _announce_spread(self) -> None:
        while True:
            await self._has_spreading.wait()
            self._has_spreading = trio.Event()
            spreading, self._spreading = self._spreading, set()
            await trio.sleep(SPREAD_S)
            if spreading is None:
                self._routes.announce_everything()
                self._routes.hint_revocations()
            else:
                self._routes.announce(spreading)
