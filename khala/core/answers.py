"""Answers that state an observation: what the client is told is what was judged, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from khala_contracts.codec import Subscribed, SubscriptionMode

if TYPE_CHECKING:
    from khala.core.classification import Observation
    from khala.core.subscription import Subscription


def subscribed_of(subscription: Subscription, observation: Observation) -> Subscribed:
    """Return the ``subscribed`` of a subscription that starts, or repeats, at this observation."""
    is_caught_up = subscription.position >= subscription.through_seq
    is_live = is_caught_up or not subscription.is_replaying
    return Subscribed(
        topic=subscription.parsed.name,
        lineage=observation.lineage,
        head_seq=observation.head_seq,
        floor_seq=observation.floor_seq,
        chain_at_start=subscription.start_chain,
        tier=subscription.parsed.topic_class.tier,
        mode=SubscriptionMode.LIVE if is_live else SubscriptionMode.REPLAYING,
        start_seq=subscription.start_seq,
    )
