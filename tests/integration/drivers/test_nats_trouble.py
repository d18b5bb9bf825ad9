"""What the NATS driver does when its server is killed, absent, stuck, full or unfriendly. Real server."""

from __future__ import annotations

import gc
import json
import signal
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio
from nats.aio.transport import TcpTransport

import fanout_drivers.nats_connection
import fanout_drivers.nats_interest
from fanout_drivers.base import RECORD_ENTRIES_MAX_BYTES, PositionUnknown, RecordCopy, RevocationsHint
from fanout_drivers.delivery_queue import DeliveryQueue
from fanout_drivers.nats import NatsDriver, NatsLimits, open_nats_driver
from fanout_drivers.opening import DriverContext, FanoutConfig
from fanout_drivers.subjects import encode_subject, revocations_subject
from khala.adapters import embedded_nats_config
from khala.adapters.embedded_nats import nats_command
from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from khala_service.config import ConfigRefused
from khala_service.errors import Unavailable
from khala_service.logs import configure_logging
from khala_service.secret import Secret
from tests.contract.driver_suite import MARKER, OTHER_TOPIC, TOPIC, receive_news, wait_healthy
from tests.integration.drivers.rig import PREFIX, TESTER, Broker, login_of, running_driver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fanout_drivers.base import Delivery, FanoutSubscriber
    from khala.adapters.embedded_nats import NatsCommand

pytestmark = pytest.mark.slow

DEADLINE_S = 30.0
EVERYTHING = PositionUnknown(None)


@asynccontextmanager
async def open_broker(data_dir: Path, *, is_running: bool = True) -> AsyncIterator[Broker]:
    """A place for a server, with an event loop for drivers; ends with everything in it ended."""
    with trio.fail_after(DEADLINE_S):
        async with AsyncExitStack() as held:
            await held.enter_async_context(open_asyncio_loop())
            nursery = await held.enter_async_context(trio.open_nursery())
            broker = Broker(data_dir, nursery)
            if is_running:
                await broker.start()
            yield broker
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_connected(
    data_dir: Path, limits: NatsLimits | None = None
) -> AsyncIterator[tuple[Broker, NatsDriver]]:
    """A running server, and a driver that is connected to it."""
    async with open_broker(data_dir) as broker, running_driver(broker.driver(limits=limits)) as driver:
        await wait_healthy(driver)
        yield broker, driver


async def receive_until(subscriber: FanoutSubscriber, wanted: Delivery) -> list[Delivery]:
    """Return what came up to this delivery."""
    got: list[Delivery] = []
    while not got or got[-1] != wanted:
        got.append(await receive_news(subscriber))
    return got


async def wait_unhealthy(driver: NatsDriver) -> None:
    """Return when the driver says that it has no connection."""
    while await driver.check_health():
        await trio.sleep(0.02)


async def test_a_killed_server_is_announced_and_replaced(tmp_path: Path) -> None:
    """SIGKILL during traffic: a notice; publishing never waits; a new server: a notice, and news flow again."""
    async with (
        open_connected(tmp_path) as (broker, driver),
        driver.open_subscriber() as subscriber,
        trio.open_nursery() as traffic,
    ):
        await subscriber.subscribe(TOPIC)
        number = 0

        async def publish_for_ever() -> None:
            nonlocal number
            while True:
                number += 1
                with trio.fail_after(5), suppress(Unavailable):
                    await driver.publish(TOPIC, b"%d" % number)
                await trio.sleep(0.005)

        traffic.start_soon(publish_for_ever)
        await receive_news(subscriber)
        await broker.kill()
        before = await receive_until(subscriber, EVERYTHING)
        assert {type(delivery) for delivery in before[:-1]} <= {RecordCopy}
        await wait_unhealthy(driver)
        failures = driver.counters.publish_failures
        while driver.counters.publish_failures < failures + 20:
            await trio.sleep(0.01)
        await broker.start()
        await receive_until(subscriber, EVERYTHING)
        assert isinstance(await receive_news(subscriber), RecordCopy)
        assert await driver.check_health()
        assert driver.counters.connects == 2
        assert driver.counters.connect_failures >= 1
        traffic.cancel_scope.cancel()


