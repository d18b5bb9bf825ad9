"""Answers that state an observation: what the client is told is what was judged, nothing else."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from khala.core.subscription import EndedForbidden, EndedReleased, EndedStale, EndedTrouble
from khala.core.websocket_frames import frame_message
from khala_contracts import codec
from khala_contracts.codec import (
    ErrorMessage,
    ReplayComplete,
    StaleCursor,
    Subscribed,
    SubscriptionMode,
    Unsubscribed,
    UnsubscribedReason,
)

if TYPE_CHECKING:
    from khala.core.classification import Observation
    from khala.core.subscription import Subscription, SubscriptionEnding
    from khala_contracts.codec import ServerControl

# About 400 bytes each. Fewer: a storm over many topics encodes what it has encoded.
FRAMED_ANSWERS_MAX: Final = 1_024


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


def replay_complete_of(subscription: Subscription) -> ReplayComplete:
    """Return the barrier at the end of a replay."""
    return ReplayComplete(
        topic=subscription.parsed.name,
        through_seq=subscription.through_seq,
        chain=subscription.through_chain,
    )


def frame_control(message: ServerControl, *, is_text: bool) -> bytes:
    """Return one control message as a WebSocket message of its subprotocol.

    Clients that resume a topic together are told the same: such answers are encoded once.
    """
    if isinstance(message, Subscribed | ReplayComplete):
        return _framed_once(message, is_text)
    return _framed(message, is_text)


def _framed(message: ServerControl, is_text: bool) -> bytes:
    if is_text:
        return frame_message(codec.encode_server_control_json(message), is_text=True)
    return frame_message(codec.encode_server_control(message))


_framed_once: Final = lru_cache(maxsize=FRAMED_ANSWERS_MAX)(_framed)


def ending_of(subscription: Subscription, ending: SubscriptionEnding) -> tuple[str, ServerControl]:
    """Return the word for why a running subscription ends, and what its client is told."""
    topic = subscription.parsed.name
    match ending:
        case EndedStale(reason, seen):
            return f"stale_cursor.{reason.value}", StaleCursor.of(topic, reason, seen)
        case EndedForbidden():
            return "forbidden", Unsubscribed(topic, UnsubscribedReason.FORBIDDEN)
        case EndedReleased():
            return "slow_consumer", Unsubscribed(topic, UnsubscribedReason.SLOW_CONSUMER)
        case EndedTrouble(reason, retry_after_s):
            retry_after_ms = round(retry_after_s * 1000)
            return reason.name, ErrorMessage.of(reason, topic=topic, retry_after_ms=retry_after_ms)
