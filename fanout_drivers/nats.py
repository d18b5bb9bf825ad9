"""The driver over a NATS server or cluster: core publish and subscribe, one subject per topic.

One connection for the process, kept by ``reconnecting.py``, and three tasks while it is there: send
what is published, settle which subjects are subscribed (which is also the sign of life), wait for the
loss. Nodes' ends share it; a subject is subscribed once. Invariants:

1. ``publish`` never waits. What waits to be sent is bounded (``outbox.py``, INV-7); what has no room, no
   connection, or is larger than the server takes is counted and refused. Nothing published before a loss
   is sent after it: what was taken and not sent is counted, and left to the position checks.
2. Whatever may have been missed is announced: dropped here or in the library (the topic), the loss of a
   connection and the subscriptions of the next one (all topics, and a hint of revocations).
3. A message counts only if its subject is the one that was subscribed, and decodes to that topic, or is
   the one of revocations, of which nobody reads more than that it came.
   No text of NATS, subject or error, goes further than this module and ``nats_connection.py``.
"""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs
import trio

from fanout_drivers.background import open_background
from fanout_drivers.base import RECORD_ENTRIES_MAX_BYTES, DriverCounters, DriverGuarantees, RecordCopy
from fanout_drivers.delivery_queue import QUEUE_MAX_BYTES, QUEUE_MAX_RECORDS, DeliveryQueue
from fanout_drivers.nats_connection import NatsHandler, NatsLogin, NatsSession, open_nats_session
from fanout_drivers.opening import SECTION
from fanout_drivers.outbox import Outbox
from fanout_drivers.reconnecting import keep_connected
from fanout_drivers.subjects import decode_subject, encode_subject, revocations_subject
from khala_service.config import ConfigRefused
from khala_service.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from fanout_drivers.base import Delivery
    from fanout_drivers.opening import DriverContext
    from khala_contracts.topics import TopicName

__all__ = ["NatsDriver", "NatsLimits", "NatsSubscriber", "open_nats_driver"]

# A relay hands over a record for each topic of a commit; this is seconds of them. Larger only sends
# what nodes have read from the journal meanwhile.
OUTBOX_MAX_RECORDS: Final = 4_096
OUTBOX_MAX_BYTES: Final = 16 * 1024 * 1024
# One crossing to asyncio costs 0.4 ms: it takes many, but not so many that a subscribe has to wait.
BATCH_MAX_RECORDS: Final = 256
# Without a subscribe for so long, a round trip shows whether the server still answers.
SIGN_OF_LIFE_S: Final = 5.0
# What a sealed record holds besides its entries (topic, lineage, chains, MAC); entries carry a few
# bytes of framing each.
RECORD_OVERHEAD_BYTES: Final = 1_024


@attrs.frozen(kw_only=True)
class NatsLimits:
    """Bounds, so that tests can make them small."""

    queue_max_records: int = QUEUE_MAX_RECORDS
    queue_max_bytes: int = QUEUE_MAX_BYTES
    outbox_max_records: int = OUTBOX_MAX_RECORDS
    outbox_max_bytes: int = OUTBOX_MAX_BYTES


@attrs.define(eq=False)
class NatsSubscriber:
    """A node's end."""

    queue: DeliveryQueue
    _driver: NatsDriver
    topics: set[TopicName] = attrs.field(factory=set, init=False)

    async def subscribe(self, topic: TopicName) -> None:
        """Start delivery; see FanoutSubscriber."""
        self.topics.add(topic)
        await self._driver.follow(self, topic)

    async def unsubscribe(self, topic: TopicName) -> None:
        """Stop delivery; see FanoutSubscriber."""
        self.topics.discard(topic)
        self._driver.leave(self, topic)
        await trio.lowlevel.checkpoint()

    async def receive(self) -> Delivery:
        """Return the next message or notice; see FanoutSubscriber."""
        return await self.queue.receive()