async def test_a_broker_that_comes_and_goes_ends_nothing(tmp_path: Path) -> None:
    """Killed again and again in the middle of large records: nothing of the library reaches the event loop.

    A task that nats-py forgets, or an error that nobody hears, would end the whole process.
    """
    async with open_broker(tmp_path) as broker, AsyncExitStack() as held:
        driver = broker.driver()
        driver.rng = lambda: 0.05
        await held.enter_async_context(running_driver(driver))
        await wait_healthy(driver)
        subscriber = await held.enter_async_context(driver.open_subscriber())
        traffic = await held.enter_async_context(trio.open_nursery())

        async def publish_for_ever() -> None:
            while True:
                with suppress(Unavailable):
                    await driver.publish(TOPIC, bytes(500_000))
                await trio.sleep(0.001)

        async def receive_for_ever() -> None:
            while True:
                await receive_news(subscriber)

        await subscriber.subscribe(TOPIC)
        traffic.start_soon(publish_for_ever)
        traffic.start_soon(receive_for_ever)
        for number in range(12):
            connects, published = driver.counters.connects, driver.counters.published
            while driver.counters.published < published + 10:
                await trio.sleep(0.01)
            if number % 3 == 2:
                broker.freeze()
                await trio.sleep(0.1)
            await broker.kill()
            await broker.start()
            while driver.counters.connects == connects:
                await trio.sleep(0.01)
            gc.collect()
        traffic.cancel_scope.cancel()


async def test_a_server_that_comes_later_is_found(tmp_path: Path) -> None:
    """Without a server opening and subscribing return, publishing refuses; when it comes, all of it works."""
    async with open_broker(tmp_path, is_running=False) as broker:
        password = nats_command(tmp_path, broker.port, roles=[TESTER]).passwords["tester"]
        async with (
            running_driver(broker.driver(password=password)) as driver,
            driver.open_subscriber() as subscriber,
        ):
            await subscriber.subscribe(TOPIC)
            with pytest.raises(Unavailable, match="broker_away"):
                await driver.publish(TOPIC, b"to nobody")
            assert not await driver.check_health()
            assert driver.counters.publish_failures == 1
            while not driver.counters.connect_failures:
                await trio.sleep(0.02)
            await broker.start()
            assert await receive_news(subscriber) == EVERYTHING
            await driver.publish(TOPIC, b"news")
            assert await receive_news(subscriber) == RecordCopy(TOPIC, b"news")
            assert driver.counters.published == 1


async def test_a_frozen_server_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that keeps its sockets but answers nothing: no wait, a notice, and another connection later."""
    monkeypatch.setattr(fanout_drivers.nats_interest, "SIGN_OF_LIFE_S", 0.2)
    monkeypatch.setattr(fanout_drivers.nats_connection, "FLUSH_TIMEOUT_S", 1.0)
    monkeypatch.setattr(fanout_drivers.nats_connection, "CONNECT_TIMEOUT_S", 1.0)
    async with open_connected(tmp_path) as (broker, driver), driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        broker.freeze()
        try:
            with trio.fail_after(DEADLINE_S / 2):
                for _ in range(2_000):
                    with suppress(Unavailable):
                        await driver.publish(TOPIC, bytes(10_000))
            await receive_until(subscriber, EVERYTHING)
            assert not await driver.check_health()
            assert driver.counters.publish_failures > 0
            assert driver.counters.published + driver.counters.publish_failures == 2_000
        finally:
            broker.thaw()
        await receive_until(subscriber, EVERYTHING)
        await driver.publish(TOPIC, b"again")
        await receive_until(subscriber, RecordCopy(TOPIC, b"again"))


async def test_the_socket_of_a_frozen_server_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-py waits for ever to get rid of what the server does not take: we do not, and leak no socket."""
    monkeypatch.setattr(fanout_drivers.nats_interest, "SIGN_OF_LIFE_S", 0.2)
    monkeypatch.setattr(fanout_drivers.nats_connection, "FLUSH_TIMEOUT_S", 1.0)
    monkeypatch.setattr(fanout_drivers.nats_connection, "CONNECT_TIMEOUT_S", 1.0)
    async with open_connected(tmp_path) as (broker, driver):
        assert driver._session is not None
        transport = driver._session._client._transport
        assert isinstance(transport, TcpTransport)
        writer = transport._io_writer
        assert writer is not None
        broker.freeze()
        try:
            for _ in range(1_500):
                with suppress(Unavailable):
                    await driver.publish(TOPIC, bytes(10_000))
            await wait_unhealthy(driver)
            while not driver.counters.connect_failures:
                await trio.sleep(0.02)
            assert writer.transport.is_closing()
        finally:
            broker.thaw()


async def test_a_crash_in_the_reading_task_is_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's reading task ends with whatever is raised in it, and its connection stays: we leave that at once."""
    # Both would find it, later.
    monkeypatch.setattr(fanout_drivers.nats_interest, "SIGN_OF_LIFE_S", 600.0)
    monkeypatch.setattr(fanout_drivers.nats_connection, "PING_INTERVAL_S", 600)
    async with open_connected(tmp_path) as (_, driver), driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        with monkeypatch.context() as broken:

            def crash(queue: DeliveryQueue, copy: RecordCopy) -> None:
                raise RuntimeError(queue, copy)

            broken.setattr(DeliveryQueue, "offer_nowait", crash)
            await driver.publish(TOPIC, b"lost")
            await wait_unhealthy(driver)
        await receive_until(subscriber, EVERYTHING)
        await wait_healthy(driver)
        await driver.publish(TOPIC, b"again")
        await receive_until(subscriber, RecordCopy(TOPIC, b"again"))


