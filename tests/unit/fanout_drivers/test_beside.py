"""When hints are given by a second way, too, and what becomes of those that are heard. Virtual time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fanout_drivers.base import DriverCounters, PositionUnknown, RevocationsHint
from fanout_drivers.beside import CLUSTER_HEALING_S, HEALING_S, Healing, HintsBesideBroker
from fanout_drivers.delivery_queue import DeliveryQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock


def healed(away_s: float, *, is_first_attempt: bool = False) -> Healing:
    """Return the state after an absence that ended at 1,000."""
    healing = Healing(1_000.0 - away_s)
    healing.connected(1_000.0, is_first_attempt=is_first_attempt)
    return healing


def test_needed_while_away() -> None:
    """Before the first connection, and from a loss to the next one, however long that takes."""
    healing = Healing(0.0)
    assert healing.is_needed(10_000.0)
    healing.connected(10_000.0, is_first_attempt=True)
    assert not healing.is_needed(10_000.0)
    healing.lost(20_000.0)
    healing.lost(20_001.0)
    assert healing.is_needed(90_000.0)


@pytest.mark.parametrize(
    ("away_s", "needed_s"),
    [(0.1, HEALING_S), (59.9, HEALING_S), (60.0, CLUSTER_HEALING_S), (600.0, CLUSTER_HEALING_S)],
)
def test_needed_until_the_others_may_be_back(away_s: float, needed_s: float) -> None:
    """Nodes try again within seconds; after a long absence, when their attempts are rare, within a minute."""
    healing = healed(away_s)
    assert healing.is_needed(1_000.0 + needed_s - 0.1)
    assert not healing.is_needed(1_000.0 + needed_s)


def test_not_needed_after_a_first_attempt_that_succeeds() -> None:
    """A process that starts beside a healthy broker has nobody to wait for."""
    assert not healed(0.1, is_first_attempt=True).is_needed(1_000.0)


def test_a_change_of_the_cluster_needs_it() -> None:
    """A server left or joined; a shorter reason that comes later does not end it earlier."""
    healing = healed(0.0, is_first_attempt=True)
    healing.cluster_changed(1_000.0)
    healing.lost(1_001.0)
    healing.connected(1_002.0, is_first_attempt=False)
    assert healing.is_needed(1_000.0 + CLUSTER_HEALING_S - 0.1)
    assert not healing.is_needed(1_000.0 + CLUSTER_HEALING_S)


@attrs.define(eq=False)
class FakeDoorbell:
    """Counts rings; what is put into ``queue`` is heard."""

    rings: int = 0
    hints: int = 0
    queue: DeliveryQueue = attrs.field(factory=lambda: DeliveryQueue(DriverCounters()))

    def ring_nowait(self) -> None:
        self.rings += 1

    async def hint_revocations(self) -> None:
        self.hints += 1
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def open_subscriber(self) -> AsyncIterator[DeliveryQueue]:
        yield self.queue


async def test_it_rings_while_it_heals_only(autojump_clock: MockClock) -> None:
    """Each commit and each hint of revocations, while away and healing; no more afterwards, unless forced."""
    del autojump_clock
    doorbell, counters = FakeDoorbell(), DriverCounters()
    beside = HintsBesideBroker(doorbell, counters, Healing(trio.current_time()))  # type: ignore[arg-type]
    beside.hint_nowait()
    await beside.hint_revocations()
    await trio.sleep(1)
    beside.healing.connected(trio.current_time(), is_first_attempt=False)
    beside.hint_nowait()
    await trio.sleep(HEALING_S)
    beside.hint_nowait()
    await beside.hint_revocations()
    assert (doorbell.rings, doorbell.hints) == (2, 1)
    beside.hint_nowait(is_forced=True)
    assert doorbell.rings == 3
    assert counters.hints_beside == 4


async def test_what_is_heard_reaches_the_end_of_a_node() -> None:
    """A ring is a notice about everything, that of revocations a hint; after the block nothing is heard."""
    doorbell, counters = FakeDoorbell(), DriverCounters()
    beside = HintsBesideBroker(doorbell, counters, Healing(0.0))  # type: ignore[arg-type]
    queue = DeliveryQueue(counters)
    async with beside.listen(queue):
        doorbell.queue.announce_nowait()
        assert await queue.receive() == PositionUnknown(None)
        doorbell.queue.hint_nowait()
        assert await queue.receive() == RevocationsHint()
        assert counters.hints_beside == 2
    doorbell.queue.announce_nowait()
    await wait_all_tasks_blocked()
    assert not queue.has_news
