"""What a follower may tell its user beside the events: how the stream is doing. Pure values.

Given to ``on_notice`` in order with the events, synchronously: show it, count it, and return.
"""

from __future__ import annotations

import attrs

from khala_client.core.happenings import GapSeen, HeadSeen, Lagged, Live, Released, Replaying, Retrying

__all__ = [
    "Connected",
    "Disconnected",
    "GapSeen",
    "HeadSeen",
    "HistoryRead",
    "Lagged",
    "Live",
    "Notice",
    "Released",
    "Replaying",
    "Retrying",
]


@attrs.frozen
class Connected:
    """The connection is open; quote its id when you report a problem."""

    connection_id: str
    node_id: str


@attrs.frozen
class Disconnected:
    """The connection ended, or could not be made; the next attempt comes in ``retry_in_s``."""

    code: str
    retry_in_s: float


@attrs.frozen
class HistoryRead:
    """A page of history was read over HTTP, because it lies beyond what is replayed."""

    topic: str
    through_seq: int
    head_seq: int


Notice = (
    Connected
    | Disconnected
    | GapSeen
    | HeadSeen
    | HistoryRead
    | Lagged
    | Live
    | Released
    | Replaying
    | Retrying
)
