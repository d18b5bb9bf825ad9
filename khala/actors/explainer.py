"""Asks the live topics and the trace of a node about one frame. Synchronous: one consistent answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from khala.core.explanation import NodeExplanation, Standing, describe_subscription, describe_topic

if TYPE_CHECKING:
    from khala.actors.registry import TopicRegistry
    from khala.core.subscription import Subscription
    from khala_contracts.topics import TopicName


def explain_frame(topics: TopicRegistry, topic: TopicName, seq: int) -> NodeExplanation:
    """Return what this node knows of a frame; of subscriptions, running ones last."""
    actor = topics.find(topic)
    is_live = actor is not None and actor.is_initialised
    facts = describe_topic(
        seq,
        topics.trace.find_topic(topic),
        head_seq=actor.head_seq if actor is not None and is_live else None,
    )
    running = {subscription.note: subscription for subscription in actor.subscriptions} if actor else {}
    ended = [note for note in topics.trace.find_subscriptions(topic) if note not in running]
    described = [describe_subscription(seq, note, None, facts) for note in ended]
    described += [
        describe_subscription(seq, note, _standing(subscription), facts)
        for note, subscription in running.items()
    ]
    return NodeExplanation(topics.trace.started_at, facts, tuple(described))


def _standing(subscription: Subscription) -> Standing:
    return Standing(
        position=subscription.position,
        sent=subscription.position - subscription.sink.unsent_part(subscription),
        head_seq=subscription.source.head_seq,
        is_replaying=subscription.is_replaying,
        is_waiting_for_page=subscription.is_waiting_for_page,
        backlogged_since=subscription.sink.backlogged_since,
    )
