"""One task for every deadline of every connection, and for heartbeats.

A sleeping task or cancel scope per timer and connection is the idle tax; this looks at all of
them every ``sweep_interval_s`` instead, so each deadline is exact to that. Heartbeats are spread
by the time at which each connection was opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from khala.actors.slow_consumers import look_for_slow_consumers
from khala.core.protocol import Phase
from khala_contracts import reason_codes
from khala_contracts.codec import ServerHeartbeat, TopicHeartbeat

if TYPE_CHECKING:
    from collections.abc import Iterable

    from khala.actors.connection import Connection
    from khala.actors.evictions import Evictions
    from khala.core.counters import NodeCounters
    from khala.core.limits import NodeLimits
    from khala.core.subscription import Subscription
    from khala.ports import Clock

# Every n-th heartbeat names all subscriptions, moved or not, so that a client that lost one
# still compares every topic's head and chain within a minute.
FULL_HEARTBEAT_EVERY: Final = 4
# Topics in one heartbeat. 256 with long names would fill the control lane by themselves (63 KiB in
# JSON), and a client that is only behind would be closed for it.
TOPICS_PER_HEARTBEAT: Final = 64
# Leeway of token times (SPEC section 2, clocks).
TOKEN_LEEWAY_S: Final = 30.0
# A sweep of many connections gives others a turn after this many.
_CONNECTIONS_PER_TURN: Final = 500


async def run_sweeper(
    connections: Iterable[Connection],
    *,
    limits: NodeLimits,
    counters: NodeCounters,
    clock: Clock,
    evictions: Evictions | None = None,
) -> None:
    """Sweep until cancelled. ``connections`` is read anew each time."""
    while True:
        await trio.sleep(limits.sweep_interval_s)
        for index, connection in enumerate(tuple(connections), start=1):
            try:
                sweep_connection(connection, limits=limits, counters=counters, wall_now=clock.now())
                if evictions is not None:
                    evictions.sweep(connection)
            except Exception as exc:  # noqa: BLE001 - one connection; the others keep their deadlines
                connection.fail(exc)
            if index % _CONNECTIONS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()


def sweep_connection(
    connection: Connection, *, limits: NodeLimits, counters: NodeCounters, wall_now: float
) -> None:
    """Act on the deadlines of one connection that have passed."""
    now = trio.current_time()
    if connection.phase is Phase.CLOSING:
        return
    stalled_since = connection.stalled_since
    if stalled_since is not None and now - stalled_since >= limits.write_stall_timeout_s:
        connection.close_slow()
        return
    match connection.phase:
        case Phase.AWAITING_HELLO | Phase.AUTHENTICATING:
            if now - connection.opened_at >= limits.hello_timeout_s:
                connection.close(reason_codes.HELLO_TIMEOUT)
        case Phase.READY:
            look_for_slow_consumers(connection, limits=limits, counters=counters, now=now)
            _sweep_ready(connection, limits=limits, now=now, wall_now=wall_now)


def _sweep_ready(connection: Connection, *, limits: NodeLimits, now: float, wall_now: float) -> None:
    claims = connection.claims
    assert claims is not None
    if wall_now >= claims.expires_at_s + TOKEN_LEEWAY_S:
        connection.close(reason_codes.TOKEN_EXPIRED)
    elif now - connection.heard_at >= limits.dead_after_s:
        connection.close(reason_codes.HEARTBEAT_TIMEOUT)
    elif now >= connection.next_heartbeat_at:
        connection.next_heartbeat_at = now + limits.heartbeat_interval_s
        connection.heartbeats_sent += 1
        is_full = connection.heartbeats_sent % FULL_HEARTBEAT_EVERY == 0
        _push_heartbeats(connection, is_full=is_full, wall_now=wall_now)


def _push_heartbeats(connection: Connection, *, is_full: bool, wall_now: float) -> None:
    """State the topics that are due; a client whose answers wait hears of the rest next time."""
    due = [
        subscription
        for subscription in connection.subscriptions.values()
        if is_full or subscription.source.head_seq != subscription.announced_seq
    ]
    server_time_ms = round(wall_now * 1000)
    is_said = False
    while due and connection.has_room:
        topics = tuple(_state(subscription) for subscription in due[:TOPICS_PER_HEARTBEAT])
        connection.push_control(ServerHeartbeat(topics=topics, server_time_ms=server_time_ms))
        del due[:TOPICS_PER_HEARTBEAT]
        is_said = True
    if not is_said:
        connection.push_control(ServerHeartbeat(topics=(), server_time_ms=server_time_ms))


def _state(subscription: Subscription) -> TopicHeartbeat:
    """State head and chain, and how far the subscription is from going stale.

    Headroom in frames is what the replay budget leaves; in time, what retention guarantees to a
    frame committed now. Both are estimates: budgets count bytes too, and floors move by policy.
    """
    topic_class = subscription.parsed.topic_class
    head_seq = subscription.announced_seq = subscription.source.head_seq
    behind = max(0, head_seq - subscription.position)
    return TopicHeartbeat(
        topic=subscription.parsed.name,
        head_seq=head_seq,
        chain=subscription.source.head_chain,
        headroom_frames=max(0, topic_class.replay_budget_events - behind),
        headroom_ms=round(topic_class.retention_s * 1000),
    )
