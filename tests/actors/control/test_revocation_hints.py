"""When control hints at revocations, in virtual time: at once, few at a time, and never in anybody's way."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import attrs
import trio

from control.actors.revocation_hints import (
    HINT_FAILED,
    HINT_INTERVAL_S,
    HINTED,
    REPEAT_FOR_S,
    RETRY_S,
    TAKE_TIMEOUT_S,
    RevocationHints,
)
from khala_service.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock


@attrs.define
class Broker:
    """Takes hints while it is there."""

    is_away: bool = False
    takes_s: float = 0.0
    given_at: list[float] = attrs.field(factory=list)
    refused_at: list[float] = attrs.field(factory=list)

    async def hint_revocations(self) -> None:
        await trio.sleep(self.takes_s)
        if self.is_away:
            self.refused_at.append(trio.current_time())
            raise Unavailable("broker_away")
        self.given_at.append(trio.current_time())


@asynccontextmanager
async def hinting(broker: Broker) -> AsyncIterator[tuple[RevocationHints, Counter[str]]]:
    """Run the task for the length of the block."""
    counts: Counter[str] = Counter()

    def count(outcome: str) -> None:
        counts[outcome] += 1

    hints = RevocationHints(broker, count=count)
    async with trio.open_nursery() as nursery:
        await nursery.start(hints.serve_hinting)
        yield hints, counts
        nursery.cancel_scope.cancel()


async def test_a_mark_hints_at_once(autojump_clock: MockClock) -> None:
    """And silence hints nothing."""
    del autojump_clock
    broker = Broker()
    async with hinting(broker) as (hints, counts):
        await trio.sleep(100)
        hints.mark()
        await trio.sleep(100)
        assert broker.given_at == [100]
        assert counts == {HINTED: 1}


async def test_a_second_of_revocations(autojump_clock: MockClock) -> None:
    """1,000 in a second: the first at once, then at most one per interval, and one after the last."""
    del autojump_clock
    broker = Broker()
    async with hinting(broker) as (hints, _):
        for _ in range(1_000):
            hints.mark()
            await trio.sleep(0.001)
        last_at = trio.current_time() - 0.001
        await trio.sleep(1)
    assert broker.given_at[0] == 0
    assert broker.given_at[-1] >= last_at
    assert all(b - a >= HINT_INTERVAL_S - 1e-9 for a, b in pairwise(broker.given_at))
    assert len(broker.given_at) <= 1 / HINT_INTERVAL_S + 2


async def test_a_row_that_is_committed_during_a_hint_is_hinted_at(autojump_clock: MockClock) -> None:
    """A node may have read the log between the hint and the row."""
    del autojump_clock
    broker = Broker(takes_s=0.02)
    async with hinting(broker) as (hints, _):
        hints.mark()
        await trio.sleep(0.01)
        hints.mark()
        await trio.sleep(1)
    assert len(broker.given_at) == 2


async def test_a_hint_that_was_not_taken_is_given_again(autojump_clock: MockClock) -> None:
    """The driver is away for a moment: nodes hear as soon as it is back, once."""
    del autojump_clock
    broker = Broker(is_away=True)
    async with hinting(broker) as (hints, counts):
        hints.mark()
        await trio.sleep(1.1)
        broker.is_away = False
        await trio.sleep(100)
        assert broker.given_at == [3 * RETRY_S]
        assert counts == {HINT_FAILED: 3, HINTED: 1}


async def test_when_every_node_has_polled_it_gives_up(autojump_clock: MockClock) -> None:
    """A driver that stays away costs a few attempts for each revocation, and the next one is tried again."""
    del autojump_clock
    broker = Broker(is_away=True)
    async with hinting(broker) as (hints, _):
        hints.mark()
        await trio.sleep(100)
        assert broker.refused_at[-1] == REPEAT_FOR_S
        assert len(broker.refused_at) == REPEAT_FOR_S / RETRY_S + 1
        broker.is_away = False
        hints.mark()
        await trio.sleep(1)
        assert broker.given_at == [100]


async def test_a_driver_that_never_returns_holds_no_later_hint(autojump_clock: MockClock) -> None:
    """It is given up after a second and counted; the next hint goes out when the driver works again."""
    del autojump_clock
    broker = Broker(takes_s=3600)
    async with hinting(broker) as (hints, counts):
        hints.mark()
        await trio.sleep(TAKE_TIMEOUT_S + RETRY_S / 2)
        assert counts == {HINT_FAILED: 1}
        broker.takes_s = 0
        await trio.sleep(RETRY_S)
        assert counts == {HINT_FAILED: 1, HINTED: 1}
