"""Looks at the subscriptions of connections that have bytes waiting, and acts on those too slow.

Called by the sweeper for each connection at each sweep; a connection that has drained costs one
comparison. Who is too slow, and what is due: core/slow_consumer.py. Keeps INV-7: what is remembered
of a slow subscription is of constant size and gone once its connection drains.
"""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING

import trio

from khala.core.protocol import Phase
from khala.core.rate_limit import SlidingCount
from khala.core.slow_consumer import Progress, SlowConsumer, SlowConsumerAction, policy_for
from khala.core.subscription import EndedReleased
from khala_contracts.codec import Lagging

if TYPE_CHECKING:
    from khala.actors.connection import Connection
    from khala.core.counters import NodeCounters
    from khala.core.limits import NodeLimits
    from khala.core.subscription import Subscription


def look_for_slow_consumers(
    connection: Connection, *, limits: NodeLimits, counters: NodeCounters, now: float
) -> None:
    """Judge every subscription of a connection once, and do what is due."""
    backlogged_since = connection.outbound.backlogged_since
    if backlogged_since is None and not connection.slow_consumers:
        return
    for subscription in tuple(connection.subscriptions.values()):
        slow = connection.slow_consumers.get(subscription)
        if backlogged_since is None and not (slow is not None and subscription.is_waiting_for_page):
            connection.slow_consumers.pop(subscription, None)
            continue
        progress = _progress(connection, subscription)
        if progress is None:
            connection.slow_consumers.pop(subscription, None)
            continue
        if slow is None or slow.has_drained(progress.sent, backlogged_since):
            policy = policy_for(subscription.parsed.topic_class.tier, limits)
            slow = connection.slow_consumers[subscription] = SlowConsumer(policy, backlogged_since)
        # A notice that has no room is given later, and nothing else is done before it.
        if not connection.outbound.has_room and not slow.is_notified:
            continue
        action = slow.judge(progress, now)
        if action is not None:
            _act(connection, subscription, action, counters=counters)
            if connection.phase is Phase.CLOSING:
                return


def _progress(connection: Connection, subscription: Subscription) -> Progress | None:
    """Return how far a subscription is; None if everything there is was taken."""
    source = subscription.source
    sent = subscription.position - connection.outbound.unsent_part(subscription)
    if sent >= source.head_seq:
        return None
    unsent_since: float | None = None
    # Not `is_replaying`: the end of a replay may have left our hands, and not the client's.
    if floor(sent) >= subscription.through_seq:
        unsent_since = source.appended_at(floor(sent) + 1)
        if unsent_since is None:
            unsent_since = subscription.began_at
    return Progress(
        sent,
        source.head_seq,
        unsent_since,
        is_offered=not subscription.is_waiting_for_page,
        is_in_window=source.holds_after(subscription.position),
    )


def _act(
    connection: Connection, subscription: Subscription, action: SlowConsumerAction, *, counters: NodeCounters
) -> None:
    match action:
        case SlowConsumerAction.THROTTLE:
            counters.note_slow_topic(action.value, subscription.parsed.topic_class.tier)
            first_unsent = floor(subscription.position - connection.outbound.unsent_part(subscription)) + 1
            connection.push_control(
                Lagging(
                    subscription.parsed.name,
                    from_seq=first_unsent,
                    head_seq=subscription.source.head_seq,
                )
            )
        case SlowConsumerAction.CATCH_UP:
            counters.note_slow_topic(action.value, subscription.parsed.topic_class.tier)
        case SlowConsumerAction.RELEASE:
            _release(connection, subscription, counters=counters)
        case SlowConsumerAction.DISCONNECT:
            counters.note_slow_disconnect(subscription.parsed.topic_class.tier)
            connection.close_slow(_release_limit(subscription))


def _release(connection: Connection, subscription: Subscription, *, counters: NodeCounters) -> None:
    """Release a topic that is taken too slowly; too many of them end the connection instead."""
    if connection.releases is None:
        limits = connection.limits
        connection.releases = SlidingCount(limits.releases_max, limits.releases_window_s)
    if connection.releases.exceeds(trio.current_time()):
        counters.note_slow_disconnect(subscription.parsed.topic_class.tier)
        connection.close_slow("releases_max")
    else:
        counters.note_slow_topic("release", subscription.parsed.topic_class.tier)
        connection.note_limit(_release_limit(subscription))
        connection.finish_subscription(subscription, EndedReleased())


def _release_limit(subscription: Subscription) -> str:
    return f"release_after_{subscription.parsed.topic_class.tier.value}_s"
