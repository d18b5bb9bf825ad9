"""The driver that needs no broker: an empty NOTIFY after commits, and position checks at once.

``publish`` only marks that something was committed. One task rings, on a connection of its own: at once
for the first mark, then at most ``RINGS_MAX_PER_S`` times a second, and always once after the last mark.
Each subscriber listens on a connection of its own; every ring becomes ``PositionUnknown(None)``, of
which at most one waits. So nodes ask the journal for what they follow; no copy travels. Revocations have a
bell of their own on the same connections.

A ring that was heard by nobody is replaced by the notice that every lost and every new connection of a
subscriber makes. While the ringer is away the mark stays, and rings when it is back. Why the doorbell is
empty and rare: NOTIFY holds a lock of the whole database at commit (runbooks/adr, ADR-0009).
"""

from __future__ import annotations

import math
import random
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from fanout_drivers.background import open_background
from fanout_drivers.base import RECORD_ENTRIES_MAX_BYTES, DriverCounters, DriverGuarantees
from fanout_drivers.delivery_queue import DeliveryQueue
from fanout_drivers.reconnecting import keep_connected
from khala_service.adapters.postgres_doorbell import Bell, open_doorbell_listener, open_doorbell_ringer
from khala_service.errors import DatabaseError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from fanout_drivers.base import Delivery
    from fanout_drivers.opening import DriverContext
    from fanout_drivers.reconnecting import Session
    from khala_contracts.topics import TopicName

__all__ = ["CHECK_S", "RINGS_MAX_PER_S", "PostgresDriver", "PostgresSubscriber", "open_postgres_driver"]

# SPEC: a node makes at most 50 position checks a second for the doorbell. More rings are more commits
# under the global lock of NOTIFY, and no earlier delivery.
RINGS_MAX_PER_S: Final = 50
# How long a listener trusts a connection on which nothing happens: rings may be rare.
CHECK_S: Final = 10.0
# Everything else in the process goes on asking this database while it is away: rare attempts would
# spare it nothing, and would keep rings from nodes long after its return.
PATIENCE_S: Final = math.inf


class Ringer(Protocol):
    """What rings; khala_service.adapters.postgres_doorbell."""

    async def ring(self, bell: Bell) -> None:
        """Ring once. Raises Unavailable if the connection is lost, DatabaseError if it is refused."""


class Listener(Protocol):
    """What hears; khala_service.adapters.postgres_doorbell."""

    async def wait_ring(self) -> frozenset[Bell]:
        """Wait for a ring; return of which bells. Raises Unavailable if the connection is lost."""

    async def check(self) -> None:
        """Ask for a sign of life. Raises Unavailable if there is none."""


@attrs.define(eq=False)
class PostgresSubscriber:
    """A node's end: one waiting notice, and a task that listens."""

    queue: DeliveryQueue
    is_connected: bool = False

    async def subscribe(self, topic: TopicName) -> None:
        """Do nothing: a ring concerns every topic. See FanoutSubscriber."""
        del topic
        await trio.lowlevel.checkpoint()

    async def unsubscribe(self, topic: TopicName) -> None:
        """Do nothing; see FanoutSubscriber."""
        del topic
        await trio.lowlevel.checkpoint()

    async def receive(self) -> Delivery:
        """Return the next notice; see FanoutSubscriber."""
        return await self.queue.receive()


