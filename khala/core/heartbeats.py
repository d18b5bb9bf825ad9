"""What a heartbeat says of one topic: its head, and how far the follower is from going stale.

Headroom is a pair of estimates, of what could happen to a client that left now and resumed from where it
stands (core/classification.py would judge it):

    frames    may still be committed before the replay budget, in frames or in bytes, is exceeded
    ms        will pass before retention takes the next frame that the client needs

    position + 1 < floor_seq            0, 0: the floor has passed it
    position == head_seq                the same for every follower, so it is encoded once (TopicHeartbeats)
    anywhere between                    less by what is behind: frames, bytes, and the age of the next frame

Frames to come are taken to be as large as the retained ones are on average. An age is known for frames that
came while this node followed the topic. For older ones it is in proportion: the frame at the floor is as old
as retention allows, as long as the floor has ever moved; before that nothing is about to expire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from khala_contracts.codec import TopicHeartbeat, encode_topic_heartbeat

if TYPE_CHECKING:
    from khala.core.classification import Observation
    from khala_contracts.topics import ParsedTopic, TopicClass


@attrs.frozen
class Headroom:
    """How far a follower is from going stale; both are 0 once it is."""

    frames: int
    ms: int


def estimate_headroom(
    position: int,
    seen: Observation,
    topic_class: TopicClass,
    *,
    head_seq: int,
    bytes_behind: int | None,
    age_s: float | None,
) -> Headroom:
    """Return how much may happen before a cursor at ``position`` is stale.

    Args:
        position: Last frame put on the connection.
        seen: What the journal said last; the head may have moved since.
        topic_class: Gives the budgets and the retention.
        head_seq: Newest frame of the topic on this node.
        bytes_behind: Encoded bytes after ``position``; None if they are not known.
        age_s: For how long this node has had the frame after ``position``; None if it does not know.
    """
    if position + 1 < seen.floor_seq:
        return Headroom(0, 0)
    behind = max(0, head_seq - position)
    frames = topic_class.replay_budget_events - behind
    retained = seen.head_seq + 1 - seen.floor_seq
    if retained > 0:
        frame_bytes = max(1.0, (seen.head_bytes_total - seen.floor_bytes_total) / retained)
        used = behind * frame_bytes if bytes_behind is None else bytes_behind
        frames = min(frames, int((topic_class.replay_budget_bytes - used) // frame_bytes))
    ms = 0.0
    if frames >= 0:
        ms = 1000 * (topic_class.retention_s - _age_s(behind, retained, seen, topic_class, known_s=age_s))
    return Headroom(max(0, frames), max(0, round(ms)))


def _age_s(
    behind: int, retained: int, seen: Observation, topic_class: TopicClass, *, known_s: float | None
) -> float:
    """Return for how long the next frame has been retained; 0 if it is not written yet."""
    if behind == 0:
        return 0.0
    if known_s is not None:
        return known_s
    if seen.floor_seq == 1:
        return 0.0
    return topic_class.retention_s * min(1.0, behind / max(1, retained))


class StatedTopic(Protocol):
    """A topic on this node, as far as a heartbeat states it; see RangeSource."""

    @property
    def head_seq(self) -> int:
        """Newest frame of the window."""

    @property
    def head_chain(self) -> bytes:
        """Chain at ``head_seq``."""

    @property
    def observation(self) -> Observation | None:
        """What the journal said last; None before anybody follows the topic."""

    def appended_at(self, seq: int) -> float | None:
        """When the frame entered the window; None if it is not known."""

    def bytes_after(self, position: int) -> int | None:
        """Encoded bytes after ``position``; None if the window does not hold them all."""


@attrs.define(eq=False)
class TopicHeartbeats:
    """Heartbeat entries of one topic on one node.

    Invariant: ``_shared`` are the encodings of ``_key``, the state of the topic that all of its followers
    at the head have in common; at most one for each subprotocol.
    """

    _key: tuple[int, bytes, int, TopicClass] | None = attrs.field(default=None, init=False)
    _shared: dict[bool, bytes] = attrs.field(factory=dict, init=False)

    def entry(
        self, source: StatedTopic, position: int, parsed: ParsedTopic, *, is_text: bool, now: float
    ) -> bytes:
        """Return what a heartbeat says of the topic to one follower, for ``join_heartbeat``.

        Args:
            source: The topic, which somebody follows.
            position: Last frame put on the follower's connection.
            parsed: Its name, and its class with the budgets that hold here.
            is_text: Whether the client speaks JSON.
            now: Monotonic seconds.
        """
        if position < source.head_seq:
            return encode_topic_heartbeat(_state(source, position, parsed, now), is_text=is_text)
        key = (source.head_seq, source.head_chain, _observation_of(source).floor_seq, parsed.topic_class)
        if key != self._key:
            self._key = key
            self._shared.clear()
        entry = self._shared.get(is_text)
        if entry is None:
            state = _state(source, position, parsed, now)
            entry = self._shared[is_text] = encode_topic_heartbeat(state, is_text=is_text)
        return entry


def _observation_of(source: StatedTopic) -> Observation:
    seen = source.observation
    assert seen is not None  # whoever follows began with one
    return seen


def _state(source: StatedTopic, position: int, parsed: ParsedTopic, now: float) -> TopicHeartbeat:
    head_seq = source.head_seq
    arrived_at = source.appended_at(position + 1) if position < head_seq else None
    headroom = estimate_headroom(
        position,
        _observation_of(source),
        parsed.topic_class,
        head_seq=head_seq,
        bytes_behind=source.bytes_after(position),
        age_s=None if arrived_at is None else now - arrived_at,
    )
    return TopicHeartbeat(
        topic=parsed.name,
        head_seq=head_seq,
        chain=source.head_chain,
        headroom_frames=headroom.frames,
        headroom_ms=headroom.ms,
    )
