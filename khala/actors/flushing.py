"""The last frames of a client whose node leaves: what the windows hold at its turn, and then the close."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from khala.actors.outbound import OutboundStream
    from khala.core.departures import Departure
    from khala.core.limits import NodeLimits
    from khala.core.subscription import Subscription
    from khala_contracts.topics import TopicName


class Flushed(Protocol):
    """What is needed of the connection."""

    limits: NodeLimits
    outbound: OutboundStream
    subscriptions: dict[TopicName, Subscription]

    def wait_until(self, is_met: Callable[[], bool]) -> Awaitable[None]:
        """Wait for progress until the condition holds. Cancellation: safe."""

    def close_draining(self, turn: Departure) -> None:
        """Close at its turn."""


def begin_flush(connection: Flushed) -> bool:
    """Let a client's topics end with what their windows hold now; return whether some of it has still to be sent."""
    for subscription in connection.subscriptions.values():
        subscription.stop_growing()
        if subscription.has_frames:
            # Perhaps its topic has not come to it yet.
            connection.outbound.wake(subscription)
    return connection.outbound.has_writer


async def flush_then_close(connection: Flushed, turn: Departure) -> None:
    """Wait for the last frame as long as the client takes some, then close."""
    outbound, is_taking = connection.outbound, True
    while is_taking and (taken_at := outbound.stalled_since) is not None:
        with trio.move_on_at(min(turn.flushed_by, taken_at + connection.limits.close_timeout_s)):
            await connection.wait_until(lambda: not outbound.has_writer)
        is_taking = trio.current_time() < turn.flushed_by and outbound.stalled_since != taken_at
    connection.close_draining(turn)
