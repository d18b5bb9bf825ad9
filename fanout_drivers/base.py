"""Contract of a fan-out driver: four verbs, and what may go wrong between them.

A driver carries *hints*: "this topic has reached ``last_seq``", usually with a copy of the frames.
The bytes are a sealed ``FanoutRecord`` (``khala_contracts.fanout_records``) which a driver neither
reads nor changes. Nodes never believe a driver: they compare each copy with their own head, chain
and MAC, and a position check against the journal finds whatever never arrived.

So a driver may lose, repeat, reorder, delay and even invent messages, as long as it

* never blocks a publisher on a subscriber (a slow node must not delay a commit), nor on a broker,
* refuses what it cannot take (``publish`` raises ``Unavailable``), so that nobody believes it was told,
* holds a bounded number of messages and bytes for each subscriber,
* says ``PositionUnknown`` whenever it has dropped something or was disconnected. Swallowing that
  turns a loss into silence until the next position check; a driver that does so declares it.

A driver may also take a record in the caller's own step (``PublishesAtOnce``): that spares the time until its
task has its turn, and is never needed. And it may tell of commits by a second way while its first one heals
(``HintsBeside``).

Beside the records it may carry one other thing, ``RevocationsHint``: control's log of revocations has
grown. That verb is optional (``HintsRevocations``); through a driver without it nodes learn of
revocations by their polls alone.

One conformance suite (``tests/contract/driver_suite.py``) runs on every driver. Third parties
register theirs in the entry-point group ``khala.fanout_drivers`` (``fanout_drivers/opening.py``).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from khala_contracts.topics import TopicName


@attrs.frozen
class DriverGuarantees:
    """What a driver may do to messages between two healthy processes.

    The conformance suite makes a driver that declares ``may_lose`` lose one, and checks that
    one which does not declare ``may_reorder`` keeps the order of each topic.

    Attributes:
        may_lose: Not every message arrives.
        may_duplicate: A message may arrive more than once.
        may_reorder: Messages of one topic may overtake each other.
        crosses_processes: Publisher and subscriber may live in different processes.
        carries_copies: Subscribers get the records; otherwise each publication becomes a
            ``PositionUnknown``, and no ``RecordCopy`` ever arrives.
        announces_losses: What is lost is announced by ``PositionUnknown``. A driver that says no
            leaves everything that it loses to the position checks.
        may_invent: Records that nobody published may arrive.
    """

    may_lose: bool
    may_duplicate: bool
    may_reorder: bool
    crosses_processes: bool
    carries_copies: bool = True
    announces_losses: bool = True
    may_invent: bool = False


@attrs.frozen
class RecordCopy:
    """One message as it arrived: untrusted until the node has checked it."""

    topic: TopicName
    data: bytes


@attrs.frozen
class PositionUnknown:
    """Something may have been missed: compare with the journal now.

    Attributes:
        topics: The topics concerned; None means every topic of this subscriber.
    """

    topics: frozenset[TopicName] | None = None


@attrs.frozen
class RevocationsHint:
    """Control's log of revocations may have grown: read it now.

    Empty, so that one which nobody gave costs a read and tells nothing. Any number that wait are one.
    A driver that was without its broker gives one for whatever was hinted meanwhile.
    """


Delivery = RecordCopy | PositionUnknown | RevocationsHint


@attrs.define(eq=False)
class DriverCounters:
    """What one driver object has done, for ``/metrics``: totals since it was opened.

    Attributes:
        published: Records handed over.
        publish_failures: Records that could not be handed over; nodes find them in the journal.
        received: Messages taken from the broker.
        dropped: Messages dropped for lack of room, each announced by ``PositionUnknown``.
        rejected: Messages that name no topic of ours.
        connects: Connections made to the broker.
        connect_failures: Attempts without one.
        forbidden: Records that the broker threw away, because this login may not publish them.
        hints_beside: Hints given, or heard, by a second way while the broker was away or healing.
        trouble: Why there is no use of the broker now, a reason ``broker_*`` or ``sqlstate *``; empty: none.
        injected: Harm done on purpose, by fault; only the driver ``faulty`` does any.
    """

    published: int = 0
    publish_failures: int = 0
    received: int = 0
    dropped: int = 0
    rejected: int = 0
    connects: int = 0
    connect_failures: int = 0
    forbidden: int = 0
    hints_beside: int = 0
    trouble: str = ""
    injected: Counter[str] = attrs.field(factory=Counter)


class FanoutSubscriber(Protocol):
    """A node's end of the driver. One task calls ``receive``; ``subscribe`` may be called by any."""

    async def subscribe(self, topic: TopicName) -> None:
        """Start delivery of a topic; idempotent.

        Returns once every message published from now on is either delivered or announced by
        ``PositionUnknown``. The caller reads the head *after* this returns: in the other order,
        a record committed between the two would be above the head that was read and its hint
        would have gone to nobody.

        A driver without a connection returns all the same: it subscribes by itself once it has
        one, and then reports ``PositionUnknown``.

        Cancellation: safe; the topic may or may not be subscribed.
        """

    async def unsubscribe(self, topic: TopicName) -> None:
        """Stop delivery of a topic; idempotent. Messages already queued may still arrive."""

    async def receive(self) -> Delivery:
        """Return the next message or notice, waiting for it.

        Raises:
            trio.ClosedResourceError: The subscriber or the driver was closed.
        Cancellation: safe; nothing is consumed.
        """