@attrs.define(eq=False)
class PostgresDriver:
    """The doorbell; ``serve`` rings it."""

    open_ringer: Callable[[], AbstractAsyncContextManager[Ringer]]
    open_listener: Callable[[], AbstractAsyncContextManager[Listener]]
    rng: Callable[[], float] = random.random
    counters: DriverCounters = attrs.field(factory=DriverCounters)
    # What is to be rung. Invariant: not empty iff _has_marks is set.
    _marks: set[Bell] = attrs.field(factory=set, init=False)
    _has_marks: trio.Event = attrs.field(factory=trio.Event, init=False)
    # None until something was published or a publisher was opened: a node never rings.
    _is_ringer_connected: bool | None = attrs.field(default=None, init=False)
    _subscribers: list[PostgresSubscriber] = attrs.field(factory=list, init=False)

    name: str = attrs.field(default="postgres", init=False)
    guarantees: DriverGuarantees = attrs.field(
        default=DriverGuarantees(
            may_lose=True,
            may_duplicate=True,
            may_reorder=False,
            crosses_processes=True,
            carries_copies=False,
        ),
        init=False,
    )
    # Copies are dropped here, so a larger one would only be made for nothing.
    entries_max_bytes: int = attrs.field(default=RECORD_ENTRIES_MAX_BYTES, init=False)

    async def publish(self, topic: TopicName, data: bytes) -> None:
        """Mark that something was committed; never waits, refuses nothing.

        Without a connection too: a mark that waits is as good as a ring, since it rings once the
        connection is back. See FanoutDriver.
        """
        del topic, data
        self.counters.published += 1
        self._mark(Bell.RECORDS)
        await trio.lowlevel.checkpoint()

    def ring_nowait(self) -> None:
        """Mark that something was committed; see ``beside.Doorbell``."""
        self._mark(Bell.RECORDS)

    async def hint_revocations(self) -> None:
        """Mark that revocations were written, as ``publish`` does. See HintsRevocations."""
        self._mark(Bell.REVOCATIONS)
        await trio.lowlevel.checkpoint()

    def _mark(self, bell: Bell) -> None:
        self._marks.add(bell)
        self._has_marks.set()

    @asynccontextmanager
    async def open_subscriber(self) -> AsyncIterator[PostgresSubscriber]:
        """Open a node's end; it connects by itself. See FanoutDriver."""
        subscriber = PostgresSubscriber(DeliveryQueue(self.counters))
        self._subscribers.append(subscriber)
        try:
            async with open_background(partial(self._serve_subscriber, subscriber)):
                yield subscriber
        finally:
            self._subscribers.remove(subscriber)
            subscriber.queue.close()

    async def check_health(self) -> bool:
        """Whether every connection that is needed here is there."""
        await trio.lowlevel.checkpoint()
        return self._is_ringer_connected is not False and all(
            subscriber.is_connected for subscriber in self._subscribers
        )

    async def serve(self, *, is_publisher: bool) -> None:
        """Ring after publications until cancelled.

        Args:
            is_publisher: Connect now; otherwise with the first publication.
        """
        if not is_publisher:
            await self._has_marks.wait()
        self._is_ringer_connected = False
        await self._keep_connected(self._ring)

    async def _keep_connected(self, session: Session) -> None:
        await keep_connected(
            session, driver=self.name, counters=self.counters, rng=self.rng, patience_s=PATIENCE_S
        )

    async def _ring(self, connected: Callable[[], None]) -> None:
        try:
            async with self.open_ringer() as ringer:
                connected()
                self._is_ringer_connected = True
                while True:
                    await self._has_marks.wait()
                    # Before the ring: a commit during the round trip must be rung for again.
                    self._has_marks, marks = trio.Event(), self._marks.copy()
                    self._marks.clear()
                    for bell in marks:
                        try:
                            await ringer.ring(bell)
                        except (Unavailable, DatabaseError):
                            for unrung in marks:
                                self._mark(unrung)
                            self.counters.publish_failures += 1
                            raise
                    await trio.sleep(1 / RINGS_MAX_PER_S)
        finally:
            self._is_ringer_connected = False

    async def _serve_subscriber(self, subscriber: PostgresSubscriber) -> None:
        async def session(connected: Callable[[], None]) -> None:
            try:
                async with self.open_listener() as listener:
                    connected()
                    subscriber.is_connected = True
                    # Whatever was rung while nobody listened.
                    subscriber.queue.announce_nowait()
                    subscriber.queue.hint_nowait()
                    await self._listen(listener, subscriber)
            finally:
                if subscriber.is_connected:
                    subscriber.is_connected = False
                    subscriber.queue.announce_nowait()

        await self._keep_connected(session)

    async def _listen(self, listener: Listener, subscriber: PostgresSubscriber) -> None:
        checked_at = trio.current_time()
        while True:
            with trio.move_on_at(checked_at + CHECK_S) as quiet:
                rung = await listener.wait_ring()
                self.counters.received += 1
                if Bell.REVOCATIONS in rung:
                    subscriber.queue.hint_nowait()
                if Bell.RECORDS in rung:
                    subscriber.queue.announce_nowait()
            if quiet.cancelled_caught or trio.current_time() >= checked_at + CHECK_S:
                await listener.check()
                checked_at = trio.current_time()


@asynccontextmanager
async def open_postgres_driver(context: DriverContext) -> AsyncIterator[PostgresDriver]:
    """Open it; see ``fanout_drivers.opening.DriverFactory``."""
    name = f"khala-doorbell-{context.component}"
    driver = PostgresDriver(
        open_ringer=lambda: open_doorbell_ringer(context.database_dsn, application_name=name),
        open_listener=lambda: open_doorbell_listener(context.database_dsn, application_name=name),
    )
    async with open_background(partial(driver.serve, is_publisher=context.component != "node")):
        yield driver
