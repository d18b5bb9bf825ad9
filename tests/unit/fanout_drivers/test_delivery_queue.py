"""What waits for a subscriber; bounds and order are in the suite of the memory driver as well."""

from __future__ import annotations

import pytest
import trio

from fanout_drivers.base import DriverCounters, PositionUnknown, RecordCopy, RevocationsHint
from fanout_drivers.delivery_queue import DeliveryQueue
from tests.contract.driver_suite import OTHER_TOPIC, TOPIC


async def test_notices_coalesce() -> None:
    """However often something was missed, at most one notice waits; everything includes each topic."""
    queue = DeliveryQueue(DriverCounters())
    for _ in range(1_000):
        queue.announce_nowait(TOPIC)
        queue.announce_nowait(OTHER_TOPIC)
    assert await queue.receive() == PositionUnknown(frozenset({TOPIC, OTHER_TOPIC}))
    queue.announce_nowait(TOPIC)
    for _ in range(1_000):
        queue.announce_nowait()
    assert await queue.receive() == PositionUnknown(None)
    queue.offer_nowait(RecordCopy(TOPIC, b"next"))
    assert await queue.receive() == RecordCopy(TOPIC, b"next")


async def test_a_notice_overtakes_the_copies_before_it() -> None:
    """What follows a hole cannot be used before the hole is healed: the sooner it is known the better."""
    queue = DeliveryQueue(DriverCounters())
    queue.offer_nowait(RecordCopy(TOPIC, b"before"))
    queue.announce_nowait()
    assert await queue.receive() == PositionUnknown(None)
    assert await queue.receive() == RecordCopy(TOPIC, b"before")


async def test_a_hint_comes_before_everything_and_once() -> None:
    """However much waits, a node learns at once that control's log has grown."""
    queue = DeliveryQueue(DriverCounters())
    queue.offer_nowait(RecordCopy(TOPIC, b"before"))
    queue.announce_nowait()
    for _ in range(1_000):
        queue.hint_nowait()
    assert await queue.receive() == RevocationsHint()
    assert await queue.receive() == PositionUnknown(None)
    assert await queue.receive() == RecordCopy(TOPIC, b"before")


async def test_after_the_end_nothing_is_kept() -> None:
    """A driver may still have a message in its hands when a subscriber closes."""
    queue = DeliveryQueue(DriverCounters())
    queue.close()
    queue.offer_nowait(RecordCopy(TOPIC, b"late"))
    queue.announce_nowait()
    queue.hint_nowait()
    assert len(queue) == queue.waiting_bytes == 0
    with pytest.raises(trio.ClosedResourceError):
        await queue.receive()
