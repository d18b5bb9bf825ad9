"""What a NATS server has subscribed for us, and what is announced again in a cluster. Virtual time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fanout_drivers.base import DriverCounters, PositionUnknown, RevocationsHint
from fanout_drivers.delivery_queue import DeliveryQueue
from fanout_drivers.nats_interest import SIGN_OF_LIFE_S, SPREAD_S, NatsInterest
from fanout_drivers.nats_routes import NatsRoutes
from fanout_drivers.subjects import encode_subject
from khala_service.errors import Unavailable
from tests.contract.driver_suite import OTHER_TOPIC, TOPIC

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from trio.testing import MockClock

    from fanout_drivers.nats_connection import NatsSession

SUBJECT, OTHER = encode_subject("test", TOPIC), encode_subject("test", OTHER_TOPIC)


@attrs.define(eq=False)
class FakeSession:
    """A server that confirms everything at once; notes what it has and how often it was asked."""

    is_clustered: bool = True
    subscribed: set[str] = attrs.field(factory=set)
    rounds: int = 0
    is_lost: bool = False

    async def settle(self, subjects: Iterable[str], is_wanted: Callable[[str], bool]) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_lost:
            raise Unavailable("broker_no_answer")
        self.rounds += 1
        for subject in subjects:
            (self.subscribed.add if is_wanted(subject) else self.subscribed.discard)(subject)


@attrs.define(eq=False)
class Desk:
    """One end, and the subscriptions behind it."""

    session: FakeSession
    interest: NatsInterest
    routes: NatsRoutes
    queue: DeliveryQueue

    async def nothing_within(self, seconds: float) -> bool:
        """Whether the end is told nothing for so long."""
        with trio.move_on_after(seconds):
            await self.queue.receive()
            return False
        return True


@asynccontextmanager
async def open_desk(*, is_clustered: bool) -> AsyncIterator[Desk]:
    """A served session with one end, of whose opening nothing waits any more."""
    counters = DriverCounters()
    routes, queue = NatsRoutes("test", counters), DeliveryQueue(counters)
    desk = Desk(FakeSession(is_clustered), NatsInterest(routes), routes, queue)
    desk.interest.look_at(routes.open(queue))
    await desk.interest.begin(cast("NatsSession", desk.session))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.interest.serve, cast("NatsSession", desk.session))
            if is_clustered:
                assert await queue.receive() == RevocationsHint()
            yield desk
            nursery.cancel_scope.cancel()


async def test_in_a_cluster_a_subscription_is_announced_again(autojump_clock: MockClock) -> None:
    """Its server's word holds for publishers there; what others published until they heard of it is read."""
    del autojump_clock
    async with open_desk(is_clustered=True) as desk:
        await desk.interest.follow(desk.queue, SUBJECT)
        assert SUBJECT in desk.session.subscribed
        began = trio.current_time()
        assert await desk.queue.receive() == PositionUnknown(frozenset({TOPIC}))
        assert trio.current_time() == pytest.approx(began + SPREAD_S)
        # Once; another topic later does not announce this one again.
        await desk.interest.follow(desk.queue, SUBJECT)
        assert await desk.nothing_within(SPREAD_S * 3)
        await desk.interest.follow(desk.queue, OTHER)
        assert await desk.queue.receive() == PositionUnknown(frozenset({OTHER_TOPIC}))


async def test_topics_that_follow_each_other_closely_are_announced_each(autojump_clock: MockClock) -> None:
    """One that is subscribed while another one spreads has its own time."""
    del autojump_clock
    async with open_desk(is_clustered=True) as desk:
        await desk.interest.follow(desk.queue, SUBJECT)
        await trio.sleep(SPREAD_S * 0.9)
        followed_at = trio.current_time()
        await desk.interest.follow(desk.queue, OTHER)
        assert await desk.queue.receive() == PositionUnknown(frozenset({TOPIC}))
        assert await desk.queue.receive() == PositionUnknown(frozenset({OTHER_TOPIC}))
        assert SPREAD_S <= trio.current_time() - followed_at <= 2 * SPREAD_S


async def test_a_server_by_itself_needs_no_announcement(autojump_clock: MockClock) -> None:
    """Its answer is the whole truth."""
    del autojump_clock
    async with open_desk(is_clustered=False) as desk:
        await desk.interest.follow(desk.queue, SUBJECT)
        assert await desk.nothing_within(SPREAD_S * 3)


async def test_a_change_of_the_cluster_announces_everything_twice(autojump_clock: MockClock) -> None:
    """At once, for what was lost with a server; and when the servers know each other's subscriptions."""
    del autojump_clock
    async with open_desk(is_clustered=True) as desk:
        desk.interest.cluster_changed()
        began = trio.current_time()
        assert await desk.queue.receive() == PositionUnknown(None)
        assert trio.current_time() == began
        told = {await desk.queue.receive(), await desk.queue.receive()}
        assert told == {PositionUnknown(None), RevocationsHint()}
        assert trio.current_time() == pytest.approx(began + SPREAD_S)


async def test_signs_of_life_and_the_end(autojump_clock: MockClock) -> None:
    """A quiet server is asked now and then; one that does not answer ends the service, and nobody waits."""
    del autojump_clock
    async with open_desk(is_clustered=False) as desk:
        rounds = desk.session.rounds
        await trio.sleep(SIGN_OF_LIFE_S * 3.5)
        assert desk.session.rounds == rounds + 3
        desk.session.is_lost = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.interest.follow, desk.queue, SUBJECT)
            await wait_all_tasks_blocked()
            desk.interest.end()
        # Without a session following only routes.
        await desk.interest.follow(desk.queue, OTHER)
        assert OTHER in desk.routes
        assert OTHER not in desk.session.subscribed
