"""The broker of a world, with a fan-out driver for each process: loses, repeats, reorders, delays and forges by seed.

A driver of a process keeps the contract of fanout_drivers/base.py and passes its suite. What is under way to a
subscriber arrives in the order of its due times, into the same bounded queue that the real drivers use; nothing
is announced but what that queue drops and the broker's return after an outage.

Invariants:
    a record reaches only subscribers of its topic, unchanged, unless a fault says otherwise
    nothing arrives at a process that is severed, and nothing leaves it
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from fanout_drivers.base import RECORD_ENTRIES_MAX_BYTES, DriverCounters, DriverGuarantees, RecordCopy
from fanout_drivers.delivery_queue import QUEUE_MAX_RECORDS, DeliveryQueue
from fanout_drivers.faults import FaultRates, Faults
from khala_service.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from chaos.sim.gates import BrokerFaults, PortGate
    from fanout_drivers.base import Delivery
    from khala_contracts.topics import TopicName

__all__ = ["FanoutModel", "ModelDriver", "ModelSubscriber"]

NAME = "simulated"


class FanoutModel:
    """The broker.

    Attributes:
        injected: Harm done so far, by fault.
    """

    def __init__(
        self, *, rng: Random, faults: BrokerFaults, queue_max_records: int = QUEUE_MAX_RECORDS
    ) -> None:
        self.rng = rng
        self.faults = faults
        self.queue_max_records = queue_max_records
        self.injected: Counter[str] = Counter()
        # Insertion ordered: who is served first must not depend on an id().
        self.subscribers: dict[ModelSubscriber, None] = {}

    def open_driver(self, gate: PortGate) -> ModelDriver:
        """Return the driver of one process."""
        return ModelDriver(self, gate)

    def come_back(self) -> None:
        """End an outage: every subscriber that is reached learns that it may have missed something."""
        self.faults.is_down = False
        self.announce()

    def announce(self, place: str | None = None) -> None:
        """Tell the subscribers of a place, or all of them, that their connection was made anew."""
        for subscriber in list(self.subscribers):
            if place in (None, subscriber.place) and not self.is_cut_to(subscriber.place):
                subscriber.reconnected()

    def is_cut_from(self, place: str) -> bool:
        """Whether what a place says does not arrive here."""
        return self.faults.is_down or place in self.faults.cut_from

    def is_cut_to(self, place: str) -> bool:
        """Whether what is said here does not arrive at a place."""
        return self.faults.is_down or place in self.faults.cut_to

    def happens(self, fault: str) -> bool:
        """Draw whether a fault happens now, and count it."""
        rate: float = getattr(self.faults, fault)
        if rate <= 0 or self.rng.random() >= rate:
            return False
        self.injected[fault] += 1
        return True

    def carry(self, topic: TopicName, data: bytes) -> None:
        """Take a record for every subscriber of its topic."""
        for subscriber in list(self.subscribers):
            if topic in subscriber.topics:
                subscriber.send(RecordCopy(topic, data))

    def carry_hint(self) -> None:
        """Take a hint of revocations for every subscriber."""
        for subscriber in list(self.subscribers):
            if not self.is_cut_to(subscriber.place) and not self.happens("loss"):
                subscriber.hint()


@attrs.define(eq=False)
class ModelSubscriber:
    """A node's end; see FanoutSubscriber."""

    model: FanoutModel
    queue: DeliveryQueue
    _gate: PortGate
    # Insertion ordered.
    topics: dict[TopicName, None] = attrs.field(factory=dict, init=False)
    # (due, number, copy); the number keeps the order of equal times.
    _under_way: list[tuple[float, int, RecordCopy]] = attrs.field(factory=list, init=False)
    _number: int = attrs.field(default=0, init=False)
    # No record that keeps the order may arrive before the one sent before it.
    _latest_due: float = attrs.field(default=0.0, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _forger: Faults = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make the forger, who knows everything but the key."""
        self._forger = Faults(FaultRates(forge=1.0), self.model.rng, Counter())

    @property
    def place(self) -> str:
        """The host of its process."""
        return self._gate.place

    async def subscribe(self, topic: TopicName) -> None:
        """Start delivery of a topic; see FanoutSubscriber."""
        await self._gate.cross("broker.subscribe")
        self.topics[topic] = None

    async def unsubscribe(self, topic: TopicName) -> None:
        """Stop delivery of a topic; see FanoutSubscriber."""
        await self._gate.cross("broker.unsubscribe")
        self.topics.pop(topic, None)

    async def receive(self) -> Delivery:
        """Return the next message or notice; see FanoutSubscriber."""
        await self._gate.cross("broker.receive")
        while True:
            self._arrive()
            if self.queue.has_news or self.queue.is_closed:
                if self._gate.is_severed:
                    await trio.sleep_forever()
                return await self.queue.receive()
            self._changed = trio.Event()
            with trio.move_on_at(self._under_way[0][0] if self._under_way else math.inf):
                await self._changed.wait()

    def send(self, copy: RecordCopy) -> None:
        """Put a record on its way, and whatever the faults make of it."""
        model, now = self.model, trio.current_time()
        if model.is_cut_to(self.place):
            model.injected["cut"] += 1
            return
        if model.happens("forge"):
            forged, _ = self._forger.take(copy, now)
            assert isinstance(forged, RecordCopy)
            self._put(forged, now)
        if model.happens("loss"):
            return
        if model.happens("corrupt"):
            copy = RecordCopy(copy.topic, _flip(copy.data, model.rng))
        due = now + model.faults.delay.draw(model.rng)
        if model.happens("reorder"):
            self._put(copy, due + model.rng.uniform(0.0, model.faults.reorder_s))
        else:
            self._latest_due = max(self._latest_due, due)
            self._put(copy, self._latest_due)
        if model.happens("duplicate"):
            self._put(copy, due + model.rng.uniform(0.0, model.faults.reorder_s))

    def hint(self) -> None:
        """Hand over a hint of revocations."""
        self.queue.hint_nowait()
        self._changed.set()

    def reconnected(self) -> None:
        """Say that something may have been missed, as a driver does with each new connection."""
        self.queue.announce_nowait()
        self.hint()

    def close(self) -> None:
        """Forget everything; idempotent."""
        self.model.subscribers.pop(self, None)
        self._under_way.clear()
        self.queue.close()
        self._changed.set()

    def _put(self, copy: RecordCopy, due: float) -> None:
        self._number += 1
        heapq.heappush(self._under_way, (due, self._number, copy))
        self._changed.set()

    def _arrive(self) -> None:
        now = trio.current_time()
        while self._under_way and self._under_way[0][0] <= now:
            copy = heapq.heappop(self._under_way)[2]
            if copy.topic in self.topics:
                self.queue.offer_nowait(copy)


class ModelDriver:
    """The driver of one process; see FanoutDriver."""

    name = NAME
    entries_max_bytes = RECORD_ENTRIES_MAX_BYTES

    def __init__(self, model: FanoutModel, gate: PortGate) -> None:
        self.counters = DriverCounters()
        self._model = model
        self._gate = gate

    @property
    def guarantees(self) -> DriverGuarantees:
        """What the broker may do to messages now."""
        faults = self._model.faults
        may_alter = faults.corrupt > 0 or faults.forge > 0
        return DriverGuarantees(
            may_lose=True,
            may_duplicate=faults.duplicate > 0,
            may_reorder=faults.reorder > 0,
            crosses_processes=True,
            announces_losses=not (faults.loss > 0 or faults.corrupt > 0 or faults.cut_to or faults.cut_from),
            may_invent=may_alter,
        )

    async def publish(self, topic: TopicName, data: bytes) -> None:
        """Hand one record over; see FanoutDriver."""
        await self._gate.cross("broker.publish")
        model = self._model
        if model.is_cut_from(self._gate.place) and (model.faults.is_down or model.rng.random() < 0.5):
            self.counters.publish_failures += 1
            raise Unavailable("broker_unreachable")
        self._hand_over(topic, data)

    def publish_nowait(self, topic: TopicName, data: bytes) -> bool:
        """Hand one record over at once, or not at all; see PublishesAtOnce."""
        if self._gate.is_severed or self._model.is_cut_from(self._gate.place):
            return False
        self._hand_over(topic, data)
        return True

    async def hint_revocations(self) -> None:
        """Hint to every subscriber; see HintsRevocations."""
        await self._gate.cross("broker.hint")
        if self._model.is_cut_from(self._gate.place):
            raise Unavailable("broker_unreachable")
        self._model.carry_hint()

    @asynccontextmanager
    async def open_subscriber(self) -> AsyncIterator[ModelSubscriber]:
        """Open a node's end; see FanoutDriver."""
        queue = DeliveryQueue(self.counters, max_records=self._model.queue_max_records)
        subscriber = ModelSubscriber(self._model, queue, self._gate)
        self._model.subscribers[subscriber] = None
        forget = self._gate.on_sever(lambda: self._model.subscribers.pop(subscriber, None))
        try:
            yield subscriber
        finally:
            forget()
            subscriber.close()

    async def check_health(self) -> bool:
        """Whether the broker is reached."""
        await self._gate.cross("broker.health")
        place = self._gate.place
        return not (self._model.is_cut_from(place) or self._model.is_cut_to(place))

    def _hand_over(self, topic: TopicName, data: bytes) -> None:
        self.counters.published += 1
        # What a place that is cut off says vanishes: its kernel took it.
        if not self._model.is_cut_from(self._gate.place):
            self._model.carry(topic, data)


def _flip(data: bytes, rng: Random) -> bytes:
    if not data:
        return b"\x00"
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ rng.randrange(1, 256)]) + data[place + 1 :]
