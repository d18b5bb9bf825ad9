"""One task that looks at every subscription now and then, and writes down how delivery stands.

Gauges such as "how far are replays behind" cannot be counted on the way of a frame without a cost for
each; a look every ``OBSERVE_EVERY_S`` costs a few microseconds for each subscription instead, and gives
others a turn in between. ``/metrics`` shows the newest finished look.

It also finds what must never be: a live subscription with frames to send, nothing in its way, that
does not move from one look to the next. Nobody will send these frames; they are counted as dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from khala.core.counters import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from khala.actors.connection import Connection
    from khala.core.counters import ClassDelivery, NodeCounters
    from khala.core.subscription import Subscription
    from khala_contracts.topics import TopicName

# Longer: a scrape every 15 s would see old figures. Shorter: a tenth of a percent of a core for every
# thousand subscriptions.
OBSERVE_EVERY_S: Final = 5.0
# A look gives others a turn after so many connections and subscriptions: about 0.6 ms. A connection has
# up to 256 subscriptions, so connections alone would say nothing about the time.
_LOOKS_PER_TURN: Final = 500


class DeliveryObserver:
    """Looks at the connections of one node."""

    def __init__(
        self,
        connections: Iterable[Connection],
        *,
        counters: NodeCounters,
        read_pages_bytes: Callable[[], int],
    ) -> None:
        """Look at ``connections``, read anew each time; write ``counters.delivery``."""
        self._connections = connections
        self._counters = counters
        self._read_pages_bytes = read_pages_bytes
        # Positions of the subscriptions that could have been sent to at the last look, and were not.
        self._suspects: dict[Subscription, int] = {}
        self._stuck: dict[Subscription, int] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await trio.sleep(OBSERVE_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Look once. Cancellation: the look before stays."""
        state = DeliveryState(pages_bytes=self._read_pages_bytes())
        suspects: dict[Subscription, int] = {}
        nearest: dict[TopicName, int] = {}
        furthest: dict[TopicName, int] = {}
        looks = 0
        for connection in tuple(self._connections):
            _look_at_connection(connection, state)
            looks += 1 + len(connection.subscriptions)
            for subscription in connection.subscriptions.values():
                in_class = state.by_class[subscription.parsed.topic_class.name]
                in_class.subscriptions += 1
                state.subscriptions_waiting_for_page += subscription.is_waiting_for_page
                if subscription.is_replaying:
                    _look_at_replay(subscription, in_class)
                    continue
                name, position = subscription.parsed.name, subscription.position
                lag = subscription.source.head_seq - position
                in_class.live_lag_frames_max = max(in_class.live_lag_frames_max, lag)
                nearest[name] = max(nearest.get(name, position), position)
                furthest[name] = min(furthest.get(name, position), position)
                spread = nearest[name] - furthest[name]
                in_class.spread_frames_max = max(in_class.spread_frames_max, spread)
                if subscription.has_frames and connection.outbound.stalled_since is None:
                    suspects[subscription] = position
            if looks >= _LOOKS_PER_TURN:
                looks = 0
                await trio.lowlevel.checkpoint()
        self._judge_suspects(suspects)
        state.subscriptions_stuck = len(self._stuck)
        self._counters.delivery = state

    def _judge_suspects(self, suspects: dict[Subscription, int]) -> None:
        """Count the frames of those that stand where they stood, once."""
        stuck = {
            subscription: position
            for subscription, position in suspects.items()
            if self._suspects.get(subscription) == position and subscription.has_frames
        }
        for subscription, position in stuck.items():
            if self._stuck.get(subscription) != position:
                counts = self._counters.by_class[subscription.parsed.topic_class.name]
                counts.frames_dropped += subscription.source.head_seq - position
        self._stuck = stuck
        self._suspects = suspects


def _look_at_connection(connection: Connection, state: DeliveryState) -> None:
    waiting_bytes = connection.outbound.waiting_bytes
    state.outbound_bytes += waiting_bytes
    state.outbound_bytes_max = max(state.outbound_bytes_max, waiting_bytes)
    stalled_since = connection.outbound.stalled_since
    if stalled_since is not None:
        state.connections_blocked += 1
        state.write_stall_max_s = max(state.write_stall_max_s, trio.current_time() - stalled_since)


def _look_at_replay(subscription: Subscription, in_class: ClassDelivery) -> None:
    frames = subscription.through_seq - subscription.start_seq
    left = subscription.through_seq - subscription.position
    in_class.replaying += 1
    in_class.replay_lag_frames += left
    in_class.replay_lag_frames_max = max(in_class.replay_lag_frames_max, left)
    # Exact at both ends; in between frames are taken to be of equal size.
    in_class.replay_lag_bytes += subscription.replay_bytes * left // max(1, frames)
    age_s = trio.current_time() - subscription.began_at
    in_class.replay_age_max_s = max(in_class.replay_age_max_s, age_s)
