"""One task for every deadline of every connection, and for heartbeats.

A sleeping task or cancel scope per timer and connection is the idle tax. This wakes every
``sweep_interval_s`` instead, so each deadline is exact to that, and looks at the connections of which
something may be due; passing over another costs one comparison. Heartbeats are spread by the time at which
each connection was opened, and are joined from entries that are encoded once for all followers at the head
of a topic (core/heartbeats.py).

Invariant: a connection whose ``look_at`` lies ahead has no deadline before it, and no bytes that wait.
What is heard from it only moves deadlines away; a writer or a renewal sets ``look_at`` back, and a change of
limits, or a view of revocations that is too old, has every connection looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from khala.actors.slow_consumers import look_for_slow_consumers
from khala.core.protocol import Phase
from khala_contracts import reason_codes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from khala.actors.connection import Connection
    from khala.actors.evictions import Evictions
    from khala.core.counters import NodeCounters
    from khala.core.limits import NodeLimits
    from khala.ports import Clock

# Every n-th heartbeat names all subscriptions, moved or not, so that a client that lost one
# still compares every topic's head and chain within a minute.
FULL_HEARTBEAT_EVERY: Final = 4
# Topics in one heartbeat. 256 with long names would fill the control lane by themselves (63 KiB in
# JSON), and a client that is only behind would be closed for it.
TOPICS_PER_HEARTBEAT: Final = 64
# Leeway of token times (SPEC section 2, clocks).
TOKEN_LEEWAY_S: Final = 30.0
# A sweep gives others a turn after so many looks: less than 1 ms, of which a heartbeat is 15 us.
_LOOKS_PER_TURN: Final = 50
_NEVER: Final = float("inf")


async def run_sweeper(
    connections: Iterable[Connection],
    *,
    limits: NodeLimits,
    counters: NodeCounters,
    clock: Clock,
    evictions: Evictions | None = None,
) -> None:
    """Sweep until cancelled. ``connections`` is read anew each time."""
    sweeper = Sweeper(connections, limits, counters, clock, evictions)
    while True:
        await trio.sleep(limits.sweep_interval_s)
        await sweeper.sweep()


@attrs.define(eq=False)
class Sweeper:
    """Looks at the connections of one node."""

    connections: Iterable[Connection]
    limits: NodeLimits
    counters: NodeCounters
    clock: Clock
    # None: nothing is ever revoked.
    evictions: Evictions | None = None
    # Connections looked at, of all that were passed.
    looks: int = attrs.field(default=0, init=False)
    _deadlines: tuple[float, ...] = attrs.field(default=(), init=False)

    async def sweep(self) -> None:
        """Do what has become due. Cancellation: what was not looked at is due the next time."""
        is_overdue = self.evictions is not None and self.evictions.is_overdue
        is_everybody = self._have_deadlines_changed() or is_overdue
        now, looks = trio.current_time(), 0
        for connection in tuple(self.connections):
            if now < connection.look_at and not is_everybody:
                continue
            try:
                self.look(connection, now)
                if is_overdue and self.evictions is not None:
                    self.evictions.sweep(connection)
            except Exception as exc:  # noqa: BLE001 - one connection; the others keep their deadlines
                connection.fail(exc)
            looks += 1
            if looks % _LOOKS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
                now = trio.current_time()
        self.looks += looks

    def _have_deadlines_changed(self) -> bool:
        """Whether a reload may have moved deadlines since the last sweep."""
        limits, before = self.limits, self._deadlines
        self._deadlines = (limits.hello_timeout_s, limits.heartbeat_interval_s, limits.dead_after_s)
        return self._deadlines != before

    def look(self, connection: Connection, now: float) -> None:
        """Act on the deadlines of one connection that have passed, and note when the next one does."""
        next_at = self._act(connection, now)
        # Until nothing waits any more, and nothing is remembered of that.
        is_waiting = connection.outbound.has_writer or connection.slow_consumers
        connection.look_at = now if is_waiting else next_at

    def _act(self, connection: Connection, now: float) -> float:
        limits = self.limits
        stalled_since = connection.outbound.stalled_since
        is_stalled = stalled_since is not None and now - stalled_since >= limits.write_stall_timeout_s
        match connection.phase:
            case Phase.CLOSING:
                return _NEVER
            case _ if is_stalled:
                connection.close_slow("write_stall_timeout_s")
                return _NEVER
            case Phase.READY:
                look_for_slow_consumers(connection, limits=limits, counters=self.counters, now=now)
                return self._act_on_ready(connection, now)
            case _:
                hello_deadline = connection.opened_at + limits.hello_timeout_s
                if now >= hello_deadline:
                    connection.close(reason_codes.HELLO_TIMEOUT, limits.name_limit("hello_timeout_s"))
                # It may be welcome long before, and then wants its first heartbeat.
                return min(hello_deadline, connection.next_heartbeat_at)

    def _act_on_ready(self, connection: Connection, now: float) -> float:
        claims = connection.claims
        assert claims is not None
        wall_now = self.clock.now()
        token_left_s = claims.expires_at_s + TOKEN_LEEWAY_S - wall_now
        dead_at = connection.heard_at + self.limits.dead_after_s
        if token_left_s <= 0:
            connection.close(reason_codes.TOKEN_EXPIRED)
        elif now >= dead_at:
            connection.close(reason_codes.HEARTBEAT_TIMEOUT, self.limits.name_limit("dead_after_s"))
        elif now >= connection.next_heartbeat_at:
            connection.next_heartbeat_at = now + self.limits.heartbeat_interval_s
            connection.heartbeats_sent += 1
            is_full = connection.heartbeats_sent % FULL_HEARTBEAT_EVERY == 0
            _push_heartbeats(connection, is_full=is_full, now=now, server_time_ms=round(wall_now * 1000))
        return min(connection.next_heartbeat_at, dead_at, now + token_left_s)


def _push_heartbeats(connection: Connection, *, is_full: bool, now: float, server_time_ms: int) -> None:
    """State the topics that are due; a client whose answers wait hears of the rest next time.

    A head is stated twice. Frames may still be on their way behind the first heartbeat, so a client whose last
    frames got lost before silence needs the second one to know it (KH-37). A topic whose next frames are still
    in the journal is left out: while that does not answer, a client would take them for lost.
    """
    due = [
        subscription
        for subscription in connection.subscriptions.values()
        if not subscription.is_waiting_for_page
        and (
            is_full
            or subscription.is_announced_again
            or subscription.source.head_seq != subscription.announced_seq
        )
    ]
    is_said = False
    while due and connection.outbound.has_room:
        entries = []
        for subscription in due[:TOPICS_PER_HEARTBEAT]:
            source = subscription.source
            entry = source.heartbeats.entry(
                source, subscription.position, subscription.parsed, is_text=connection.is_text, now=now
            )
            entries.append(entry)
            subscription.is_announced_again = source.head_seq != subscription.announced_seq
            subscription.announced_seq = source.head_seq
        connection.push_heartbeat(entries, server_time_ms)
        del due[:TOPICS_PER_HEARTBEAT]
        is_said = True
    if not is_said:
        connection.push_heartbeat((), server_time_ms)
