"""The driver over a NATS server or cluster: core publish and subscribe, one subject per topic.

One connection for the process, kept by ``reconnecting.py``, and three tasks while it is there: send
what is published, settle which subjects are subscribed (``nats_interest.py``), wait for the loss. Nodes' ends
share it; a subject is subscribed once (``nats_routes.py``). Invariants:

1. ``publish`` never waits. What waits to be sent is bounded (``outbox.py``, INV-7); what has no room, no
   connection, or is larger than the server takes is counted and refused. Nothing published before a loss
   is sent after it: what was taken and not sent is counted, and left to the position checks.
2. Whatever may have been missed is announced: dropped here or in the library (the topic), the loss of a
   connection and the subscriptions of the next one (all topics, and a hint of revocations).
3. A record that the login may not publish ends no connection: it is counted, the driver refuses further ones
   and is not healthy for FORBIDDEN_PAUSE_S, then tries again.
4. No text of NATS, subject or error, goes further than this module, ``nats_routes.py`` and ``nats_client.py``.

While the broker is away, and until everybody may be back, commits are hinted at by a second way (``beside.py``).
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Final, cast

import attrs
import trio

from fanout_drivers.background import open_background
from fanout_drivers.base import RECORD_ENTRIES_MAX_BYTES, DriverCounters, DriverGuarantees
from fanout_drivers.beside import Healing, HintsBesideBroker
from fanout_drivers.delivery_queue import QUEUE_MAX_BYTES, QUEUE_MAX_RECORDS, DeliveryQueue
from fanout_drivers.nats_connection import NatsHandler, NatsSession, open_nats_session
from fanout_drivers.nats_interest import NatsInterest
from fanout_drivers.nats_login import NatsLogin
from fanout_drivers.nats_routes import NatsRoutes
from fanout_drivers.opening import find_driver
from fanout_drivers.outbox import Outbox
from fanout_drivers.reconnecting import keep_connected
from fanout_drivers.subjects import encode_subject, revocations_subject
from khala_service.errors import Unavailable
from khala_service.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from fanout_drivers.base import Delivery
    from fanout_drivers.beside import Doorbell
    from fanout_drivers.opening import DriverContext
    from khala_contracts.topics import TopicName

__all__ = ["NatsDriver", "NatsLimits", "NatsSubscriber", "open_nats_driver"]

# A relay hands over a record for each topic of a commit; this is seconds of them. Larger only sends
# what nodes have read from the journal meanwhile.
OUTBOX_MAX_RECORDS: Final = 4_096
OUTBOX_MAX_BYTES: Final = 16 * 1024 * 1024
# One crossing to asyncio costs 0.4 ms: it takes many, but not so many that a subscribe has to wait.
BATCH_MAX_RECORDS: Final = 256
# What a sealed record holds besides its entries (topic, lineage, chains, MAC); entries carry a few
# bytes of framing each.
RECORD_OVERHEAD_BYTES: Final = 1_024
# FD-04: after an answer that will not change by itself, one record in so long finds out whether it did.
FORBIDDEN_PAUSE_S: Final = 30.0
FORBIDDEN: Final = "broker_permission_refused"
DOORBELL: Final = "postgres"

_log = get_logger(__name__)


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

    async def subscribe(self, topic: TopicName) -> None:
        """Start delivery; see FanoutSubscriber."""
        await self._driver.follow(self.queue, topic)

    async def unsubscribe(self, topic: TopicName) -> None:
        """Stop delivery; see FanoutSubscriber."""
        self._driver.leave(self.queue, topic)
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
    beside: HintsBesideBroker | None = None
    entries_max_bytes: int = attrs.field(default=RECORD_ENTRIES_MAX_BYTES, init=False)

    _session: NatsSession | None = attrs.field(default=None, init=False)
    _is_connected: bool = attrs.field(default=False, init=False)
    _routes: NatsRoutes = attrs.field(init=False)
    # When a record may be tried again that the server forbade us to publish; None: nothing is forbidden.
    _forbidden_until: float | None = attrs.field(default=None, init=False)
    _interest: NatsInterest = attrs.field(init=False)
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
        self._routes = NatsRoutes(self._prefix, self.counters)
        self._interest = NatsInterest(self._routes)

    # -- the publishing end ------------------------------------------------------------------------

    async def publish(self, topic: TopicName, data: bytes) -> None:
        """Put the record into the outbox, or refuse it; never waits. See FanoutDriver.

        Raises:
            Unavailable: ``broker_away``, ``broker_payload_too_large``, ``broker_outbox_full``, or
                ``broker_permission_refused``: the last one before was not allowed.
        """
        await self._publish(encode_subject(self._prefix, topic), data)

    def publish_nowait(self, topic: TopicName, data: bytes) -> bool:
        """Write the record to the connection if nothing waits before it; see PublishesAtOnce."""
        session = self._session
        if session is None or self._is_sending or len(self._outbox) or len(data) > session.payload_max_bytes:
            return False
        if self._is_forbidden():
            return False
        if not session.publish_nowait(encode_subject(self._prefix, topic), data):
            return False
        self.counters.published += 1
        return True

    def hint_beside_nowait(self) -> None:
        """Ring the doorbell while the broker is away, heals or takes nothing; see HintsBeside."""
        if self.beside is not None:
            self.beside.hint_nowait(is_forced=self._is_forbidden())

    async def hint_revocations(self) -> None:
        """Put a hint into the outbox, or refuse it; never waits. See HintsRevocations.

        While the broker is away or heals the doorbell is rung as well, before a refusal.

        Raises:
            Unavailable: as ``publish`` does.
        """
        if self.beside is not None:
            await self.beside.hint_revocations()
        await self._publish(revocations_subject(self._prefix), b"")

    async def _publish(self, subject: str, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        session = self._session
        if session is None:
            reason = "broker_away"
        elif self._is_forbidden():
            reason = FORBIDDEN
        elif len(data) > session.payload_max_bytes:
            reason = "broker_payload_too_large"
        elif not self._outbox.offer_nowait(subject, data):
            reason = "broker_outbox_full"
        else:
            return
        self.counters.publish_failures += 1
        raise Unavailable(reason)

    def _is_forbidden(self) -> bool:
        if self._forbidden_until is None:
            return False
        if trio.current_time() < self._forbidden_until:
            return True
        self._forbidden_until, self.counters.trouble = None, ""
        return False

    def _note_forbidden(self) -> None:
        self.counters.forbidden += 1
        if self._forbidden_until is None:
            _log.error("broker_publish_forbidden", driver=self.name, retry_in_s=FORBIDDEN_PAUSE_S)
        self.counters.trouble = FORBIDDEN
        self._forbidden_until = trio.current_time() + FORBIDDEN_PAUSE_S

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
        async with AsyncExitStack() as held:
            if self.beside is not None:
                await held.enter_async_context(self.beside.listen(queue))
            self._interest.look_at(self._routes.open(queue))
            try:
                yield NatsSubscriber(queue, self)
            finally:
                queue.close()
                for subject in self._routes.close(queue):
                    self._interest.left(subject)

    async def follow(self, queue: DeliveryQueue, topic: TopicName) -> None:
        """Route a topic to an end; return when the server delivers it, or without a connection.

        Cancellation: safe; the route stays.
        """
        await self._interest.follow(queue, encode_subject(self._prefix, topic))

    def leave(self, queue: DeliveryQueue, topic: TopicName) -> None:
        """End the route of a topic to an end, if there is one."""
        self._interest.leave(queue, encode_subject(self._prefix, topic))

    # -- the connection ----------------------------------------------------------------------------

    async def check_health(self) -> bool:
        """Whether there is a connection that answered its last sign of life, and takes what we publish."""
        await trio.lowlevel.checkpoint()
        return self._is_connected and not self._is_forbidden()

    async def serve(self) -> None:
        """Keep connected until cancelled; each attempt goes to the next server of the list."""
        servers = list(self._servers)
        # Not all nodes to the first one.
        random.Random(self.rng()).shuffle(servers)  # noqa: S311 - spreads load, protects nothing
        session = partial(self._run_session, cycle(servers))
        await keep_connected(session, driver=self.name, counters=self.counters, rng=self.rng)

    async def _run_session(self, servers: Iterator[str], connected: Callable[[], None]) -> None:
        handler = NatsHandler(self._routes.take_message, self._note_forbidden, self._note_cluster)
        async with open_nats_session(next(servers), self._login, handler) as session:
            self._session = session
            try:
                await self._interest.begin(session)
                self.entries_max_bytes = _entries_max_bytes(session.payload_max_bytes)
                self._note_connected(connected)
                # After the subscriptions: what was published before them is in the journal now.
                self._routes.announce_everything()
                self._routes.hint_revocations()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send, session)
                    nursery.start_soon(self._interest.serve, session)
                    await session.wait_lost()
                    nursery.cancel_scope.cancel()
                raise Unavailable(session.reason)
            finally:
                self._forget_session()

    def _note_connected(self, connected: Callable[[], None]) -> None:
        if self.beside is not None:
            is_first_attempt = self.counters.connects == self.counters.connect_failures == 0
            self.beside.healing.connected(trio.current_time(), is_first_attempt=is_first_attempt)
        self._is_connected = True
        connected()

    def _note_cluster(self) -> None:
        if self.beside is not None:
            self.beside.healing.cluster_changed(trio.current_time())
        self._interest.cluster_changed()

    def _forget_session(self) -> None:
        if self._is_connected:
            self._routes.announce_everything()
            if self.beside is not None:
                self.beside.healing.lost(trio.current_time())
        self._session = None
        self._is_connected = False
        self._forbidden_until = None
        self._interest.end()
        # Sent later, they would only repeat what nodes have read from the journal.
        self.counters.publish_failures += self._outbox.clear()


def _entries_max_bytes(payload_max_bytes: int) -> int:
    """Return how many bytes of entries fit into a message of the server; 0 means hints only."""
    return max(0, min(RECORD_ENTRIES_MAX_BYTES, (payload_max_bytes - RECORD_OVERHEAD_BYTES) * 7 // 8))


@asynccontextmanager
async def open_nats_driver(context: DriverContext) -> AsyncIterator[NatsDriver]:
    """Open it; see ``fanout_drivers.opening.DriverFactory``."""
    login = NatsLogin.read(context)
    counters = DriverCounters()
    async with AsyncExitStack() as held:
        beside = None
        if context.config.nats_doorbell:
            doorbell = await held.enter_async_context(find_driver(DOORBELL)(context))
            beside = HintsBesideBroker(cast("Doorbell", doorbell), counters, Healing(trio.current_time()))
        driver = NatsDriver(
            context.config.nats_servers,
            login,
            context.config.subject_prefix,
            counters=counters,
            beside=beside,
        )
        await held.enter_async_context(open_background(driver.serve))
        yield driver
