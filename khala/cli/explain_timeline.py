"""From the answers of runtime and nodes to one timeline of a frame, and a verdict. Pure.

Whoever reads it asks "why did this client not get it, or so late?". So each line says where, when (or
between when), and what, in the order of time; what has no time comes last, by place. The words for each
reason are explained in runbooks/explain.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from khala.cli.explain_answers import Bounds
from khala.cli.wording import count_text
from khala_contracts.frames import ERASED_KIND

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from khala.cli.explain_answers import NodeAnswer, RuntimeAnswer, SubscriptionAnswer

__all__ = ["RUNTIME", "Explained", "TimelineEntry", "explain"]

RUNTIME: Final = "runtime"
# What a person calls delivered; the rest is a reason why not, or not yet.
_DELIVERED: Final = frozenset({"sent"})


@attrs.frozen
class TimelineEntry:
    """One thing that happened, or did not.

    Attributes:
        place: ``runtime``, a node's id, or a connection's id.
        reason: A stable word for scripts: committed, published, announced, appended, healed, delivered,
            or why not.
        text: The same for people.
        when: None if it has no time.
    """

    place: str
    reason: str
    text: str
    when: Bounds | None = None


@attrs.frozen
class Explained:
    """The whole answer.

    Attributes:
        timeline: In the order of time.
        delivered: Number of subscriptions whose kernel has taken the frame.
        undelivered: Number of the others that asked for it.
    """

    timeline: tuple[TimelineEntry, ...]
    delivered: int
    undelivered: int

    @property
    def verdict(self) -> str:
        """One sentence."""
        if not self.delivered + self.undelivered:
            return "No subscription that is remembered has asked for it."
        total = count_text(self.delivered + self.undelivered, "subscription")
        return f"Delivered to {self.delivered:,} of {total} that asked for it."


def explain(
    seq: int,
    runtime: RuntimeAnswer | None,
    nodes: Sequence[NodeAnswer],
    *,
    connection_id: str | None = None,
) -> Explained:
    """Put the answers together.

    Args:
        seq: The frame.
        runtime: None if it did not answer.
        nodes: The nodes that answered.
        connection_id: Leave out the other connections.
    """
    entries = list(_of_runtime(seq, runtime)) if runtime is not None else []
    committed_at_us = runtime.committed_at_us if runtime is not None else None
    delivered = undelivered = 0
    for node in nodes:
        entries += _of_node(node, committed_at_us)
        for subscription in node.subscriptions:
            if connection_id is not None and subscription.connection_id != connection_id:
                continue
            entries.append(_of_subscription(subscription, node))
            if subscription.delivery in _DELIVERED:
                delivered += 1
            elif subscription.delivery != "not_asked":
                undelivered += 1
    # Stable: what has the same time, or none, keeps the order of the way of a frame.
    entries.sort(key=lambda entry: (entry.when is None, entry.when.last_us if entry.when else 0))
    return Explained(tuple(entries), delivered, undelivered)


def _at(at_us: int | None) -> Bounds | None:
    return Bounds(at_us, at_us) if at_us is not None else None


def _of_runtime(seq: int, answer: RuntimeAnswer) -> Iterator[TimelineEntry]:
    if answer.committed_at_us is None:
        head = f"the head is {answer.head_seq:,}" if answer.head_seq else "nothing was ever written"
        yield TimelineEntry(RUNTIME, "not_committed", f"nothing is committed at this position: {head}")
        return
    facts = [f"event {answer.event_id}"] + ([f"request {answer.request_id}"] if answer.request_id else [])
    text = f"committed {answer.kind}: {', '.join(facts)}"
    yield TimelineEntry(RUNTIME, "committed", text, _at(answer.committed_at_us))
    if answer.kind == ERASED_KIND:
        yield TimelineEntry(RUNTIME, "erased", "its payload was erased later; its place and its chain stay")
    if answer.published_at_us is not None:
        what = "a copy" if answer.published_as == "copy" else "a hint without a copy"
        text = f"told the nodes: {what}, by the driver {answer.driver}"
        yield TimelineEntry(RUNTIME, "published", text, _at(answer.published_at_us))
    else:
        yield TimelineEntry(
            RUNTIME, "not_published", "no memory of telling the nodes: longer ago, or before its last start"
        )
    if seq < answer.floor_seq:
        yield TimelineEntry(
            RUNTIME,
            "below_floor",
            f"no longer replayed: below the floor {answer.floor_seq:,} ({answer.floor_reason})",
        )


def _of_node(node: NodeAnswer, committed_at_us: int | None) -> Iterator[TimelineEntry]:
    place = node.node_id
    if committed_at_us is not None and node.started_at_us > committed_at_us:
        text = "this node started after the commit; what was before it is not known"
        yield TimelineEntry(place, "node_restarted", text, _at(node.started_at_us))
    if node.announced is not None:
        yield TimelineEntry(place, "announced", "a record of the driver named it", node.announced)
    if node.checked is not None:
        yield TimelineEntry(place, "checked", "the journal's head was seen to have it", node.checked)
    match node.arrival:
        case "appended" if node.is_healed:
            why = "no record of it had come" if node.announced is None else "its copy could not be used"
            yield TimelineEntry(place, "healed", f"healed: read from the journal, {why}", node.appended)
        case "appended":
            yield TimelineEntry(place, "appended", "entered the window, from the copy", node.appended)
        case "before":
            text = (
                f"came before anybody followed the topic here (head then {node.opened_head_seq:,}): "
                "read from the journal for whoever asks"
            )
            yield TimelineEntry(place, "before", text, _at(node.opened_at_us))
        case "awaited":
            yield TimelineEntry(place, "awaited", f"has not come here: the head here is {node.head_seq:,}")
        case _:
            yield TimelineEntry(place, "not_followed", "nobody follows the topic here")
    if node.fanned_out is not None:
        yield TimelineEntry(place, "fanned_out", "fanned out to live subscribers", node.fanned_out)


def _of_subscription(subscription: SubscriptionAnswer, node: NodeAnswer) -> TimelineEntry:
    who = f"{subscription.user_id} on {subscription.device_id}"
    reason, text, when = _fate(subscription, node)
    return TimelineEntry(subscription.connection_id, reason, f"{text}  ({who})", when)


def _fate(subscription: SubscriptionAnswer, node: NodeAnswer) -> tuple[str, str, Bounds | None]:
    start, position = f"{subscription.start_seq:,}", f"{subscription.position:,}"
    match subscription.delivery:
        case "sent":
            way = "written by the fan-out" if subscription.path == "direct" else "sent in its turn"
            return "delivered", f"delivered: {way}, taken by the kernel", subscription.put_on_connection
        case "handed_over":
            text = "handed over, and not yet taken by the kernel: the client reads slowly"
            return "handed_over", text, subscription.put_on_connection
        case "behind":
            text = f"not yet: the client has not taken what is before it; it stands at {position}"
            return "behind", text, _at(subscription.backlogged_since_us)
        case "awaits_journal":
            return "awaits_journal", f"not yet: waits for the journal, at {position}", None
        case "awaited":
            return "awaited", f"not yet: it has not come to {node.node_id}", None
        case "not_asked":
            return "not_asked", f"not asked for: it follows from {start} on", _at(subscription.started_at_us)
        case "refused":
            reason, text = _refusal(subscription)
            return reason, f"not delivered: the subscribe was refused, {text}", _at(subscription.ended_at_us)
        case "ended":
            reason, text = _ending(subscription)
            return reason, f"not delivered: {text}; it stood at {position}", _at(subscription.ended_at_us)
        case other:
            return other, other, None


def _refusal(subscription: SubscriptionAnswer) -> tuple[str, str]:
    because = subscription.ended_because
    if not because.startswith("stale_cursor."):
        return because, because
    seen = f"its cursor was {subscription.start_seq:,}"
    if subscription.seen_floor_seq is not None and subscription.seen_head_seq is not None:
        seen += f", the floor {subscription.seen_floor_seq:,}, the head {subscription.seen_head_seq:,}"
    return because, f"{because}: {seen}"


def _ending(subscription: SubscriptionAnswer) -> tuple[str, str]:
    because = subscription.ended_because
    match because:
        case "slow_consumer":
            return "released", "released as too slow; its cursor stays valid"
        case "asked":
            return "unsubscribed", "the client had unsubscribed"
        case "replaced":
            return "replaced", "the client had subscribed anew from another position"
        case "forbidden":
            return "forbidden", "its right to read the topic had ended"
        case "disconnected":
            return "disconnected", f"the connection had ended ({subscription.closed_with or 'unknown'})"
        case _:
            return _refusal(subscription)
