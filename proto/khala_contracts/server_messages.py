"""What a node says to a client, as values.

Times are Unix milliseconds. ``FramesMessage`` has frames of one topic, ascending by one; every other
message is control. Mapping to and from bytes: ``server_encoding.py``, ``server_decoding.py``.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from khala_contracts.reason_codes import Advice, ReasonCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from khala_contracts.frames import Frame
    from khala_contracts.topics import Tier, TopicName

__all__ = [
    "ConnectionLimits",
    "ErrorMessage",
    "FramesMessage",
    "GoAway",
    "Lagging",
    "Renewed",
    "ReplayComplete",
    "ServerControl",
    "ServerHeartbeat",
    "ServerMessage",
    "SnapshotInfo",
    "StaleCursor",
    "StaleReason",
    "Subscribed",
    "SubscriptionMode",
    "TopicHeartbeat",
    "TopicPosition",
    "Unsubscribed",
    "UnsubscribedReason",
    "Welcome",
]

_NO_DETAILS: Final[Mapping[str, str]] = MappingProxyType({})


class StaleReason(Enum):
    """Why a cursor cannot be continued; deterministic policy only."""

    RETENTION_EXPIRED = "retention_expired"
    COMPACTION_BOUNDARY = "compaction_boundary"
    REPLAY_BUDGET_EXCEEDED = "replay_budget_exceeded"
    LINEAGE_MISMATCH = "lineage_mismatch"


class SubscriptionMode(Enum):
    """Whether frames before the head are still to come."""

    LIVE = "live"
    REPLAYING = "replaying"


class UnsubscribedReason(Enum):
    """Why a subscription ended without a fault of the cursor."""

    ASKED = "asked"
    SLOW_CONSUMER = "slow_consumer"
    FORBIDDEN = "forbidden"


@attrs.frozen
class FramesMessage:
    """Frames of one topic, ascending by one.

    No frames at all: a control message that this build does not know. There is nothing to apply.
    """

    frames: tuple[Frame, ...]


@attrs.frozen
class ConnectionLimits:
    """Limits that the client should know of; 0 if the server did not say."""

    inbound_message_max_bytes: int = 0
    client_messages_per_s: int = 0
    client_messages_burst: int = 0
    subscriptions_max: int = 0
    topics_per_subscribe_max: int = 0
    dead_after_ms: int = 0


@attrs.frozen
class Welcome:
    """The hello was accepted."""

    connection_id: str
    node_id: str
    protocol: int
    schema: int
    heartbeat_interval_ms: int
    limits: ConnectionLimits
    token_expires_at_ms: int
    server_time_ms: int


@attrs.frozen
class Subscribed:
    """Frames after ``start_seq`` follow, beginning with this chain."""

    topic: TopicName
    lineage: str
    head_seq: int
    floor_seq: int
    chain_at_start: bytes = attrs.field(repr=False)
    tier: Tier
    mode: SubscriptionMode
    start_seq: int


@attrs.frozen
class ReplayComplete:
    """Everything up to ``through_seq`` was sent; from here on frames are live."""

    topic: TopicName
    through_seq: int
    chain: bytes = attrs.field(repr=False)


@attrs.frozen
class Unsubscribed:
    """No frame of this topic follows."""

    topic: TopicName
    reason: UnsubscribedReason


@attrs.frozen
class TopicHeartbeat:
    """Where a topic stands, and estimates of how far this subscription is from going stale."""

    topic: TopicName
    head_seq: int
    chain: bytes = attrs.field(repr=False)
    headroom_frames: int = 0
    headroom_ms: int = 0


@attrs.frozen
class ServerHeartbeat:
    """A sign of life, with the topics that moved."""

    topics: tuple[TopicHeartbeat, ...]
    server_time_ms: int


@attrs.frozen
class Lagging:
    """The client takes less than there is."""

    topic: TopicName
    from_seq: int
    head_seq: int


@attrs.frozen
class SnapshotInfo:
    """From what a client may start anew."""

    available: bool
    as_of_seq: int = 0
    chain: bytes = attrs.field(default=b"", repr=False)
    format_version: int = 0
    path: str = ""


class TopicPosition(Protocol):
    """What an observation of a topic says about its position."""

    @property
    def lineage(self) -> str:
        """Current lineage."""

    @property
    def head_seq(self) -> int:
        """Newest committed seq."""

    @property
    def floor_seq(self) -> int:
        """Oldest retained seq."""

    @property
    def floor_chain(self) -> bytes:
        """Chain at ``floor_seq - 1``."""


@attrs.frozen
class StaleCursor:
    """The cursor cannot be continued; the observation that says so comes with it."""

    topic: TopicName
    reason: StaleReason
    lineage: str
    head_seq: int
    floor_seq: int
    floor_chain: bytes = attrs.field(repr=False)
    snapshot: SnapshotInfo | None = None

    @classmethod
    def of(cls, topic: TopicName, reason: StaleReason, seen: TopicPosition) -> StaleCursor:
        """Return the answer for an observation."""
        return cls(topic, reason, seen.lineage, seen.head_seq, seen.floor_seq, seen.floor_chain)


@attrs.frozen
class Renewed:
    """Authority now lasts until then."""

    token_expires_at_ms: int


@attrs.frozen
class ErrorMessage:
    """One refusal; ``topic`` is empty if it concerns the whole connection or request.

    ``code`` is kept as it came, also if this build does not know it; ``advice`` is then GIVE_UP.
    """

    code: str
    message: str
    topic: str = ""
    retryable: bool = False
    advice: Advice = Advice.GIVE_UP
    retry_after_ms: int = 0
    docs: str = ""
    details: Mapping[str, str] = _NO_DETAILS
    request_id: str = ""

    @classmethod
    def of(
        cls,
        reason: ReasonCode,
        *,
        topic: str = "",
        details: Mapping[str, str] = _NO_DETAILS,
        retry_after_ms: int = 0,
        request_id: str = "",
    ) -> ErrorMessage:
        """Return the error of a registry row: text, advice and link are the row's."""
        return cls(
            code=reason.name,
            message=reason.text,
            topic=topic,
            retryable=reason.retryable,
            advice=reason.advice,
            retry_after_ms=retry_after_ms,
            docs=reason.docs,
            details=details,
            request_id=request_id,
        )


@attrs.frozen
class GoAway:
    """This node is leaving: reconnect after the one time, and before the other it will close."""

    reconnect_after_ms: int
    deadline_ms: int
    ticket: str | None = attrs.field(default=None, repr=False)


ServerControl = (
    Welcome
    | Subscribed
    | ReplayComplete
    | Unsubscribed
    | ServerHeartbeat
    | Lagging
    | StaleCursor
    | Renewed
    | ErrorMessage
    | GoAway
)
ServerMessage = FramesMessage | ServerControl