async def test_subscribe_returns_when_the_server_has_answered(tmp_path: Path) -> None:
    """While the server cannot have taken the subscription, subscribe waits: other processes publish to it."""
    async with open_connected(tmp_path) as (broker, driver), driver.open_subscriber() as subscriber:
        broker.freeze()
        try:
            with trio.move_on_after(0.3) as scope:
                await subscriber.subscribe(TOPIC)
            assert scope.cancelled_caught
        finally:
            broker.thaw()
        await subscriber.subscribe(TOPIC)
        await driver.publish(TOPIC, b"news")
        await receive_until(subscriber, RecordCopy(TOPIC, b"news"))


async def test_900_messages_too_many_are_announced(tmp_path: Path) -> None:
    """FD-03: a subscriber that holds 100 gets 1,000: the newest 100, and the topic is named as unknown."""
    async with (
        open_connected(tmp_path, NatsLimits(queue_max_records=100)) as (_, driver),
        driver.open_subscriber() as stuck,
        driver.open_subscriber() as witness,
    ):
        await stuck.subscribe(TOPIC)
        await stuck.subscribe(OTHER_TOPIC)
        await witness.subscribe(MARKER)
        for number in range(1_000):
            await driver.publish(TOPIC, b"%d" % number)
        await driver.publish(MARKER, b"end")
        await receive_until(witness, RecordCopy(MARKER, b"end"))
        while driver.counters.dropped < 900:
            await trio.sleep(0.01)
        assert await receive_news(stuck) == PositionUnknown(frozenset({TOPIC}))
        for number in range(900, 1_000):
            assert await receive_news(stuck) == RecordCopy(TOPIC, b"%d" % number)
        assert driver.counters.dropped == 900


