"""What every fan-out driver does and what it may do wrong, as ``fanout_drivers/base.py`` states it.

For the author of a driver: subclass ``DriverSuite`` in a test module, say how to open the driver and
how to make it lose something, and run it. The guarantees that the driver declares decide what is asserted; a
driver that declares ``may_lose`` must be made to lose here, and must say so.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
import trio

from fanout_drivers.base import RECORD_ENTRIES_MAX_BYTES, PositionUnknown, RecordCopy
from tests.topic_log import run_topic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from fanout_drivers.base import FanoutDriver, FanoutSubscriber
    from khala_contracts.topics import TopicName

# For drivers with a real broker; a driver in memory never waits.
DEADLINE_S = 20.0
TOPIC, OTHER_TOPIC = run_topic(1).name, run_topic(2).name
MARKER = run_topic(3).name


class Received:
    """What one subscriber has been told, until a marker message that was published last."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.by_topic: dict[TopicName, list[bytes]] = defaultdict(list)
        self.unknown: list[PositionUnknown] = []

    def concerns(self, topic: TopicName) -> bool:
        """Whether a notice says that messages of this topic may be missing."""
        return any(notice.topics is None or topic in notice.topics for notice in self.unknown)


async def receive_until(subscriber: FanoutSubscriber, marker: bytes) -> Received:
    """Receive everything up to the marker of this name."""
    received = Received()
    while True:
        delivery = await subscriber.receive()
        if isinstance(delivery, PositionUnknown):
            received.unknown.append(delivery)
        elif delivery == RecordCopy(MARKER, marker):
            return received
        else:
            received.by_topic[delivery.topic].append(delivery.data)


