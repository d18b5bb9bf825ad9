"""Whether a subscribe can be served from where the client stands: one pure function.

Keeps INV-5: equal observations give equal answers on every node. The window of the node is
never consulted; what is asked is only what one SQL statement saw.

The floor, by example (SPEC section 1): retained from 101 on (``floor_seq`` = 101).

    cursor.seq   next needed   answer
    101          102           ok
    100          101           ok      the oldest retained frame is the next one
     99          100           stale   100 is gone
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from khala_contracts.chain import chain_start as start_of_chain
from khala_contracts.codec import CursorStart, StaleReason, SubscribeFrom

if TYPE_CHECKING:
    from khala_contracts.topics import TopicClass, TopicName


@attrs.frozen
class HeadRights:
    """Whose topic this is, as the runtime wrote it on the head row."""

    owner_user_id: str | None
    org_id: str | None


@attrs.frozen
class Observation:
    """What one statement saw of one topic.

    Attributes:
        exists: False if no frame was ever written; the other values are then those of an
            empty topic in the current lineage.
        floor_chain: Chain at ``floor_seq - 1``.
        floor_bytes_total: Running bytes at ``floor_seq - 1``.
    """

    topic: TopicName
    lineage: str
    exists: bool
    head_seq: int
    head_chain: bytes
    head_bytes_total: int
    floor_seq: int
    floor_chain: bytes
    floor_bytes_total: int
    floor_reason: StaleReason
    rights: HeadRights

    @classmethod
    def absent(cls, topic: TopicName, lineage: str) -> Observation:
        """Return a topic to which nothing was ever written."""
        start = start_of_chain(topic)
        return cls(
            topic=topic,
            lineage=lineage,
            exists=False,
            head_seq=0,
            head_chain=start,
            head_bytes_total=0,
            floor_seq=1,
            floor_chain=start,
            floor_bytes_total=0,
            floor_reason=StaleReason.RETENTION_EXPIRED,
            rights=HeadRights(None, None),
        )


@attrs.frozen
class CursorRow:
    """The journal row at the cursor's seq: its chain and the running bytes up to it."""

    chain: bytes
    bytes_total: int


SubscriptionStart = CursorStart | SubscribeFrom


@attrs.frozen
class Serve:
    """Frames after ``start_seq`` follow; they begin with this chain.

    Attributes:
        budget_used: Share of the replay budget that they need, the larger of frames and bytes; at most 1.
    """

    start_seq: int
    chain_at_start: bytes
    budget_used: float = attrs.field(default=0.0, eq=False)


@attrs.frozen
class Stale:
    """The client must start anew, for this reason.

    Attributes:
        budget_used: As in ``Serve``, above 1; 0 if it was not the budget.
    """

    reason: StaleReason
    budget_used: float = attrs.field(default=0.0, eq=False)


Classification = Serve | Stale


def classify(
    start: SubscriptionStart,
    observation: Observation,
    cursor_row: CursorRow | None,
    *,
    chain_start: bytes,
    topic_class: TopicClass,
) -> Classification:
    """Decide where a subscription starts, or why it cannot.

    Order of tests: (malformed, by the codec, which lets none in), lineage, ahead of head, chain, floor, budget in frames, budget
    in bytes. A row below ``floor_seq - 1`` is invisible by rule, even while it has not been
    deleted yet; otherwise two equal floors could give two answers.

    Args:
        start: Where the client asks to start.
        observation: What one statement saw of the topic.
        cursor_row: The journal row at the cursor's seq, seen by the same statement.
        chain_start: Chain of the topic at position 0.
        topic_class: Gives the replay budget.
    """
    if isinstance(start, CursorStart):
        stale = _judge_history(start, observation, cursor_row, chain_start=chain_start)
        if stale is not None:
            return stale
        position = start.seq
    elif start is SubscribeFrom.NOW:
        return Serve(observation.head_seq, observation.head_chain)
    elif start is SubscribeFrom.EARLIEST:
        position = observation.floor_seq - 1
    else:
        position = 0
    if position + 1 < observation.floor_seq:
        return Stale(observation.floor_reason)
    return _judge_budget(position, observation, cursor_row, chain_start=chain_start, topic_class=topic_class)


def _judge_history(
    cursor: CursorStart, seen: Observation, row: CursorRow | None, *, chain_start: bytes
) -> Stale | None:
    """Tell a cursor of this history from one of another."""
    if cursor.seq > 0 and cursor.lineage != seen.lineage:
        return Stale(StaleReason.LINEAGE_MISMATCH)
    if cursor.seq == 0 and cursor.lineage and cursor.lineage != seen.lineage:
        return Stale(StaleReason.LINEAGE_MISMATCH)
    if cursor.seq > seen.head_seq:
        return Stale(StaleReason.LINEAGE_MISMATCH)
    if not cursor.chain or cursor.seq + 1 < seen.floor_seq:
        return None
    known = _chain_at(cursor.seq, seen, row, chain_start=chain_start)
    # None: a retained row is missing. That is trouble (_judge_budget says so), not another history.
    return None if known in (None, cursor.chain) else Stale(StaleReason.LINEAGE_MISMATCH)


def _chain_at(seq: int, seen: Observation, row: CursorRow | None, *, chain_start: bytes) -> bytes | None:
    if seq == seen.floor_seq - 1:
        return chain_start if seq == 0 else seen.floor_chain
    if seq == seen.head_seq:
        return seen.head_chain
    return row.chain if row is not None else None


def replay_bytes(position: int, seen: Observation, row: CursorRow | None) -> int:
    """Return the encoded bytes after ``position``; 0 if the observation does not tell."""
    before = _bytes_before(position, seen, row)
    return 0 if before is None else seen.head_bytes_total - before


def _bytes_before(position: int, seen: Observation, row: CursorRow | None) -> int | None:
    if position == seen.floor_seq - 1:
        return seen.floor_bytes_total
    if position == seen.head_seq:
        return seen.head_bytes_total
    return row.bytes_total if row is not None else None


def _judge_budget(
    position: int,
    seen: Observation,
    row: CursorRow | None,
    *,
    chain_start: bytes,
    topic_class: TopicClass,
) -> Classification:
    bytes_before = _bytes_before(position, seen, row)
    if bytes_before is None:
        # A retained row is missing: the observation contradicts itself. The journal reader
        # raises Unavailable before it comes to this (INV-5: trouble is never a stale cursor).
        msg = f"no journal row at seq={position} of topic={seen.topic}"
        raise LookupError(msg)
    frames, size_bytes = seen.head_seq - position, seen.head_bytes_total - bytes_before
    used = max(
        _share(frames, topic_class.replay_budget_events), _share(size_bytes, topic_class.replay_budget_bytes)
    )
    if frames > topic_class.replay_budget_events or size_bytes > topic_class.replay_budget_bytes:
        return Stale(StaleReason.REPLAY_BUDGET_EXCEEDED, used)
    chain = _chain_at(position, seen, row, chain_start=chain_start)
    assert chain is not None, position  # each way into here above knows it
    return Serve(position, chain, used)


def _share(used: int, budget: int) -> float:
    """Return how much of a budget is used; above 1 iff ``used > budget``. Of none anything is too much."""
    return used / budget if budget else 2.0 * (used > 0)
