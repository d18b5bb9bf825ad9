"""Ends what has been revoked: sockets of ended sessions and keys, topics of lost orgs; and refuses their hellos.

Control's log says what ended (actors/revocation_feed.py reads it into core/revocation_view.py); this looks at
the claims of every connection when rows arrive, and answers the commands of those that come later. Between the
view and a connection nothing awaits, so that whoever is welcomed after a row was applied was judged by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

import trio

from khala.actors.revocation_feed import RevocationFeed
from khala.core.protocol import Phase
from khala.core.revocation_view import RevocationView
from khala.core.subscription import EndedForbidden
from khala_contracts import reason_codes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from khala.actors.connection import Connection
    from khala.actors.revocation_feed import RevocationSource
    from khala.core.counters import NodeCounters
    from khala.core.limits import NodeLimits
    from khala.core.revocation_view import Revocation
    from khala.ports import Clock, Rng
    from khala_contracts.sync_claims import SyncClaims, TopicGrant

__all__ = ["Evictions"]

# Below the time-out of readiness checks, above one answer of control.
FIRST_READ_WAIT_S: Final = 1.0
_SPREAD_STEPS: Final = 1 << 32


class Evictions:
    """What a node knows of revocations, and its connections; the feed's task must be running."""

    def __init__(
        self,
        source: RevocationSource,
        *,
        limits: NodeLimits,
        counters: NodeCounters,
        clock: Clock,
        rng: Rng,
    ) -> None:
        """Read from ``source``."""
        self._limits = limits
        self._counters = counters
        self._clock = clock
        self._connections: Iterable[Connection] = ()
        self.view = RevocationView()
        self.feed = RevocationFeed(
            source, self.view, limits=limits, clock=clock, rng=rng, on_revoked=self._evict
        )

    def watch(self, connections: Iterable[Connection]) -> None:
        """Evict from these, read anew each time."""
        self._connections = connections

    async def check(self) -> str | None:
        """Return None while the view is fresh enough for new connections, else a word why not.

        Waits a moment for the first read, so that a node whose control is there starts ready.
        """
        with trio.move_on_after(FIRST_READ_WAIT_S):
            await self.feed.wait_first_read()
        return None if self.feed.may_welcome else "behind"

    def hint(self) -> None:
        """Take a driver's hint that control's log has grown."""
        self._counters.revocation_hints += 1
        self.feed.hint()

    def is_lost(self, claims: SyncClaims, grant: TopicGrant) -> bool:
        """Whether a granted right has been lost since the token was made."""
        return grant.org_id is not None and grant.org_id in self.view.lost_orgs(claims)

    @property
    def is_overdue(self) -> bool:
        """Whether for so long nobody could say who may stay that connections end; see ``sweep``."""
        return self.feed.staleness_s >= self._limits.revocation_close_after_s

    def sweep(self, connection: Connection) -> None:
        """End a connection if for too long nobody could say that it may stay.

        Each has a place of its own in the spread, so that not all come back at once.
        """
        overdue_s = self.feed.staleness_s - self._limits.revocation_close_after_s
        if overdue_s < 0 or connection.phase is not Phase.READY:
            return
        place = crc32(connection.connection_id.encode()) / _SPREAD_STEPS
        if overdue_s >= place * self._limits.revocation_close_spread_s:
            connection.close(reason_codes.UNAVAILABLE)

    def _evict(self, revocations: Sequence[Revocation]) -> None:
        del revocations  # the view has them; one look at each connection serves all of a page
        now_ms = self._clock.now() * 1000
        for connection in tuple(self._connections):
            claims = connection.claims
            if claims is None or connection.phase is Phase.CLOSING:
                continue
            ended_at_ms = self.view.ended_at_ms(claims)
            if ended_at_ms is not None:
                self._counters.evictions["connection"] += 1
                self._counters.eviction_delays.observe(max(0.0, now_ms - ended_at_ms) / 1000)
                connection.close(reason_codes.REAUTH_REQUIRED)
                continue
            lost = self.view.lost_orgs(claims)
            if not lost:
                continue
            for subscription in tuple(connection.subscriptions.values()):
                if subscription.grant.org_id in lost:
                    self._counters.evictions["topic"] += 1
                    connection.finish_subscription(subscription, EndedForbidden())