class FanoutDriver(Protocol):
    """A way to tell nodes about commits."""

    @property
    def name(self) -> str:
        """The configuration value that selects this driver."""

    @property
    def guarantees(self) -> DriverGuarantees:
        """What this driver may do to messages."""

    @property
    def counters(self) -> DriverCounters:
        """What this driver has done so far; read at every scrape."""

    @property
    def entries_max_bytes(self) -> int:
        """Most bytes of entries that one record may carry; more travels as a hint.

        ``RECORD_ENTRIES_MAX_BYTES``, or less where the broker takes less. May change with each
        connection: a record made for the previous one that is too large is refused.
        """

    async def publish(self, topic: TopicName, data: bytes) -> None:
        """Hand one sealed record to whoever subscribes to the topic.

        Never waits for a subscriber, nor for a broker that is away. Returning says that the driver
        has the record, or has marked that there is news; it promises nothing about delivery.

        Args:
            topic: The topic of the record; subscribers verify the topic inside as well.
            data: A sealed record with at most ``entries_max_bytes`` of entries.

        Raises:
            Unavailable: Nothing was taken, for a reason ``broker_*``: the broker is away, or there is
                no room. Raised at once, and counted as a publish failure. The caller keeps what is
                worth telling later; ``check_health`` says when that is, if the driver knows.
        Cancellation: safe; the record may or may not have been handed over.
        """

    def open_subscriber(self) -> AbstractAsyncContextManager[FanoutSubscriber]:
        """Open a node's end; leaving the block forgets its topics and queued messages."""

    async def check_health(self) -> bool:
        """Whether messages published now can reach subscribers, as far as the driver knows.

        Without health everything is still delivered, by position checks: slower, never wrong.
        """


@runtime_checkable
class PublishesAtOnce(Protocol):
    """A driver that can hand a record over without a turn of its own."""

    def publish_nowait(self, topic: TopicName, data: bytes) -> bool:
        """Hand over a record as ``publish`` does, or do nothing; never waits, counts no failure.

        Returns:
            False if something of this driver still waits to be sent, or it is away: the record is to be
            published by ``publish``, behind what waits.
        """


@runtime_checkable
class HintsBeside(Protocol):
    """A driver that has a second way for hints, for while its first one heals."""

    def hint_beside_nowait(self) -> None:
        """Take note that something was committed, whether or not it is published through the driver.

        Tells nodes so by the second way if the first one is away, or was until lately, so that not every
        node may be back. Never waits, never fails, carries nothing.
        """


@runtime_checkable
class HintsRevocations(Protocol):
    """A driver that also tells nodes that control's log of revocations has grown."""

    async def hint_revocations(self) -> None:
        """Give every subscriber a ``RevocationsHint``; hints that meet become one.

        Never waits for a subscriber, nor for a broker that is away; promises nothing about delivery.

        Raises:
            Unavailable: Nothing was taken, for a reason ``broker_*``.
        Cancellation: safe; the hint may or may not have been given.
        """


def find_hinter(driver: object) -> HintsRevocations | None:
    """Return the driver as one that hints at revocations, None if it does not have that verb."""
    return driver if isinstance(driver, HintsRevocations) else None


# Entries above this travel as a pure hint (ARCHITECTURE section 3): a broker's own limit is
# typically 1 MiB, and a node that misses a large copy only reads the journal once.
RECORD_ENTRIES_MAX_BYTES = 512 * 1024
