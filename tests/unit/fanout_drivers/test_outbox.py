"""What waits to be sent: both sides of each bound."""

from __future__ import annotations

import pytest
import trio

from fanout_drivers.outbox import Outbox


async def test_bound_in_records() -> None:
    """INV-7: max_records wait; one more is refused, and the older ones stay."""
    outbox = Outbox(max_records=3, max_bytes=1_000)
    assert [outbox.offer_nowait("a", b"%d" % number) for number in range(4)] == [True, True, True, False]
    assert await outbox.take(10) == [("a", b"0"), ("a", b"1"), ("a", b"2")]
    assert outbox.offer_nowait("a", b"again")


@pytest.mark.parametrize(("size", "is_taken"), [(40, True), (41, False)])
async def test_bound_in_bytes(size: int, is_taken: bool) -> None:
    """INV-7: max_bytes wait; one byte more is refused."""
    outbox = Outbox(max_records=10, max_bytes=100)
    assert outbox.offer_nowait("a", bytes(60))
    assert outbox.offer_nowait("b", bytes(size)) is is_taken
    assert outbox.waiting_bytes == 60 + size * is_taken
    await outbox.take(1)
    assert outbox.waiting_bytes == size * is_taken


async def test_taking_waits_and_a_cancelled_one_takes_nothing() -> None:
    """In order, at most as many as asked; a cancelled wait leaves everything."""
    outbox = Outbox(max_records=10, max_bytes=100)
    with trio.move_on_after(0) as scope:
        await outbox.take(1)
    assert scope.cancelled_caught
    taken: list[tuple[str, bytes]] = []

    async def take() -> None:
        taken.extend(await outbox.take(2))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3):
            outbox.offer_nowait("a", b"%d" % number)
    assert taken == [("a", b"0"), ("a", b"1")]
    assert outbox.clear() == 1
    assert outbox.waiting_bytes == len(outbox) == 0
