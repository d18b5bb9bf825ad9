"""One value of each control message, for the tests of both directions."""

from khala_contracts import reason_codes
from khala_contracts.server_messages import (
    ConnectionLimits,
    ErrorMessage,
    GoAway,
    Lagging,
    Renewed,
    ReplayComplete,
    ServerControl,
    ServerHeartbeat,
    SnapshotInfo,
    StaleCursor,
    StaleReason,
    Subscribed,
    SubscriptionMode,
    TopicHeartbeat,
    Unsubscribed,
    UnsubscribedReason,
    Welcome,
)
from khala_contracts.topics import Tier, TopicName

TOPIC = TopicName("run:x:events")
CHAIN = bytes(range(32))
BIG = 2**63 - 1
CONTROLS: list[ServerControl] = [
    Welcome("con", "nod", 1, 2, 15_000, ConnectionLimits(1, 2, 3, 4, 5, 6), BIG, BIG - 1),
    Subscribed(TOPIC, "lin", BIG, 1, CHAIN, Tier.WARM, SubscriptionMode.REPLAYING, 0),
    ReplayComplete(TOPIC, BIG, CHAIN),
    Unsubscribed(TOPIC, UnsubscribedReason.FORBIDDEN),
    ServerHeartbeat((TopicHeartbeat(TOPIC, BIG, CHAIN, 5, 6), TopicHeartbeat(TOPIC, 0, CHAIN)), BIG),
    ServerHeartbeat((), 0),
    Lagging(TOPIC, 8, BIG),
    StaleCursor(TOPIC, StaleReason.RETENTION_EXPIRED, "lin", BIG, 101, CHAIN),
    StaleCursor(
        TOPIC, StaleReason.COMPACTION_BOUNDARY, "lin", 9, 9, CHAIN, SnapshotInfo(True, 8, CHAIN, 1, "/p")
    ),
    StaleCursor(TOPIC, StaleReason.LINEAGE_MISMATCH, "lin", 9, 1, CHAIN, SnapshotInfo(False)),
    Renewed(BIG),
    ErrorMessage.of(
        reason_codes.SLOW_CONSUMER, topic=TOPIC, details={"b": "2", "a": "1"}, retry_after_ms=2**32 - 1
    ),
    GoAway(1, 2),
    GoAway(0, 0, "ticket"),
]
