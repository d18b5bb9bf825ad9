"""A writer leaves nothing behind: no turn that was given while it ended, no way past a frame half written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from khala.actors.outbound import OutboundStream
from khala.core.counters import NodeCounters
from khala.core.in_flight import InFlight
from khala.core.limits import NodeLimits
from khala_contracts.codec import ReplayComplete
from khala_service.live_limits import take_over
from tests.actors.khala.fake_journal import log_of
from tests.actors.khala.node_under_test import open_node
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.range_source import WindowSource, live_subscription
from tests.topic_log import run_topic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from khala.core.subscription import FrameUnreadableError, Subscription, SubscriptionEnding
    from khala_contracts.topics import TopicName

KIB = 1024
TOPIC, LIVE_TOPIC, LONG_TOPIC = run_topic(1), run_topic(2), run_topic(3)


def _slow() -> SimulatedTransport:
    return SimulatedTransport(buffer_bytes=4 * KIB)


async def test_a_replay_that_its_own_writer_wakes(autojump_clock: MockClock) -> None:
    """A reload makes room while a replay waits behind its own connection's writer: it goes on when that ends."""
    log, live = log_of(TOPIC, 3), log_of(LIVE_TOPIC, 0)
    async with open_node(
        log,
        live,
        log_of(LONG_TOPIC, 2_000, payload=bytes(1_000)),
        limits=NodeLimits(in_flight_max_bytes=50 * KIB),
    ) as node:
        await node.follow(LONG_TOPIC, transport=_slow())
        client = await node.connect(TOPIC, LIVE_TOPIC, transport=_slow())
        client.subscribe(LIVE_TOPIC)
        client.subscribe(TOPIC)
        await node.settle()
        client.take_all(ReplayComplete)
        assert len(node.in_flight) == 1
        await node.commit(live, 5, payload=bytes(1_000))
        assert client.connection.outbound.has_writer
        take_over(node.limits, NodeLimits())
        while client.connection.outbound.has_writer:
            client.read()
            await node.settle()
        assert client.seqs(LIVE_TOPIC) == [1, 2, 3, 4, 5]
        assert client.seqs(TOPIC) == [1, 2, 3]


@attrs.define(eq=False)
class _Owner:
    """A connection that only runs the writer."""

    nursery: trio.Nursery
    subscriptions: dict[TopicName, Subscription] = attrs.field(factory=dict)

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run it."""
        self.nursery.start_soon(task)

    def note_progress(self) -> None:
        """Nobody waits."""

    def complete_replay(self, subscription: Subscription) -> bytes:
        """Is never asked: nothing is replayed."""
        raise AssertionError(subscription)

    def end_unreadable(self, exc: FrameUnreadableError) -> bytes:
        """Is never asked."""
        raise AssertionError from exc

    def finish_subscription(self, subscription: Subscription, ending: SubscriptionEnding) -> None:
        """Is never asked."""
        raise AssertionError(subscription, ending)

    def abort(self) -> None:
        """Is never asked."""
        raise AssertionError

    def fail(self, exc: Exception) -> None:
        """Is never asked."""
        raise AssertionError from exc


async def test_a_cancelled_writer_lets_nobody_past() -> None:
    """A writer that is cancelled before its connection leaves half a frame: no topic may write behind it."""
    limits, transport = NodeLimits(), _slow()
    async with trio.open_nursery() as nursery:
        owner = _Owner(nursery)
        outbound = OutboundStream(
            transport, owner, limits=limits, counters=NodeCounters(), in_flight=InFlight(limits)
        )
        source = WindowSource()
        subscription = live_subscription(source)
        subscription.sink = outbound
        owner.subscriptions[subscription.parsed.name] = subscription
        subscription.settle_direct()
        assert subscription.direct is not None
        source.write([10 * KIB])
        outbound.keep_unsent(subscription, bytes(10 * KIB), transport.try_send(bytes(10 * KIB)), 1)
        await wait_all_tasks_blocked()
        assert subscription.direct is None
        nursery.cancel_scope.cancel()
    assert outbound.waiting_bytes == 6 * KIB
    assert (outbound.direct, subscription.direct) == (None, None)