@attrs.define(eq=False)
class NatsDriver:
    """The driver; ``serve`` keeps its connection."""

    _servers: tuple[str, ...]
    _login: NatsLogin
    _prefix: str
    limits: NatsLimits = attrs.field(factory=NatsLimits)
    rng: Callable[[], float] = random.random
    counters: DriverCounters = attrs.field(factory=DriverCounters)
    entries_max_bytes: int = attrs.field(default=RECORD_ENTRIES_MAX_BYTES, init=False)

    _session: NatsSession | None = attrs.field(default=None, init=False)
    _is_connected: bool = attrs.field(default=False, init=False)
    _subscribers: list[NatsSubscriber] = attrs.field(factory=list, init=False)
    # Who follows a subject. Invariant: no empty sets.
    _routes: dict[str, set[NatsSubscriber]] = attrs.field(factory=dict, init=False)
    # Subjects whose subscription the server has confirmed and which nobody has left since.
    _confirmed: set[str] = attrs.field(factory=set, init=False)
    # Subjects to look at in the next round, and the event of its end.
    _unsettled: set[str] = attrs.field(factory=set, init=False)
    _has_unsettled: trio.Event = attrs.field(factory=trio.Event, init=False)
    _next_round: trio.Event = attrs.field(factory=trio.Event, init=False)
    _outbox: Outbox = attrs.field(init=False)
    # Whether a batch has left the outbox and not yet reached the connection.
    _is_sending: bool = attrs.field(default=False, init=False)

    name: str = attrs.field(default="nats", init=False)
    guarantees: DriverGuarantees = attrs.field(
        default=DriverGuarantees(
            may_lose=True, may_duplicate=False, may_reorder=False, crosses_processes=True
        ),
        init=False,
    )

    def __attrs_post_init__(self) -> None:
        self._outbox = Outbox(self.limits.outbox_max_records, self.limits.outbox_max_bytes)

    # -- the publishing end ------------------------------------------------------------------------

    async def publish(self, topic: TopicName, data: bytes) -> None:
        """Put the record into the outbox, or refuse it; never waits. See FanoutDriver.

        Raises:
            Unavailable: ``broker_away``, ``broker_payload_too_large`` or ``broker_outbox_full``.
        """
        await self._publish(encode_subject(self._prefix, topic), data)

    def publish_nowait(self, topic: TopicName, data: bytes) -> bool:
        """Write the record to the connection if nothing waits before it; see PublishesAtOnce."""
        session = self._session
        if session is None or self._is_sending or len(self._outbox) or len(data) > session.payload_max_bytes:
            return False
        if not session.publish_nowait(encode_subject(self._prefix, topic), data):
            return False
        self.counters.published += 1
        return True

    async def hint_revocations(self) -> None:
        """Put a hint into the outbox, or refuse it; never waits. See HintsRevocations.

        Raises:
            Unavailable: ``broker_away`` or ``broker_outbox_full``.
        """
        await self._publish(revocations_subject(self._prefix), b"")

    async def _publish(self, subject: str, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        session = self._session
        if session is None:
            reason = "broker_away"
        elif len(data) > session.payload_max_bytes:
            reason = "broker_payload_too_large"
        elif not self._outbox.offer_nowait(subject, data):
            reason = "broker_outbox_full"
        else:
            return
        self.counters.publish_failures += 1
        raise Unavailable(reason)

    async def _send(self, session: NatsSession) -> None:
        """Send the outbox until the session is lost."""
        while True:
            self._is_sending = False
            batch = await self._outbox.take(BATCH_MAX_RECORDS)
            is_sent, self._is_sending = False, True
            try:
                await session.publish_all(batch)
                is_sent = True
            except Unavailable:
                return
            finally:
                # Also if it waits for a stuck server when the session is given up.
                if is_sent:
                    self.counters.published += len(batch)
                else:
                    self.counters.publish_failures += len(batch)

    # -- the receiving end -------------------------------------------------------------------------

    @asynccontextmanager
    async def open_subscriber(self) -> AsyncIterator[NatsSubscriber]:
        """Open a node's end; see FanoutDriver."""
        queue = DeliveryQueue(
            self.counters,
            max_records=self.limits.queue_max_records,
            max_bytes=self.limits.queue_max_bytes,
        )
        subscriber = NatsSubscriber(queue, self)
        self._subscribers.append(subscriber)
        revocations = revocations_subject(self._prefix)
        self._routes.setdefault(revocations, set()).add(subscriber)
        self._look_at(revocations)
        try:
            yield subscriber
        finally:
            self._subscribers.remove(subscriber)
            queue.close()
            self._end_route(subscriber, revocations)
            for topic in subscriber.topics:
                self.leave(subscriber, topic)

    async def follow(self, subscriber: NatsSubscriber, topic: TopicName) -> None:
        """Route a topic to a subscriber; return when the server delivers it, or without a connection.

        Cancellation: safe; the route stays.
        """
        subject = encode_subject(self._prefix, topic)
        self._routes.setdefault(subject, set()).add(subscriber)
        if self._session is None or subject in self._confirmed:
            await trio.lowlevel.checkpoint()
            return
        self._look_at(subject)
        await self._next_round.wait()

    def leave(self, subscriber: NatsSubscriber, topic: TopicName) -> None:
        """End the route of a topic to a subscriber, if there is one."""
        self._end_route(subscriber, encode_subject(self._prefix, topic))

    def _end_route(self, subscriber: NatsSubscriber, subject: str) -> None:
        followers = self._routes.get(subject, set())
        followers.discard(subscriber)
        if not followers and self._routes.pop(subject, None) is not None:
            self._confirmed.discard(subject)
            self._look_at(subject)

    def _look_at(self, subject: str) -> None:
        if self._session is not None:
            self._unsettled.add(subject)
            self._has_unsettled.set()

    def _take_message(self, subscribed: str, subject: str, data: bytes) -> None:
        followers = self._routes.get(subscribed, ())
        try:
            if subject != subscribed:
                raise ValueError("a message of another subject")
            if subject == revocations_subject(self._prefix):
                self._take_hint(subject)
                return
            topic = decode_subject(self._prefix, subject)
        except ValueError:
            self.counters.rejected += 1
            return
        copy = RecordCopy(topic, data)
        for subscriber in followers:
            subscriber.queue.offer_nowait(copy)

    def _take_hint(self, subject: str) -> None:
        for subscriber in self._routes.get(subject, ()):
            subscriber.queue.hint_nowait()

    def _announce_everything(self) -> None:
        for subscriber in self._subscribers:
            subscriber.queue.announce_nowait()

    # -- the connection ----------------------------------------------------------------------------

    async def check_health(self) -> bool:
        """Whether there is a connection that answered its last sign of life."""
        await trio.lowlevel.checkpoint()
        return self._is_connected

    async def serve(self) -> None:
        """Keep connected until cancelled; each attempt goes to the next server of the list."""
        servers = list(self._servers)
        # Not all nodes to the first one.
        random.Random(self.rng()).shuffle(servers)  # noqa: S311 - spreads load, protects nothing
        session = partial(self._run_session, cycle(servers))
        await keep_connected(session, driver=self.name, counters=self.counters, rng=self.rng)

    async def _run_session(self, servers: Iterator[str], connected: Callable[[], None]) -> None:
        handler = NatsHandler(self._take_message)
        async with open_nats_session(next(servers), self._login, handler) as session:
            self._session = session
            try:
                self._unsettled = set(self._routes)
                await self._settle_round(session)
                self.entries_max_bytes = _entries_max_bytes(session.payload_max_bytes)
                self._is_connected = True
                connected()
                # After the subscriptions: what was published before them is in the journal now.
                self._announce_everything()
                self._take_hint(revocations_subject(self._prefix))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send, session)
                    nursery.start_soon(self._settle, session)
                    await session.wait_lost()
                    nursery.cancel_scope.cancel()
                raise Unavailable(session.reason)
            finally:
                self._forget_session()

    def _forget_session(self) -> None:
        if self._is_connected:
            self._announce_everything()
        self._session = None
        self._is_connected = False
        self._confirmed.clear()
        self._unsettled.clear()
        # Sent later, they would only repeat what nodes have read from the journal.
        self.counters.publish_failures += self._outbox.clear()
        self._next_round.set()
        self._next_round = trio.Event()

    async def _settle(self, session: NatsSession) -> None:
        """Bring the subscriptions up to date whenever they change, and look for signs of life."""
        while True:
            with trio.move_on_after(SIGN_OF_LIFE_S):
                await self._has_unsettled.wait()
            try:
                await self._settle_round(session)
            except Unavailable:
                return

    async def _settle_round(self, session: NatsSession) -> None:
        subjects, self._unsettled = self._unsettled, set()
        self._has_unsettled = trio.Event()
        done, self._next_round = self._next_round, trio.Event()
        try:
            # Asked when its turn comes: a topic may be left and followed again during the round.
            await session.settle(subjects, self._routes.__contains__)
        finally:
            done.set()
        # Those that were looked at again meanwhile wait for the next round.
        self._confirmed |= {s for s in subjects if s in self._routes and s not in self._unsettled}


