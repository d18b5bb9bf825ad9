"""The task that keeps a node's view of revocations current, on virtual time."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala.actors.revocation_feed import HINTED_POLL_INTERVAL_S, RevocationFeed
from khala.core.limits import NodeLimits
from khala.core.revocation_view import Revocation, RevocationKind, RevocationPage, RevocationView
from khala.ports import ControlUnavailableError
from tests.actors.khala.fake_control import FakeClock, FixedRng

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

LIMITS = NodeLimits()


@attrs.define
class Log:
    """Control's log; may be away, and counts its calls."""

    rows: list[Revocation] = attrs.field(factory=list)
    is_away: bool = False
    page_max: int = 2
    answers_after_s: float = 0.0
    polled_at: list[float] = attrs.field(factory=list)

    def add(self, session_id: str) -> None:
        """Revoke a session."""
        now_ms = round(FakeClock().now() * 1000)
        row = Revocation(len(self.rows) + 1, RevocationKind.SESSION, now_ms, session_id=session_id)
        self.rows.append(row)

    async def read_revocations(self, after_seq: int) -> RevocationPage:
        """Return a page."""
        await trio.lowlevel.checkpoint()
        self.polled_at.append(trio.current_time())
        if self.is_away:
            raise ControlUnavailableError(1.0)
        page = RevocationPage(self.rows[after_seq : after_seq + self.page_max], len(self.rows), 1)
        await trio.sleep(self.answers_after_s)
        return page


@attrs.define
class Rig:
    """A running feed."""

    log: Log
    view: RevocationView
    feed: RevocationFeed
    told: list[Revocation]


@asynccontextmanager
async def running_feed(log: Log) -> AsyncIterator[Rig]:
    """Run the feed for the length of the block."""
    told: list[Revocation] = []
    view = RevocationView()

    def tell(rows: Sequence[Revocation]) -> None:
        assert view.applied_seq >= rows[-1].seq, "told before the view has it"
        told.extend(rows)

    feed = RevocationFeed(log, view, limits=LIMITS, clock=FakeClock(), rng=FixedRng(), on_revoked=tell)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        yield Rig(log, view, feed, told)
        nursery.cancel_scope.cancel()


async def test_nobody_is_welcomed_before_the_head_was_read(autojump_clock: object) -> None:
    """A node that starts reads page after page; until the last one it welcomes nobody."""
    log = Log()
    for number in range(5):
        log.add(f"ses_{number}")
    async with running_feed(log) as rig:
        assert math.isinf(rig.feed.staleness_s)
        assert not rig.feed.may_welcome
        await trio.testing.wait_all_tasks_blocked()
        assert rig.feed.may_welcome
        assert [row.seq for row in rig.told] == [1, 2, 3, 4, 5]


async def test_a_row_is_read_by_the_next_poll(autojump_clock: object) -> None:
    """Every 5 s, each row told once."""
    async with running_feed(Log()) as rig:
        await trio.sleep(1)
        rig.log.add("ses_a")
        await trio.sleep(3.9)
        assert rig.told == []
        await trio.sleep(0.2)
        assert [row.session_id for row in rig.told] == ["ses_a"]
        await trio.sleep(60)
        assert len(rig.told) == 1


async def test_a_hint_is_followed_at_once(autojump_clock: object) -> None:
    """The row is there in the same instant; a hint of nothing costs one poll, and the next comes 5 s after it."""
    async with running_feed(Log()) as rig:
        await trio.sleep(1)
        rig.log.add("ses_a")
        rig.feed.hint()
        await trio.testing.wait_all_tasks_blocked()
        assert [row.session_id for row in rig.told] == ["ses_a"]
        await trio.sleep(1)
        rig.feed.hint()
        await trio.sleep(5.5)
        assert rig.log.polled_at == [0, 1, 2, 7]
        assert rig.feed.staleness_s == 0.5


async def test_a_row_that_is_committed_while_control_answers_is_read(autojump_clock: object) -> None:
    """Its hint arrives during a read that began before it: another read follows."""
    async with running_feed(Log(answers_after_s=0.2)) as rig:
        await trio.sleep(1)
        rig.feed.hint()
        await trio.sleep(0.1)
        rig.log.add("ses_b")
        rig.feed.hint()
        await trio.sleep(0.4)
        assert [row.session_id for row in rig.told] == ["ses_b"]


async def test_a_flood_of_hints_costs_twenty_polls_a_second(autojump_clock: object) -> None:
    """INV-27: whoever may hint, 10,000 times in 10 s, causes a bounded number of reads, the last after the last."""
    async with running_feed(Log()) as rig:
        await trio.sleep(1)
        before = len(rig.log.polled_at)
        for _ in range(10_000):
            rig.feed.hint()
            await trio.sleep(0.001)
        last_at = trio.current_time() - 0.001
        await trio.sleep(1)
        polls = rig.log.polled_at[before:]
        assert 190 <= len(polls) <= 10 / HINTED_POLL_INTERVAL_S + 2
        assert polls[-1] >= last_at


async def test_hints_do_not_hurry_the_retries(autojump_clock: object) -> None:
    """While control is away the backoff stands, however many hints somebody gives."""
    async with running_feed(Log(is_away=True)) as rig:
        for _ in range(6_000):
            rig.feed.hint()
            await trio.sleep(0.01)
        gaps = [b - a for a, b in zip(rig.log.polled_at, rig.log.polled_at[1:], strict=False)]
        assert min(gaps) >= 1.0
        assert len(gaps) < 20


async def test_without_control_the_view_grows_stale(autojump_clock: object) -> None:
    """At 60 s it still welcomes, after it not; when control is back, it does again within seconds."""
    async with running_feed(Log()) as rig:
        await trio.testing.wait_all_tasks_blocked()
        rig.log.is_away = True
        await trio.sleep(60)
        assert rig.feed.may_welcome
        await trio.sleep(0.1)
        assert not rig.feed.may_welcome
        await trio.sleep(100)
        rig.log.add("ses_meanwhile")
        rig.log.is_away = False
        await trio.sleep(LIMITS.revocation_poll_interval_s + 1)
        assert rig.feed.may_welcome
        assert [row.session_id for row in rig.told] == ["ses_meanwhile"]


async def test_polls_of_a_control_that_is_away_thin_out(autojump_clock: object) -> None:
    """Backoff to the poll interval, never below the advice."""
    async with running_feed(Log(is_away=True)) as rig:
        await trio.sleep(60)
        gaps = [b - a for a, b in zip(rig.log.polled_at, rig.log.polled_at[1:], strict=False)]
        assert min(gaps) >= 1.0
        assert max(gaps) == pytest.approx(1.0 + LIMITS.revocation_poll_interval_s)


async def test_old_rows_are_forgotten(autojump_clock: object) -> None:
    """An hour after a row no token from before it can exist, and the view holds nothing of it."""
    async with running_feed(Log()) as rig:
        rig.log.add("ses_a")
        await trio.sleep(10)
        assert len(rig.view) == 1
        await trio.sleep(3_610)
        assert len(rig.view) == 0
