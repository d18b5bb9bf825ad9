"""What every fan-out driver does and what it may do wrong, as ``fanout_drivers/base.py`` states it.

For the author of a driver: subclass ``DriverSuite`` in a test module, say how to open the driver and,
if it is not by a subscriber that does not receive, how to make it lose something. The guarantees that the
driver declares decide what is asserted: one that declares ``may_lose`` must be made to lose here, and must
say so unless it declares that it does not; one that carries no copies must announce instead.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar, assert_never

import pytest
import trio

from fanout_drivers.base import (
    RECORD_ENTRIES_MAX_BYTES,
    PositionUnknown,
    PublishesAtOnce,
    RecordCopy,
    RevocationsHint,
    find_hinter,
)
from khala_service.errors import Unavailable
from tests.topic_log import run_topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from trio.testing import MockClock

    from fanout_drivers.base import Delivery, FanoutDriver, FanoutSubscriber
    from khala_contracts.topics import TopicName

# For drivers with a real broker; a driver in memory never waits.
DEADLINE_S = 20.0
# Nothing more is on its way if nothing came for so long; above what a faulty driver holds back.
QUIET_S = 0.6
POLL_S = 0.02
TOPIC, OTHER_TOPIC = run_topic(1).name, run_topic(2).name
MARKER = run_topic(3).name


class Received:
    """What one subscriber has been told."""

    def __init__(self, marker: bytes) -> None:
        """Nothing yet."""
        self.by_topic: dict[TopicName, list[bytes]] = defaultdict(list)
        self.unknown: list[PositionUnknown] = []
        self.has_marker = False
        self.hints = 0
        self._marker = marker

    def take(self, delivery: Delivery) -> None:
        """Add one delivery."""
        match delivery:
            case PositionUnknown():
                self.unknown.append(delivery)
            case RecordCopy(topic, data):
                self.by_topic[topic].append(data)
                self.has_marker |= (topic, data) == (MARKER, self._marker)
            case RevocationsHint():
                self.hints += 1
            case _:
                assert_never(delivery)

    def concerns(self, topic: TopicName) -> bool:
        """Whether a notice says that messages of this topic may be missing."""
        return any(notice.topics is None or topic in notice.topics for notice in self.unknown)


class DriverSuite:
    """Subclass it; every test opens its own driver.

    Attributes:
        notice_within_s: How long after a loss its notice may come; 0: before whatever was published later.
    """

    notice_within_s: float = 0.0

    @abstractmethod
    def open_driver(self) -> AbstractAsyncContextManager[FanoutDriver]:
        """Open a driver with generous bounds."""

    @abstractmethod
    def open_small_driver(self) -> AbstractAsyncContextManager[FanoutDriver]:
        """Open a driver whose subscribers can hold fewer than 100 messages of 1 KiB."""

    def open_absent_driver(self) -> AbstractAsyncContextManager[FanoutDriver] | None:
        """Open a driver whose broker is away and stays away; None if it has no broker."""
        return None

    async def make_it_lose(
        self, driver: FanoutDriver, subscriber: FanoutSubscriber, sent: list[bytes]
    ) -> None:
        """Publish to TOPIC in such a way that the subscriber loses some of it.

        As it stands: more than a subscriber can hold, while it receives nothing. Override it for a driver
        that loses in another way.
        """
        del subscriber
        async with driver.open_subscriber() as witness:
            await witness.subscribe(TOPIC)
            await self._exchange(driver, witness, _publishing(driver, TOPIC, sent), b"witness")

    @asynccontextmanager
    async def _healthy(
        self, opened: AbstractAsyncContextManager[FanoutDriver]
    ) -> AsyncIterator[FanoutDriver]:
        """Open a driver and wait until it has its connections: entering never does."""
        async with opened as driver:
            await wait_healthy(driver)
            yield driver

    async def _exchange(
        self,
        driver: FanoutDriver,
        subscriber: FanoutSubscriber,
        publish: Callable[[], Awaitable[None]],
        marker: bytes = b"end",
    ) -> Received:
        """Publish, then a marker; return what arrived meanwhile."""
        await subscriber.subscribe(MARKER)
        if not driver.guarantees.carries_copies:
            # A notice does not say what it is about: those of earlier publications come first.
            await _drain(subscriber, Received(marker))
        await publish()
        (received,) = await self._collect(driver, [subscriber], marker)
        return received

    async def _collect(
        self, driver: FanoutDriver, subscribers: list[FanoutSubscriber], marker: bytes
    ) -> list[Received]:
        """Return what each subscriber is told until a marker, or a notice where there are no copies."""
        guarantees = driver.guarantees
        results = [Received(marker) for _ in subscribers]
        is_mute = not (guarantees.carries_copies or guarantees.announces_losses)

        async def collect(subscriber: FanoutSubscriber, received: Received) -> None:
            while not (is_mute or received.has_marker):
                if received.unknown and not guarantees.carries_copies:
                    break
                received.take(await subscriber.receive())

        async def repeat_marker() -> None:
            while True:
                await driver.publish(MARKER, marker)
                # It may be lost like anything else.
                await trio.sleep(QUIET_S)

        with trio.fail_after(DEADLINE_S):
            async with trio.open_nursery() as repeating:
                repeating.start_soon(repeat_marker)
                async with trio.open_nursery() as collecting:
                    for subscriber, received in zip(subscribers, results, strict=True):
                        collecting.start_soon(collect, subscriber, received)
                repeating.cancel_scope.cancel()
            quiet_s = QUIET_S if guarantees.may_reorder or is_mute else self.notice_within_s
            for subscriber, received in zip(subscribers, results, strict=True):
                await _drain(subscriber, received, quiet_s)
        return results

    def _judge(self, driver: FanoutDriver, sent: list[bytes], received: Received, topic: TopicName) -> None:
        """Compare what was sent to one topic with what arrived, as far as the driver's word goes."""
        guarantees = driver.guarantees
        got = received.by_topic[topic]
        if guarantees.may_invent:
            got = [data for data in got if data in set(sent)]
        assert set(got) <= set(sent), "something that nobody published"
        if not guarantees.carries_copies:
            assert got == [], "a copy from a driver that carries none"
        if not guarantees.may_duplicate:
            assert len(got) == len(set(got))
        if not guarantees.may_reorder:
            in_order = [data for data in sent if data in set(got)]
            assert list(dict.fromkeys(got)) == in_order
        if set(got) != set(sent):
            assert guarantees.may_lose, "lost by a driver that says it loses nothing"
            if guarantees.announces_losses:
                assert received.concerns(topic), "lost without a notice"

    # -- delivery ----------------------------------------------------------------------------------

    async def test_it_says_who_it_is(self) -> None:
        """A name for configuration, guarantees, a bound for copies; health, once it is connected."""
        async with self.open_driver() as driver:
            assert driver.name
            assert driver.name == driver.name.lower()
            assert isinstance(driver.guarantees.crosses_processes, bool)
            assert 0 < driver.entries_max_bytes <= RECORD_ENTRIES_MAX_BYTES
            await wait_healthy(driver)

    async def test_messages_arrive_as_they_were_published(self) -> None:
        """Whole, unchanged, on their topic: empty, binary and as large as a record may be."""
        async with self._healthy(self.open_driver()) as driver, driver.open_subscriber() as subscriber:
            sent = [b"", bytes(range(256)), b"\x00" * driver.entries_max_bytes, b"last"]
            await subscriber.subscribe(TOPIC)
            received = await self._exchange(driver, subscriber, _publishing(driver, TOPIC, sent))
            self._judge(driver, sent, received, TOPIC)

    async def test_many_messages_on_two_topics(self) -> None:
        """Per topic, nothing is invented, and order is kept unless the driver says otherwise."""
        sent = [b"%d" % number for number in range(500)]
        async with self._healthy(self.open_driver()) as driver, driver.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)
            await subscriber.subscribe(OTHER_TOPIC)

            async def publish() -> None:
                for data in sent:
                    await driver.publish(TOPIC, data)
                    await driver.publish(OTHER_TOPIC, b"other " + data)

            received = await self._exchange(driver, subscriber, publish)
            self._judge(driver, sent, received, TOPIC)
            self._judge(driver, [b"other " + data for data in sent], received, OTHER_TOPIC)

    async def test_published_at_once_or_in_turn(self) -> None:
        """A driver that takes records in the caller's step keeps its word on order there, too."""
        sent = [b"%d" % number for number in range(200)]
        async with self._healthy(self.open_driver()) as driver, driver.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)

            async def publish() -> None:
                for number, data in enumerate(sent):
                    is_taken = (
                        bool(number % 5)
                        and isinstance(driver, PublishesAtOnce)
                        and driver.publish_nowait(TOPIC, data)
                    )
                    if not is_taken:
                        await driver.publish(TOPIC, data)
                    if number % 7 == 0:
                        await trio.lowlevel.checkpoint()

            received = await self._exchange(driver, subscriber, publish)
            self._judge(driver, sent, received, TOPIC)

    async def test_every_subscriber_gets_every_message(self) -> None:
        """Two nodes that follow one topic both hear of it; one that follows another does not."""
        async with (
            self._healthy(self.open_driver()) as driver,
            driver.open_subscriber() as one,
            driver.open_subscriber() as two,
            driver.open_subscriber() as stranger,
        ):
            for subscriber in (one, two):
                await subscriber.subscribe(TOPIC)
            await stranger.subscribe(OTHER_TOPIC)
            for subscriber in (one, two, stranger):
                await subscriber.subscribe(MARKER)
            await driver.publish(TOPIC, b"news")
            *pair, strange = await self._collect(driver, [one, two, stranger], b"end")
            for received in pair:
                self._judge(driver, [b"news"], received, TOPIC)
            assert TOPIC not in strange.by_topic

    # -- subscriptions -----------------------------------------------------------------------------

    async def test_once_subscribed_nothing_is_missed(self) -> None:
        """What is published after subscribe returned is delivered or announced; again and again."""
        async with self._healthy(self.open_driver()) as driver, driver.open_subscriber() as subscriber:
            for number in range(_rounds(driver, self.notice_within_s)):
                topic = run_topic(100 + number).name
                await subscriber.subscribe(topic)
                await driver.publish(topic, b"first")
                await subscriber.subscribe(MARKER)
                (received,) = await self._collect(driver, [subscriber], b"end %d" % number)
                self._judge(driver, [b"first"], received, topic)

    async def test_subscribing_twice_delivers_once(self) -> None:
        """A second subscribe changes nothing, and one unsubscribe undoes it."""
        async with self._healthy(self.open_driver()) as driver, driver.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)
            await subscriber.subscribe(TOPIC)
            publish = _publishing(driver, TOPIC, [b"once"])
            received = await self._exchange(driver, subscriber, publish)
            self._judge(driver, [b"once"], received, TOPIC)
            await subscriber.unsubscribe(TOPIC)
            received = await self._exchange(driver, subscriber, publish, b"end 2")
            assert received.by_topic[TOPIC] == []

    async def test_after_unsubscribe_nothing_new_arrives(self) -> None:
        """Messages published after unsubscribe returned are not delivered; unsubscribe is idempotent."""
        async with self._healthy(self.open_driver()) as driver, driver.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)
            await subscriber.unsubscribe(TOPIC)
            await subscriber.unsubscribe(TOPIC)
            await subscriber.unsubscribe(OTHER_TOPIC)
            publish = _publishing(driver, TOPIC, [b"too late"])
            received = await self._exchange(driver, subscriber, publish)
            assert received.by_topic[TOPIC] == []

    async def test_subscribing_again_goes_on(self) -> None:
        """A topic that was left may be followed again."""
        async with self._healthy(self.open_driver()) as driver, driver.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)
            await subscriber.unsubscribe(TOPIC)
            await subscriber.subscribe(TOPIC)
            received = await self._exchange(driver, subscriber, _publishing(driver, TOPIC, [b"again"]))
            self._judge(driver, [b"again"], received, TOPIC)

    async def test_one_that_leaves_takes_nothing_from_another(self) -> None:
        """Two ends follow a topic; when one unsubscribes and closes, the other goes on."""
        async with self._healthy(self.open_driver()) as driver, driver.open_subscriber() as stays:
            await stays.subscribe(TOPIC)
            async with driver.open_subscriber() as leaves, driver.open_subscriber() as closes:
                await leaves.subscribe(TOPIC)
                await closes.subscribe(TOPIC)
                await leaves.unsubscribe(TOPIC)
            received = await self._exchange(driver, stays, _publishing(driver, TOPIC, [b"still"]))
            self._judge(driver, [b"still"], received, TOPIC)

    # -- what must never happen ----------------------------------------------------------------------

    async def test_publishing_waits_for_no_subscriber(self) -> None:
        """A subscriber that never receives delays no commit, and costs a bounded amount."""
        async with self._healthy(self.open_small_driver()) as driver, driver.open_subscriber() as stuck:
            await stuck.subscribe(TOPIC)
            with trio.fail_after(DEADLINE_S):
                for _ in range(2_000):
                    await driver.publish(TOPIC, bytes(1_024))

    async def test_without_a_broker_nothing_waits_and_refusals_are_said(self) -> None:
        """The broker is away: subscribing and publishing return; what is not taken is raised, and counted."""
        opened = self.open_absent_driver()
        if opened is None:
            return
        async with opened as driver, driver.open_subscriber() as subscriber:
            counters = driver.counters
            refused = 0
            # A hundredth of a second for each, if it waited, is too much.
            with trio.fail_after(DEADLINE_S):
                await subscriber.subscribe(TOPIC)
                for _ in range(int(DEADLINE_S * 100)):
                    reason = "broker_"
                    try:
                        await driver.publish(TOPIC, b"news")
                    except Unavailable as error:
                        reason = error.reason
                        refused += 1
                    assert reason.startswith("broker_")
                    assert counters.publish_failures == refused, "counted as a failure, but not said"
            assert not await driver.check_health()

    async def test_a_stuck_subscriber_delays_no_other(self) -> None:
        """Messages reach the one that receives, whatever the other does not do."""
        async with (
            self._healthy(self.open_small_driver()) as driver,
            driver.open_subscriber() as stuck,
            driver.open_subscriber() as healthy,
        ):
            await stuck.subscribe(TOPIC)
            await healthy.subscribe(TOPIC)
            for number in range(_rounds(driver, self.notice_within_s)):
                sent = [b"%d %d" % (number, part) + bytes(1_024) for part in range(20)]
                publish = _publishing(driver, TOPIC, sent)
                received = await self._exchange(driver, healthy, publish, b"end %d" % number)
                self._judge(driver, sent, received, TOPIC)

    async def test_a_loss_is_announced(self) -> None:
        """A driver that may lose is made to, and says PositionUnknown unless it declared that it will not."""
        sent = [b"%d" % number + bytes(1_024) for number in range(1_000)]
        async with self._healthy(self.open_small_driver()) as driver, driver.open_subscriber() as subscriber:
            if not driver.guarantees.may_lose:
                return
            await subscriber.subscribe(TOPIC)
            await subscriber.subscribe(MARKER)
            await self.make_it_lose(driver, subscriber, sent)
            (received,) = await self._collect(driver, [subscriber], b"end")
            assert not set(sent) <= set(received.by_topic[TOPIC]), "this test must make the driver lose"
            self._judge(driver, sent, received, TOPIC)
            # It goes on after the loss.
            publish = _publishing(driver, TOPIC, [b"after"])
            received = await self._exchange(driver, subscriber, publish, b"end 2")
            got = [data for data in received.by_topic[TOPIC] if data not in sent]
            received.by_topic[TOPIC] = got
            self._judge(driver, [b"after"], received, TOPIC)

    # -- hints of revocations ------------------------------------------------------------------------

    async def test_a_hint_of_revocations_reaches_every_subscriber(self) -> None:
        """Each node hears of it, whatever it follows; only a driver that loses in silence may need another."""
        async with (
            self._healthy(self.open_driver()) as driver,
            driver.open_subscriber() as one,
            driver.open_subscriber() as two,
        ):
            hinter = find_hinter(driver)
            if hinter is None or not _is_heard(driver):
                return
            await one.subscribe(TOPIC)
            heard = [Received(b""), Received(b"")]
            for subscriber in (one, two):
                # That of the connection, and whatever else its making brought.
                await _drain(subscriber, Received(b""))
            given = 0
            with trio.fail_after(DEADLINE_S):
                while not all(received.hints for received in heard):
                    await hinter.hint_revocations()
                    given += 1
                    for subscriber, received in zip((one, two), heard, strict=True):
                        await _drain(subscriber, received)
            assert given == 1 or not driver.guarantees.announces_losses
            assert all(received.hints <= given for received in heard)
            assert not any(received.by_topic for received in heard)

    async def test_hints_of_revocations_that_wait_are_few(self) -> None:
        """A thousand, to a node that does not receive: none waits for it, and they are one when it does."""
        async with self._healthy(self.open_driver()) as driver, driver.open_subscriber() as stuck:
            hinter = find_hinter(driver)
            if hinter is None:
                return
            await _drain(stuck, Received(b""))
            with trio.fail_after(DEADLINE_S):
                for _ in range(1_000):
                    await hinter.hint_revocations()
            # Until the broker has brought the last of them.
            await trio.sleep(QUIET_S)
            received = Received(b"")
            await _drain(stuck, received)
            assert received.hints <= 1

    async def test_without_a_broker_a_hint_is_refused_or_kept(self) -> None:
        """The broker is away: hinting returns, or raises why not; it never waits."""
        opened = self.open_absent_driver()
        if opened is None:
            return
        async with opened as driver:
            hinter = find_hinter(driver)
            assert hinter is not None
            with trio.fail_after(DEADLINE_S):
                for _ in range(int(DEADLINE_S * 100)):
                    reason = "broker_"
                    try:
                        await hinter.hint_revocations()
                    except Unavailable as error:
                        reason = error.reason
                    assert reason.startswith("broker_")

    # -- waiting and leaving -------------------------------------------------------------------------

    async def test_receive_waits(self) -> None:
        """Without a message receive waits, and is woken by the next one."""
        async with self._healthy(self.open_driver()) as driver, driver.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)
            await _drain(subscriber, Received(b""))
            received: list[Delivery] = []

            async def receive() -> None:
                received.append(await receive_news(subscriber))
                waking.cancel_scope.cancel()

            with trio.move_on_after(DEADLINE_S):
                async with trio.open_nursery() as waking:
                    waking.start_soon(receive)
                    await trio.testing.wait_all_tasks_blocked()
                    assert received == []
                    while _is_heard(driver):
                        await driver.publish(TOPIC, b"wake up")
                        await trio.sleep(QUIET_S)
                    waking.cancel_scope.cancel()
            if _is_exact(driver):
                assert received == [RecordCopy(TOPIC, b"wake up")]
            else:
                assert len(received) == _is_heard(driver)

    async def test_a_cancelled_receive_consumes_nothing(self) -> None:
        """Cancelling while it waits, or before it looks, loses no message."""
        async with self._healthy(self.open_driver()) as driver, driver.open_subscriber() as subscriber:
            await subscriber.subscribe(TOPIC)
            for is_published_before in (False, True):
                await _drain(subscriber, Received(b""))
                if is_published_before:
                    await driver.publish(TOPIC, b"kept")
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await subscriber.receive()
                assert scope.cancelled_caught
                if not is_published_before:
                    await driver.publish(TOPIC, b"kept")
                if _is_exact(driver):
                    with trio.fail_after(DEADLINE_S):
                        assert await subscriber.receive() == RecordCopy(TOPIC, b"kept")

    async def test_leaving_forgets(self) -> None:
        """After the block the end is closed: receive raises, publishing goes on, a new end starts empty."""
        async with self._healthy(self.open_driver()) as driver:
            async with driver.open_subscriber() as gone:
                await gone.subscribe(TOPIC)
                await driver.publish(TOPIC, b"never received")
            with pytest.raises(trio.ClosedResourceError):
                await gone.receive()
            await driver.publish(TOPIC, b"to nobody")
            async with driver.open_subscriber() as new:
                publish = _publishing(driver, TOPIC, [b"not subscribed"])
                received = await self._exchange(driver, new, publish)
                assert received.by_topic[TOPIC] == []

    async def test_leaving_wakes_the_receiver(self) -> None:
        """A task that waits in receive learns of the end at once."""
        async with self._healthy(self.open_driver()) as driver:
            with trio.fail_after(DEADLINE_S):
                async with trio.open_nursery() as nursery, driver.open_subscriber() as subscriber:

                    async def receive() -> None:
                        with pytest.raises(trio.ClosedResourceError):
                            while True:
                                await subscriber.receive()

                    nursery.start_soon(receive)
                    await trio.testing.wait_all_tasks_blocked()

    async def test_an_error_of_the_block_comes_out_as_it_is(self) -> None:
        """Whatever a driver runs in the background, its user's exceptions are not wrapped."""
        with pytest.raises(ValueError, match="ours"):
            async with self.open_driver() as driver, driver.open_subscriber():
                raise ValueError("ours")