def change_config(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Let servers that are started from now on have another configuration."""
    assert old in embedded_nats_config._CONFIG
    monkeypatch.setattr(embedded_nats_config, "_CONFIG", embedded_nats_config._CONFIG.replace(old, new))


async def test_a_server_that_takes_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FD-03: the driver says how much fits; what does not is refused, and nothing after it is harmed."""
    change_config(monkeypatch, "max_payload: 1MB", "max_payload: 64KB")
    async with open_broker(tmp_path) as broker, running_driver(broker.driver()) as driver:
        assert driver.entries_max_bytes == RECORD_ENTRIES_MAX_BYTES
        await wait_healthy(driver)
        async with driver.open_subscriber() as subscriber:
            assert 32 * 1024 < driver.entries_max_bytes < 64 * 1024
            await subscriber.subscribe(TOPIC)
            with pytest.raises(Unavailable, match="broker_payload_too_large"):
                await driver.publish(TOPIC, bytes(64 * 1024 + 1))
            await driver.publish(TOPIC, bytes(64 * 1024))
            assert await receive_news(subscriber) == RecordCopy(TOPIC, bytes(64 * 1024))
            assert driver.counters.publish_failures == 1
            assert driver.counters.connects == 1


async def test_a_forbidden_subject_is_no_health(tmp_path: Path) -> None:
    """What the server forbids would be lost in silence: the driver is not healthy, and tries again later."""
    async with open_broker(tmp_path) as broker, AsyncExitStack() as held:
        runtime = NatsDriver((broker.command.url,), login_of(broker.command, "runtime"), PREFIX)
        driver = await held.enter_async_context(running_driver(runtime))
        await wait_healthy(driver)
        subscriber = await held.enter_async_context(driver.open_subscriber())
        await subscriber.subscribe(TOPIC)
        await wait_unhealthy(driver)
        assert await receive_news(subscriber) == EVERYTHING


async def test_a_refused_login_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A wrong password: attempts with pauses, a reason in the log, no traceback, no secret, no address."""
    configure_logging("test")
    async with (
        open_broker(tmp_path) as broker,
        running_driver(broker.driver(password="not-the-password")) as driver,
    ):
        while driver.counters.connect_failures < 3:
            await trio.sleep(0.02)
        assert not await driver.check_health()
        assert driver.counters.connects == 0
    output = "".join(capfd.readouterr())
    assert "broker_login_refused" in output
    assert "Traceback" not in output
    assert "not-the-password" not in output
    assert str(broker.port) not in output


async def test_nothing_of_nats_goes_further(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """ARC-17: topics and notices reach a node, and no subject; neither does a log line name one."""
    configure_logging("test")
    async with open_connected(tmp_path) as (broker, driver), driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        await driver.publish(TOPIC, b"news")
        deliveries: list[Delivery] = [await receive_news(subscriber)]
        await broker.kill()
        deliveries += await receive_until(subscriber, EVERYTHING)
    assert deliveries == [RecordCopy(TOPIC, b"news"), EVERYTHING]
    log = capfd.readouterr().err
    lines = [json.loads(line) for line in log.splitlines() if "broker_" in line]
    assert {line["event"] for line in lines} >= {"broker_connected", "broker_lost"}
    for word in (PREFIX, TOPIC, ".v1.", "UnexpectedEOF", "nats:", "127.0.0.1"):
        assert word not in log


async def test_messages_that_are_not_ours_are_counted(tmp_path: Path) -> None:
    """A message whose subject is not the subscribed one, or names no topic, reaches nobody."""
    async with open_connected(tmp_path) as (_, driver), driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        subject, other = encode_subject(PREFIX, TOPIC), encode_subject(PREFIX, OTHER_TOPIC)
        driver._routes.take_message(subject, other, b"elsewhere")
        driver._routes.take_message("khalatest.v1.nonsense", "khalatest.v1.nonsense", b"nowhere")
        await driver.publish(TOPIC, b"ours")
        assert await receive_news(subscriber) == RecordCopy(TOPIC, b"ours")
        assert driver.counters.rejected == 2


async def test_what_comes_on_the_subject_of_revocations_is_a_hint_and_no_more(tmp_path: Path) -> None:
    """Whatever somebody writes into it; on another subject it is nothing."""
    async with open_connected(tmp_path) as (broker, driver), driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        subject = revocations_subject(PREFIX)
        driver._routes.take_message(encode_subject(PREFIX, TOPIC), subject, b"")
        assert driver.counters.rejected == 1
        driver._routes.take_message(subject, subject, bytes(100_000))
        with trio.fail_after(DEADLINE_S):
            assert await subscriber.receive() == RevocationsHint()
            await driver.publish(TOPIC, b"news")
            assert await subscriber.receive() == RecordCopy(TOPIC, b"news")
            # After an outage nobody knows what was hinted at meanwhile.
            await broker.kill()
            await broker.start()
            while await subscriber.receive() != RevocationsHint():
                pass


async def test_one_connection_and_one_subscription_serve_every_end(nats_server: NatsCommand) -> None:
    """Three ends on one topic: the broker sends a message once, over one connection."""
    login = login_of(nats_server)
    async with open_asyncio_loop(), running_driver(NatsDriver((nats_server.url,), login, PREFIX)) as driver:
        await wait_healthy(driver)
        async with (
            driver.open_subscriber() as one,
            driver.open_subscriber() as two,
            driver.open_subscriber() as three,
        ):
            for subscriber in (one, two, three):
                await subscriber.subscribe(TOPIC)
            assert driver.counters.connects == 1
            assert driver._session is not None
            assert set(driver._session._subscriptions) == {
                encode_subject(PREFIX, TOPIC),
                revocations_subject(PREFIX),
            }
            await driver.publish(TOPIC, b"news")
            with trio.fail_after(DEADLINE_S):
                for subscriber in (one, two, three):
                    assert await receive_news(subscriber) == RecordCopy(TOPIC, b"news")


async def test_a_server_that_ends_politely(tmp_path: Path) -> None:
    """SIGTERM, as an operator restarts a server: the same notice."""
    async with open_connected(tmp_path) as (broker, driver), driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        server = broker._server
        assert server is not None
        server.process.send_signal(signal.SIGTERM)
        assert await receive_news(subscriber) == EVERYTHING


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"nats_servers": ()}, "nats_servers"),
        ({"nats_servers": ("nats://me:hunter2@127.0.0.1:4222",)}, "nats_servers"),
        ({"nats_servers": ("nats://127.0.0.1",)}, "nats_servers"),
        ({"nats_servers": ("ws://127.0.0.1:4222",)}, "nats_servers"),
        ({"nats_servers": ("nats://127.0.0.1:port",)}, "nats_servers"),
        ({"nats_user": "me"}, "nats_user"),
        ({"nats_password": Secret("hunter2")}, "nats_user"),
    ],
)
async def test_what_cannot_be_right_is_refused(changes: dict[str, object], key: str) -> None:
    """A configuration error names the key, and quotes no password."""
    config = FanoutConfig(driver="nats", **changes)  # type: ignore[arg-type]
    context = DriverContext(config=config, database_dsn=Secret("postgresql://nowhere"), component="node")
    with pytest.raises(ConfigRefused, match=rf"fanout\.{key}") as refused:
        async with open_nats_driver(context):
            raise AssertionError("it was opened")
    assert "hunter2" not in str(refused.value)
