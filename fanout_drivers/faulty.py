"""A driver around another one that loses, repeats, reorders, delays, disconnects and forges, by seed.

For drills and tests: everything that is delivered through it must be as through the inner driver. It
works at the subscribers' side, so each node has troubles of its own; publishing is untouched. Loss is
silent on purpose: what nobody announces, the position check must find. What it has done is counted in
``counters.injected``. In production it is refused.

Options (section ``fanout.options``): ``inner`` (a driver's name, default postgres), ``seed`` (an integer,
default 0), and a probability for each fault of ``faults.py``. ``hint_loss = "1"`` drops every push of a
revocation, and nothing else.
"""

from __future__ import annotations

import math
import re
from collections import deque
from contextlib import asynccontextmanager
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Final

import attrs
import trio

from fanout_drivers.base import HintsBeside, PositionUnknown, RecordCopy, RevocationsHint, find_hinter
from fanout_drivers.faults import FAULTS, HINT_FAULTS, FaultRates, Faults
from fanout_drivers.opening import SECTION, find_driver
from khala_service.config import ConfigRefused

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Iterator

    from fanout_drivers.base import (
        Delivery,
        DriverCounters,
        DriverGuarantees,
        FanoutDriver,
        FanoutSubscriber,
    )
    from fanout_drivers.opening import DriverContext
    from khala_contracts.topics import TopicName

__all__ = ["FaultyDriver", "FaultySubscriber", "open_faulty_driver"]

NAME: Final = "faulty"
DEFAULT_INNER: Final = "postgres"


@attrs.define(eq=False)
class FaultySubscriber:
    """An end of the inner driver, behind its faults."""

    _inner: FanoutSubscriber
    _faults: Faults
    _carries_copies: bool
    _arrived: deque[Delivery] = attrs.field(factory=deque, init=False)

    async def subscribe(self, topic: TopicName) -> None:
        """Start delivery; see FanoutSubscriber."""
        await self._inner.subscribe(topic)

    async def unsubscribe(self, topic: TopicName) -> None:
        """Stop delivery; see FanoutSubscriber."""
        await self._inner.unsubscribe(topic)

    async def receive(self) -> Delivery:
        """Return the next delivery, or what became of one; see FanoutSubscriber."""
        while True:
            self._arrived.extend(self._faults.release(trio.current_time()))
            if self._arrived:
                await trio.lowlevel.checkpoint_if_cancelled()
                return self._arrived.popleft()
            due = self._faults.next_due()
            with trio.move_on_at(math.inf if due is None else due):
                self._take(await self._inner.receive())

    def _take(self, delivery: Delivery) -> None:
        if isinstance(delivery, RevocationsHint):
            if not self._faults.loses_hint():
                self._arrived.append(delivery)
            return
        # A driver of copies tells by its notices what it has lost itself. Losing those as well would
        # be no fault of a broker; where notices are all there is, they are what gets lost.
        if isinstance(delivery, RecordCopy) or not self._carries_copies:
            self._arrived.extend(self._faults.take(delivery, trio.current_time()))
        else:
            assert isinstance(delivery, PositionUnknown)
            self._arrived.append(delivery)


@attrs.define(eq=False)
class FaultyDriver:
    """The driver; the faults of its n-th subscriber depend on seed and n alone."""

    inner: FanoutDriver
    rates: FaultRates
    seed: int = 0
    _numbers: Iterator[int] = attrs.field(factory=count, init=False)

    name: str = attrs.field(default=NAME, init=False)

    @property
    def guarantees(self) -> DriverGuarantees:
        """Those of the inner driver, less what the faults take away."""
        inner, rates = self.inner.guarantees, self.rates
        return attrs.evolve(
            inner,
            may_lose=inner.may_lose or rates.loss > 0 or rates.disconnect > 0,
            may_duplicate=inner.may_duplicate or rates.duplicate > 0,
            # A duplicate that comes late is out of order as well.
            may_reorder=inner.may_reorder or max(rates.duplicate, rates.reorder, rates.delay) > 0,
            announces_losses=inner.announces_losses and rates.loss == 0,
            may_invent=inner.may_invent or rates.forge > 0,
        )

    @property
    def counters(self) -> DriverCounters:
        """Those of the inner driver, with the injected faults."""
        return self.inner.counters

    @property
    def injected(self) -> Counter[str]:
        """How often each fault was injected, over all subscribers."""
        return self.inner.counters.injected

    @property
    def entries_max_bytes(self) -> int:
        """That of the inner driver."""
        return self.inner.entries_max_bytes

    async def publish(self, topic: TopicName, data: bytes) -> None:
        """Publish through the inner driver; what that refuses is refused."""
        await self.inner.publish(topic, data)

    def hint_beside_nowait(self) -> None:
        """Let the inner driver, if it can, hint by its second way; see HintsBeside."""
        if isinstance(self.inner, HintsBeside):
            self.inner.hint_beside_nowait()

    async def hint_revocations(self) -> None:
        """Hint through the inner driver, if that can; see HintsRevocations."""
        hinter = find_hinter(self.inner)
        if hinter is not None:
            await hinter.hint_revocations()

    @asynccontextmanager
    async def open_subscriber(self) -> AsyncIterator[FaultySubscriber]:
        """Open an end of the inner driver, with faults; see FanoutDriver."""
        # A text: seeds of equal bits would otherwise be shared between subscribers.
        rng = Random(f"{self.seed}:{next(self._numbers)}")  # noqa: S311 - seeded faults, no secret
        async with self.inner.open_subscriber() as inner:
            yield FaultySubscriber(
                inner, Faults(self.rates, rng, self.injected), self.inner.guarantees.carries_copies
            )

    async def check_health(self) -> bool:
        """Whether the inner driver is healthy."""
        return await self.inner.check_health()


@asynccontextmanager
async def open_faulty_driver(context: DriverContext) -> AsyncIterator[FaultyDriver]:
    """Open it around the driver of the option ``inner``; see ``fanout_drivers.opening.DriverFactory``."""
    if context.mode != "dev":
        raise ConfigRefused((f"{SECTION}.driver: faulty does harm on purpose; it needs mode = dev",))
    options = dict(context.config.options)
    inner = options.pop("inner", DEFAULT_INNER)
    errors = []
    if inner == NAME:
        errors.append(f"{SECTION}.options.inner: faulty goes around another driver")
    seed = options.pop("seed", "0")
    if not re.fullmatch(r"-?[0-9]{1,18}", seed, re.ASCII):
        errors.append(f"{SECTION}.options.seed: an integer is needed")
    rates: dict[str, float] = {}
    for fault in (*FAULTS, *HINT_FAULTS):
        text = options.pop(fault, "0")
        if re.fullmatch(r"[01]|0?\.[0-9]{1,9}|1\.0{1,9}", text, re.ASCII):
            rates[fault] = float(text)
        else:
            errors.append(f"{SECTION}.options.{fault}: a probability, 0..1, is needed")
    known = ", ".join(("inner", "seed", *FAULTS, *HINT_FAULTS))
    errors += [f"{SECTION}.options.{name}: not an option of faulty ({known})" for name in sorted(options)]
    if errors:
        raise ConfigRefused(tuple(errors))
    async with find_driver(inner)(context) as driver:
        yield FaultyDriver(driver, FaultRates(**rates), int(seed))