def _entries_max_bytes(payload_max_bytes: int) -> int:
    """Return how many bytes of entries fit into a message of the server; 0 means hints only."""
    return max(0, min(RECORD_ENTRIES_MAX_BYTES, (payload_max_bytes - RECORD_OVERHEAD_BYTES) * 7 // 8))


@asynccontextmanager
async def open_nats_driver(context: DriverContext) -> AsyncIterator[NatsDriver]:
    """Open it; see ``fanout_drivers.opening.DriverFactory``."""
    config = context.config
    errors = [
        f"{SECTION}.nats_servers: number {number} is not nats://host:port or tls://host:port without user"
        for number, server in enumerate(config.nats_servers, start=1)
        if not _is_server(server)
    ]
    if not config.nats_servers:
        errors.append(f"{SECTION}.nats_servers: name at least one server")
    if bool(config.nats_user) != (config.nats_password is not None):
        errors.append(f"{SECTION}.nats_user and nats_password: give both or neither")
    if errors:
        raise ConfigRefused(tuple(errors))
    login = NatsLogin(f"khala-{context.component}", config.nats_user, config.nats_password)
    driver = NatsDriver(config.nats_servers, login, config.subject_prefix)
    async with open_background(driver.serve):
        yield driver


def _is_server(text: str) -> bool:
    """Whether this is the address of a server. A password in it would be shown with the configuration."""
    try:
        url = urlsplit(text)
        return url.scheme in {"nats", "tls"} and bool(url.hostname and url.port) and "@" not in url.netloc
    except ValueError:
        return False
