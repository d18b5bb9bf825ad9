"""What the node counts: plain integers that actors add to and ``/metrics`` reads.

No labels but topic class, app version, tier, close code and reason code, all of bounded number; never a
topic, a principal or an address. On the way of a frame only integers are added to, and those of a topic
class are found once for each topic, not once for each frame.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

import attrs

from khala_contracts.topics import TOPIC_CLASSES, Tier

# Seconds. From a replay that the window answers (1 ms) to one at the pace of a slow phone.
DURATION_BUCKETS_S: Final = (
    0.001,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    120.0,
)

# Shares of a replay budget. Above 1 the answer was stale, so the last of them is the number of the served.
RATIO_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)

# Versions of clients that get a label of their own; the first ones that were welcomed have it. What a
# client calls itself is its own text: without a bound it could make a time series for each connection.
APP_VERSIONS_MAX: Final = 32
OTHER: Final = "other"
_VERSION_MAX_CHARS: Final = 64
_VERSION_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-/")

# Close codes that clients send or that the library finds. A client may send any of 4,000.
PEER_CLOSE_CODES: Final = frozenset(
    {1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015}
)


@attrs.define(eq=False)
class DurationCounts:
    """A histogram of durations: how many fell into each bucket, and their sum.

    Invariant: ``len(buckets) == len(DURATION_BUCKETS_S) + 1``; the last bucket has no upper bound.
    """

    buckets: list[int] = attrs.field(factory=lambda: [0] * (len(DURATION_BUCKETS_S) + 1))
    sum_s: float = 0.0

    def observe(self, duration_s: float) -> None:
        """Count one duration."""
        self.buckets[bisect_left(DURATION_BUCKETS_S, duration_s)] += 1
        self.sum_s += duration_s


@attrs.define(eq=False)
class RatioCounts:
    """A histogram of shares: how many fell into each bucket, inclusive at its bound, and their sum.

    Invariant: ``len(buckets) == len(RATIO_BUCKETS) + 1``; the last bucket has no upper bound.
    """

    buckets: list[int] = attrs.field(factory=lambda: [0] * (len(RATIO_BUCKETS) + 1))
    sum: float = 0.0

    def observe(self, ratio: float) -> None:
        """Count one share."""
        self.buckets[bisect_left(RATIO_BUCKETS, ratio)] += 1
        self.sum += ratio


@attrs.define(eq=False)
class ClassCounters:
    """Totals of one topic class since the process started."""

    # Subscriptions that began.
    joins: int = 0
    # Frames put into windows, and their encoded bytes.
    frames_appended: int = 0
    bytes_appended: int = 0
    # Ranges handed to connections.
    deliveries: int = 0
    # Frames that a living subscription was never given; see actors/observer.py. Stays 0.
    frames_dropped: int = 0
    stale_cursors: Counter[str] = attrs.field(factory=Counter)
    # From `subscribed` to `replay_complete`, of subscriptions that had frames to replay.
    replay_durations: DurationCounts = attrs.field(factory=DurationCounts)


@attrs.define(eq=False)
class VersionCounters:
    """Totals of one version of the clients since the process started; ``clients_open`` is of now."""

    welcomes: int = 0
    clients_open: int = 0
    # Connections whose first subscribe resumes with a cursor.
    reconnects: int = 0


@attrs.define(eq=False)
class ClassDelivery:
    """How delivery of one topic class stood when the observer looked last."""

    subscriptions: int = 0
    # Subscriptions before their replay_complete; frames, encoded bytes and age are sums or maxima of theirs.
    replaying: int = 0
    replay_lag_frames: int = 0
    replay_lag_frames_max: int = 0
    replay_lag_bytes: int = 0
    replay_age_max_s: float = 0.0
    # Live subscriptions: how far the last of them is behind its head, and how far apart the first and the
    # last subscriber of one topic are.
    live_lag_frames_max: int = 0
    spread_frames_max: int = 0


@attrs.define(eq=False)
class DeliveryState:
    """What waits for sockets, and how far subscriptions are behind: one look over all of them."""

    pages_bytes: int = 0
    outbound_bytes: int = 0
    outbound_bytes_max: int = 0
    connections_blocked: int = 0
    write_stall_max_s: float = 0.0
    subscriptions_waiting_for_page: int = 0
    subscriptions_stuck: int = 0
    by_class: dict[str, ClassDelivery] = attrs.field(
        factory=lambda: {name: ClassDelivery() for name in TOPIC_CLASSES}
    )


@attrs.define(eq=False)
class NodeCounters:
    """Totals since the process started, and gauges where the name says so."""

    connections_accepted: int = 0
    connections_open: int = 0
    # Connections that have not sent a valid hello yet.
    handshakes_open: int = 0
    handshakes_rejected: Counter[str] = attrs.field(factory=Counter)
    hellos_refused: Counter[str] = attrs.field(factory=Counter)
    closes: Counter[str] = attrs.field(factory=Counter)
    # Clients that were told to go, since the node leaves.
    go_aways: int = 0
    subscribes: Counter[str] = attrs.field(factory=Counter)
    # By limit; what each is told: core/limits.py.
    limit_violations: Counter[str] = attrs.field(factory=Counter)
    evictions: Counter[str] = attrs.field(factory=Counter)
    # From the time that control gave a revocation to the end of a connection here.
    eviction_delays: DurationCounts = attrs.field(factory=DurationCounts)
    revocation_hints: int = 0
    # Reports to the runtime, by what became of them.
    reports: Counter[str] = attrs.field(factory=Counter)
    # Decisions about access, by what became of their report: sent, or why they were only counted.
    audit_events: Counter[str] = attrs.field(factory=Counter)
    # Statements that read what subscribes see, and subscribes that needed none.
    observations_read: int = 0
    resumes_unread: int = 0
    subscriptions_open: int = 0
    bytes_pumped: int = 0
    records: Counter[str] = attrs.field(factory=Counter)
    records_forged: int = 0
    position_unknown: int = 0
    heals: int = 0
    pages_read: int = 0
    page_read_failures: int = 0
    # Journal rows met whose bytes are not the frame that their seq says, counted each time.
    rows_unreadable: int = 0
    position_checks: int = 0
    position_check_failures: int = 0
    topics_live: int = 0
    task_restarts: Counter[str] = attrs.field(factory=Counter)
    slow_consumer_actions: Counter[str] = attrs.field(factory=Counter)
    # Those of them that concern one topic, by its tier; a disconnect concerns the whole connection.
    slow_topic_actions: dict[str, Counter[str]] = attrs.field(
        factory=lambda: {tier.value: Counter() for tier in Tier}
    )
    # By tier: what each subscribe that was judged by a replay budget uses of it, served or not.
    replay_budget_used: dict[str, RatioCounts] = attrs.field(
        factory=lambda: {tier.value: RatioCounts() for tier in Tier}
    )
    # By name of the topic class; closed, since topics outside the registry do not parse.
    by_class: dict[str, ClassCounters] = attrs.field(
        factory=lambda: {name: ClassCounters() for name in TOPIC_CLASSES}
    )
    # Invariant: at most APP_VERSIONS_MAX versions, and OTHER.
    by_version: dict[str, VersionCounters] = attrs.field(factory=lambda: {OTHER: VersionCounters()})
    # Replaced as a whole by each look; never changed afterwards.
    delivery: DeliveryState = attrs.field(factory=DeliveryState)

    @property
    def welcomes(self) -> int:
        """Hellos that were welcomed."""
        return sum(version.welcomes for version in self.by_version.values())

    @property
    def frames_appended(self) -> int:
        """Frames put into windows."""
        return sum(of_class.frames_appended for of_class in self.by_class.values())

    @property
    def deliveries(self) -> int:
        """Ranges handed to connections."""
        return sum(of_class.deliveries for of_class in self.by_class.values())

    @property
    def stale_cursors(self) -> Counter[str]:
        """Stale cursors by reason."""
        return sum((of_class.stale_cursors for of_class in self.by_class.values()), Counter())

    def note_slow_topic(self, action: str, tier: Tier) -> None:
        """Count an action against a slow consumer of one topic of this tier."""
        self.slow_consumer_actions[action] += 1
        self.slow_topic_actions[tier.value][action] += 1

    def note_slow_disconnect(self, tier: Tier) -> None:
        """Count a disconnect among those of a tier; the one who closes the connection counts it in all."""
        self.slow_topic_actions[tier.value]["disconnect"] += 1

    def welcome(self, client_build_id: str) -> str:
        """Count a welcomed client; return its version's label, to be given to ``leave`` at its end."""
        label = client_build_id
        if label not in self.by_version:
            is_label = 0 < len(label) <= _VERSION_MAX_CHARS and _VERSION_CHARS.issuperset(label)
            if is_label and len(self.by_version) <= APP_VERSIONS_MAX:
                self.by_version[label] = VersionCounters()
            else:
                label = OTHER
        version = self.by_version[label]
        version.welcomes += 1
        version.clients_open += 1
        return label

    def leave(self, version_label: str) -> None:
        """Count the end of a client that was welcomed."""
        self.by_version[version_label].clients_open -= 1


def peer_close_label(code: int) -> str:
    """Return the label of an end that the client or the library chose."""
    return str(code) if code in PEER_CLOSE_CODES else OTHER
