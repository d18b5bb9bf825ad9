"""What the sans-IO machines report to the ring around them. Pure values.

``Output`` is what one step returns: bytes to send in this order, happenings to act on in this
order, and whether to close. The ring performs it before it takes the next step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from khala_client.core.apply import Applied
    from khala_client.core.cursor import Cursor
    from khala_client.errors import KhalaError
    from khala_contracts.codec import ErrorMessage, Welcome
    from khala_contracts.topics import TopicName

__all__ = [
    "CloseRequest",
    "Delivered",
    "GapSeen",
    "Happening",
    "HeadSeen",
    "Lagged",
    "LeaveAsked",
    "Live",
    "Output",
    "Released",
    "Replaying",
    "Retrying",
    "ServerRefused",
    "TokenDue",
    "TopicEnded",
    "Welcomed",
]


@attrs.frozen
class Welcomed:
    """The connection is open."""

    welcome: Welcome


@attrs.frozen
class TokenDue:
    """Mint a token for all followed topics and hand it to ``renew``."""


@attrs.frozen
class LeaveAsked:
    """The node leaves: the machine closes when it is told, and connects again in ``reconnect_after_ms``."""

    reconnect_after_ms: int


@attrs.frozen
class ServerRefused:
    """An error about the whole connection; its close follows."""

    error: ErrorMessage


@attrs.frozen
class Delivered:
    """Frames that the apply rule accepted: consecutive, after everything delivered before.

    ``cursor`` is the position after the last of them.
    """

    cursor: Cursor
    applied: tuple[Applied, ...] = attrs.field(repr=False)

    @property
    def topic(self) -> TopicName:
        """The topic of the cursor."""
        return self.cursor.topic


@attrs.frozen
class Replaying:
    """The node accepted the subscription; frames ``after_seq + 1 .. head_seq`` come first.

    ``cursor`` is where it starts, with lineage and chain, also if it was asked for by a word.
    """

    cursor: Cursor
    head_seq: int

    @property
    def topic(self) -> TopicName:
        """The topic of the cursor."""
        return self.cursor.topic


@attrs.frozen
class Live:
    """Everything through ``seq`` was applied, and the node's chain there equals ours."""

    topic: TopicName
    seq: int
    chain: bytes = attrs.field(repr=False)


@attrs.frozen
class HeadSeen:
    """A heartbeat's news about one topic; estimates of what is left before the cursor goes stale."""

    topic: TopicName
    head_seq: int
    headroom_frames: int
    headroom_ms: int


@attrs.frozen
class Lagged:
    """We take less than the topic produces; nothing is lost."""

    topic: TopicName
    from_seq: int
    head_seq: int


@attrs.frozen
class GapSeen:
    """A defect of the path: frames are missing on the wire. The topic resumes after its cursor."""

    topic: TopicName
    expected_seq: int
    seq: int


@attrs.frozen
class Released:
    """The node let go of a topic that was taken too slowly; it is resumed in ``delay_s`` by itself."""

    topic: TopicName
    delay_s: float


@attrs.frozen
class Retrying:
    """One topic was refused for now; it is asked for again in ``delay_s``."""

    topic: TopicName
    code: str
    delay_s: float


@attrs.frozen
class TopicEnded:
    """This subscription is over; ``error`` says why. Other topics stay."""

    topic: TopicName
    error: KhalaError


Happening = (
    Welcomed
    | TokenDue
    | LeaveAsked
    | ServerRefused
    | Delivered
    | Replaying
    | Live
    | HeadSeen
    | Lagged
    | GapSeen
    | Released
    | Retrying
    | TopicEnded
)


@attrs.frozen
class CloseRequest:
    """Close the socket with ``code``; ``reason`` is for the log."""

    code: int
    reason: str


@attrs.frozen
class Output:
    """The I/O that one step asks for."""

    send: tuple[bytes, ...] = ()
    happenings: tuple[Happening, ...] = ()
    close: CloseRequest | None = None
    ping: bool = False