class DriverSuite:
    """Subclass it; every test opens its own driver."""

    @abstractmethod
    def open_driver(self) -> AbstractAsyncContextManager[FanoutDriver]:
        """Open a driver with generous bounds."""

    @abstractmethod
    def open_small_driver(self) -> AbstractAsyncContextManager[FanoutDriver]:
        """Open a driver whose subscribers can hold fewer than 100 messages of 1 KiB."""

    async def _exchange(
        self,
        driver: FanoutDriver,
        subscriber: FanoutSubscriber,
        publish: Callable[[], Awaitable[None]],
        marker: bytes = b"end",
    ) -> Received:
        """Publish, then a marker; return what arrived before it."""
        await subscriber.subscribe(MARKER)
        await publish()
        await driver.publish(MARKER, marker)
        with trio.fail_after(DEADLINE_S):
            return await receive_until(subscriber, marker)

    def _judge(self, driver: FanoutDriver, sent: list[bytes], received: Received, topic: TopicName) -> None:
        """Compare what was sent to one topic with what arrived, as far as the driver's word goes."""
        got = received.by_topic[topic]
        assert set(got) <= set(sent), "something that nobody published"
        if not driver.guarantees.may_duplicate:
            assert len(got) == len(set(got))
        if not driver.guarantees.may_reorder:
            assert got == [data for data in sent if data in set(got)]
        if set(got) != set(sent):
            assert driver.guarantees.may_lose, "lost by a driver that says it loses nothing"
            assert received.concerns(topic), "lost without a notice"

    # -- delivery ----------------------------------------------------------------------------------

    async def test_it_says_who_it_is(self) -> None:
        """A name for configuration, health, and guarantees."""
        async with self.open_driver() as driver:
            assert driver.name
            assert driver.name == driver.name.lower()
            assert await driver.check_health()
            assert isinstance(driver.guarantees.crosses_processes, bool)

    async def test_messages_arrive_as_they_were_published(self) -> None:
        """Whole, unchanged, on their topic: empty, binary and as large as a record may be."""
        sent = [b"", bytes(range(256)), b"\x00" * RECORD_ENTRIES_MAX_BYTES, b"last"]
        async with self.open_driver() as driver, driver.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)

            async def publish() -> None:
                for data in sent:
                    await driver.publish(TOPIC, data)

            received = await self._exchange(driver, subscriber, publish)
            self._judge(driver, sent, received, TOPIC)

    async def test_many_messages_on_two_topics(self) -> None:
        """Per topic, nothing is invented, and order is kept unless the driver says otherwise."""
        sent = [b"%d" % number for number in range(500)]
        async with self.open_driver() as driver, driver.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)
            await subscriber.subscribe(OTHER_TOPIC)

            async def publish() -> None:
                for data in sent:
                    await driver.publish(TOPIC, data)
                    await driver.publish(OTHER_TOPIC, b"other " + data)

            received = await self._exchange(driver, subscriber, publish)
            self._judge(driver, sent, received, TOPIC)
            self._judge(driver, [b"other " + data for data in sent], received, OTHER_TOPIC)

    async def test_every_subscriber_gets_every_message(self) -> None:
        """Two nodes that follow one topic both hear of it; one that follows another does not."""
        async with (
            self.open_driver() as driver,
            driver.open_subscriber() as one,
            driver.open_subscriber() as two,
            driver.open_subscriber() as stranger,
        ):
            for subscriber in (one, two):
                await subscriber.subscribe(TOPIC)
                await subscriber.subscribe(MARKER)
            await stranger.subscribe(OTHER_TOPIC)
            await stranger.subscribe(MARKER)
            await driver.publish(TOPIC, b"news")
            await driver.publish(MARKER, b"end")
            with trio.fail_after(DEADLINE_S):
                for subscriber in (one, two):
                    self._judge(driver, [b"news"], await receive_until(subscriber, b"end"), TOPIC)
                received = await receive_until(stranger, b"end")
            assert TOPIC not in received.by_topic

    # -- subscriptions -----------------------------------------------------------------------------

    async def test_once_subscribed_nothing_is_missed(self) -> None:
        """What is published after subscribe returned is delivered or announced; again and again."""
        async with self.open_driver() as driver, driver.open_subscriber() as subscriber:
            for number in range(20):
                topic = run_topic(100 + number).name
                await subscriber.subscribe(topic)
                await driver.publish(topic, b"first")
                received = await self._exchange(
                    driver, subscriber, trio.lowlevel.checkpoint, b"end %d" % number
                )
                self._judge(driver, [b"first"], received, topic)

    async def test_subscribing_twice_delivers_once(self) -> None:
        """A second subscribe changes nothing, and one unsubscribe undoes it."""
        async with self.open_driver() as driver, driver.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)
            await subscriber.subscribe(TOPIC)

            async def publish() -> None:
                await driver.publish(TOPIC, b"once")

            received = await self._exchange(driver, subscriber, publish)
            self._judge(driver, [b"once"], received, TOPIC)
            await subscriber.unsubscribe(TOPIC)
            received = await self._exchange(driver, subscriber, publish, b"end 2")
            assert received.by_topic[TOPIC] == []

    async def test_after_unsubscribe_nothing_new_arrives(self) -> None:
        """Messages published after unsubscribe returned are not delivered; unsubscribe is idempotent."""
        async with self.open_driver() as driver, driver.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)
            await subscriber.unsubscribe(TOPIC)
            await subscriber.unsubscribe(TOPIC)
            await subscriber.unsubscribe(OTHER_TOPIC)

            async def publish() -> None:
                await driver.publish(TOPIC, b"too late")

            received = await self._exchange(driver, subscriber, publish)
            assert received.by_topic[TOPIC] == []

    async def test_subscribing_again_goes_on(self) -> None:
        """A topic that was left may be followed again."""
        async with self.open_driver() as driver, driver.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)
            await subscriber.unsubscribe(TOPIC)
            await subscriber.subscribe(TOPIC)

            async def publish() -> None:
                await driver.publish(TOPIC, b"again")

            received = await self._exchange(driver, subscriber, publish)
            self._judge(driver, [b"again"], received, TOPIC)

    # -- what must never happen ----------------------------------------------------------------------

    async def test_publishing_waits_for_no_subscriber(self) -> None:
        """A subscriber that never receives delays no commit, and costs a bounded amount."""
        async with self.open_small_driver() as driver, driver.open_subscriber() as stuck:
            await stuck.subscribe(TOPIC)
            with trio.fail_after(DEADLINE_S):
                for _ in range(2_000):
                    await driver.publish(TOPIC, bytes(1_024))

    async def test_a_stuck_subscriber_delays_no_other(self) -> None:
        """Messages reach the one that receives, whatever the other does not do."""
        async with (
            self.open_small_driver() as driver,
            driver.open_subscriber() as stuck,
            driver.open_subscriber() as healthy,
        ):
            await stuck.subscribe(TOPIC)
            await healthy.subscribe(TOPIC)
            for number in range(20):
                sent = [b"%d %d" % (number, part) + bytes(1_024) for part in range(20)]

                async def publish(sent: list[bytes] = sent) -> None:
                    for data in sent:
                        await driver.publish(TOPIC, data)

                received = await self._exchange(driver, healthy, publish, b"end %d" % number)
                self._judge(driver, sent, received, TOPIC)

    async def test_a_loss_is_announced(self) -> None:
        """A driver that may lose is made to, and says PositionUnknown for the topics concerned."""
        sent = [b"%d" % number + bytes(1_024) for number in range(1_000)]
        async with self.open_small_driver() as driver, driver.open_subscriber() as subscriber:
            if not driver.guarantees.may_lose:
                pytest.skip("the driver says that it loses nothing")
            await subscriber.subscribe(TOPIC)

            async def publish() -> None:
                for data in sent:
                    await driver.publish(TOPIC, data)

            received = await self._exchange(driver, subscriber, publish)
            assert len(received.by_topic[TOPIC]) < len(sent), "this test must make the driver lose"
            assert received.concerns(TOPIC)
            self._judge(driver, sent, received, TOPIC)
            # After the notice it works as before.
            received = await self._exchange(driver, subscriber, publish=_nothing, marker=b"end 2")
            assert received.unknown == []

    # -- waiting and leaving -------------------------------------------------------------------------

    async def test_receive_waits(self) -> None:
        """Without a message receive waits, and is woken by the next one."""
        async with self.open_driver() as driver, driver.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)
            received: list[object] = []

            async def receive() -> None:
                received.append(await subscriber.receive())

            with trio.fail_after(DEADLINE_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(receive)
                    await trio.testing.wait_all_tasks_blocked()
                    assert received == []
                    await driver.publish(TOPIC, b"wake up")
            assert received == [RecordCopy(TOPIC, b"wake up")]

    async def test_a_cancelled_receive_consumes_nothing(self) -> None:
        """Cancelling while it waits, or before it looks, loses no message."""
        async with self.open_driver() as driver, driver.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)
            for is_published_before in (False, True):
                if is_published_before:
                    await driver.publish(TOPIC, b"kept")
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await subscriber.receive()
                assert scope.cancelled_caught
                if not is_published_before:
                    await driver.publish(TOPIC, b"kept")
                with trio.fail_after(DEADLINE_S):
                    assert await subscriber.receive() == RecordCopy(TOPIC, b"kept")

    async def test_leaving_forgets(self) -> None:
        """After the block the end is closed: receive raises, publishing goes on, a new end starts empty."""
        async with self.open_driver() as driver:
            async with driver.open_subscriber() as gone:
                await gone.subscribe(TOPIC)
                await driver.publish(TOPIC, b"never received")
            with pytest.raises(trio.ClosedResourceError):
                await gone.receive()
            await driver.publish(TOPIC, b"to nobody")
            async with driver.open_subscriber() as new:

                async def publish() -> None:
                    await driver.publish(TOPIC, b"not subscribed")

                received = await self._exchange(driver, new, publish)
                assert received.by_topic[TOPIC] == []

    async def test_leaving_wakes_the_receiver(self) -> None:
        """A task that waits in receive learns of the end at once."""
        async with self.open_driver() as driver:
            with trio.fail_after(DEADLINE_S):
                async with trio.open_nursery() as nursery, driver.open_subscriber() as subscriber:

                    async def receive() -> None:
                        with pytest.raises(trio.ClosedResourceError):
                            await subscriber.receive()

                    nursery.start_soon(receive)
                    await trio.testing.wait_all_tasks_blocked()


async def _nothing() -> None:
    await trio.lowlevel.checkpoint()
