"""Looks at every subscription now and then: which topics are busy or behind, and who got what was due.

Beside observer.py, whose gauges are for this node's own ``/metrics``: what is seen here is per topic, goes to the
runtime in reports (node_reporter.py) and is seen nowhere else, because topics are never labels of metrics.

Remembers from one look to the next the heads of topics with subscribers, and of subscriptions those alone that
were behind: a node whose clients keep up remembers nothing for each of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from khala.core.fanout_figures import DUE_AFTER_S, FairnessSums, TopicFigures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from khala.actors.connection import Connection
    from khala.core.subscription import Subscription
    from khala_contracts.topics import TopicName

__all__ = ["FanoutLook", "FanoutLooks"]

# A look gives others a turn after so many connections and subscriptions; see observer.py.
_LOOKS_PER_TURN: Final = 500


@attrs.frozen
class _Behind:
    """Where a subscription stood that had not everything."""

    position: int
    turn_bytes: int
    was_full: bool


@attrs.define
class _Topic:
    subscription: Subscription
    subscribers: int = 0
    replaying: int = 0
    lag_frames_max: int = 0


@attrs.frozen
class FanoutLook:
    """What one look saw."""

    fairness: FairnessSums
    topics: list[TopicFigures]


class FanoutLooks:
    """Looks at the connections of one node."""

    def __init__(self) -> None:
        self._connections: Iterable[Connection] = ()
        self._at = -float("inf")
        self._heads: dict[TopicName, int] = {}
        self._behind: dict[Subscription, _Behind] = {}

    def watch(self, connections: Iterable[Connection]) -> None:
        """Look at these, read anew each time."""
        self._connections = connections

    async def look(self) -> FanoutLook:
        """Look once. Cancellation: the look before stays."""
        now = trio.current_time()
        fairness = FairnessSums()
        topics: dict[TopicName, _Topic] = {}
        behind: dict[Subscription, _Behind] = {}
        looks = 0
        for connection in tuple(self._connections):
            self._judge(connection, fairness, behind, now)
            for subscription in connection.subscriptions.values():
                _note_topic(topics, subscription)
            looks += 1 + len(connection.subscriptions)
            if looks >= _LOOKS_PER_TURN:
                looks = 0
                await trio.lowlevel.checkpoint()
        elapsed_s = now - self._at
        figures: list[TopicFigures] = []
        for number, (name, topic) in enumerate(topics.items(), start=1):
            if number % _LOOKS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            figures.append(self._figures(name, topic, elapsed_s))
        self._at, self._behind = now, behind
        self._heads = {row.topic: row.head_seq for row in figures}
        return FanoutLook(fairness, figures)

    def _judge(
        self,
        connection: Connection,
        fairness: FairnessSums,
        behind: dict[Subscription, _Behind],
        now: float,
    ) -> None:
        """Judge what the topics of one connection got; note those that are behind now."""
        is_full = connection.outbound.backlogged_since is not None
        contended: list[int] = []
        for subscription in connection.subscriptions.values():
            position, head_seq = subscription.position, subscription.source.head_seq
            before = self._behind.get(subscription)
            if position < head_seq:
                behind[subscription] = _Behind(position, subscription.turn_bytes, is_full)
            if is_full:
                if before is not None and before.was_full and position < head_seq:
                    contended.append(subscription.turn_bytes - before.turn_bytes)
                continue
            if before is not None:
                start = before.position
            elif subscription.began_at < self._at and subscription.parsed.name in self._heads:
                start = self._heads[subscription.parsed.name]
            else:
                continue
            due = head_seq - start
            if due <= 0:
                continue
            if position >= head_seq or not _is_overdue(subscription, now):
                fairness.note_whole(1)
            else:
                fairness.note_share(max(0, position - start) / due)
        fairness.note_contended(contended)

    def _figures(self, name: TopicName, topic: _Topic, elapsed_s: float) -> TopicFigures:
        head_seq = topic.subscription.source.head_seq
        # A topic that was not there has no rate yet; one whose history changed may have a lower head.
        grown = max(0, head_seq - self._heads.get(name, head_seq))
        return TopicFigures(
            topic=name,
            topic_class=topic.subscription.parsed.topic_class.name,
            head_seq=head_seq,
            subscribers=topic.subscribers,
            replaying=topic.replaying,
            frames_per_s=grown / elapsed_s if grown and elapsed_s else 0.0,
            lag_frames_max=topic.lag_frames_max,
        )


def _is_overdue(subscription: Subscription, now: float) -> bool:
    """Whether the next frame has been there for so long that it should have been sent."""
    if subscription.is_replaying or subscription.final_seq is not None:
        # Replays wait for their turn at the journal by design; what a leaving node does not send, another one does.
        return False
    since = subscription.source.appended_at(subscription.position + 1)
    return since is None or now - since > DUE_AFTER_S


def _note_topic(topics: dict[TopicName, _Topic], subscription: Subscription) -> None:
    topic = topics.get(subscription.parsed.name)
    if topic is None:
        topic = topics[subscription.parsed.name] = _Topic(subscription)
    topic.subscribers += 1
    if subscription.is_replaying:
        topic.replaying += 1
    else:
        topic.lag_frames_max = max(topic.lag_frames_max, subscription.source.head_seq - subscription.position)