S = TypeVar("S", bound=DriverSuite)


def in_virtual_time(suite: type[S]) -> type[S]:
    """Give each test of a suite a clock that jumps over every wait; for drivers that do no I/O."""
    for name in dir(suite):
        if name.startswith("test_"):
            setattr(suite, name, _with_clock(getattr(suite, name)))
    return suite


def _with_clock(test: Callable[[S], Awaitable[None]]) -> Callable[[S, MockClock], Awaitable[None]]:
    async def run(self: S, autojump_clock: MockClock) -> None:
        del autojump_clock
        await test(self)

    run.__doc__ = test.__doc__
    return run


async def wait_healthy(driver: FanoutDriver) -> None:
    """Return when the driver says that it is healthy."""
    with trio.fail_after(DEADLINE_S):
        while not await driver.check_health():
            await trio.sleep(POLL_S)


def _publishing(driver: FanoutDriver, topic: TopicName, sent: list[bytes]) -> Callable[[], Awaitable[None]]:
    async def publish() -> None:
        for data in sent:
            await driver.publish(topic, data)

    return publish


async def receive_news(subscriber: FanoutSubscriber) -> RecordCopy | PositionUnknown:
    """Return the next delivery that is no hint of revocations, of which each new connection brings one."""
    while isinstance(delivery := await subscriber.receive(), RevocationsHint):
        pass
    return delivery


async def _drain(subscriber: FanoutSubscriber, received: Received, quiet_s: float = QUIET_S) -> None:
    """Receive until nothing comes for a while."""
    is_quiet = not quiet_s
    while not is_quiet:
        with trio.move_on_after(quiet_s) as scope:
            received.take(await subscriber.receive())
        is_quiet = scope.cancelled_caught


def _is_exact(driver: FanoutDriver) -> bool:
    """Whether a single message, with nothing else going on, arrives and comes alone."""
    guarantees = driver.guarantees
    return guarantees.carries_copies and not (
        guarantees.may_duplicate
        or guarantees.may_reorder
        or guarantees.may_invent
        or not guarantees.announces_losses
    )


def _is_heard(driver: FanoutDriver) -> bool:
    """Whether a publication, repeated, wakes a subscriber."""
    return driver.guarantees.carries_copies or driver.guarantees.announces_losses


def _rounds(driver: FanoutDriver, quiet_s: float) -> int:
    """How often to repeat what should go wrong never; each round with a quiet time is slow."""
    guarantees = driver.guarantees
    if quiet_s:
        return 4
    return 20 if guarantees.carries_copies and not guarantees.may_reorder else 3
