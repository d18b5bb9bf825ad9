"""What the NATS driver does not take, it says at once and counts; real servers: tests/integration/drivers."""

from __future__ import annotations

import attrs
import pytest
import trio

from fanout_drivers.nats import NatsDriver, NatsLimits
from fanout_drivers.nats_login import NatsLogin
from khala_service.errors import Unavailable
from tests.contract.driver_suite import TOPIC


@attrs.define(eq=False)
class FakeSession:
    """As much of a connection to NATS as publishing looks at."""

    payload_max_bytes: int = 100


def driver_with(*, is_connected: bool) -> NatsDriver:
    """Return a driver with room for two records of 10 bytes, which nobody sends."""
    driver = NatsDriver(
        ("nats://127.0.0.1:1",),
        NatsLogin("khala-test"),
        "test",
        NatsLimits(outbox_max_records=2, outbox_max_bytes=120),
    )
    if is_connected:
        driver._session = FakeSession()  # type: ignore[assignment]
    return driver


@pytest.mark.parametrize(
    ("is_connected", "sizes", "reason"),
    [
        (False, [1], "broker_away"),
        (True, [101], "broker_payload_too_large"),
        (True, [1, 1, 1], "broker_outbox_full"),
        (True, [100, 21], "broker_outbox_full"),
    ],
)
async def test_the_last_one_is_refused(*, is_connected: bool, sizes: list[int], reason: str) -> None:
    """No connection, too large, no room: the reason is said, and what was taken before stays taken."""
    driver = driver_with(is_connected=is_connected)
    *taken, refused = sizes
    for size in taken:
        await driver.publish(TOPIC, bytes(size))
    assert driver.counters.publish_failures == 0
    with pytest.raises(Unavailable) as caught:
        await driver.publish(TOPIC, bytes(refused))
    assert caught.value.reason == reason
    assert driver.counters.publish_failures == 1
    assert len(driver._outbox) == len(taken)


async def test_at_the_edge_it_is_taken() -> None:
    """As large as the server takes, as many bytes as there is room for."""
    driver = driver_with(is_connected=True)
    for size in (100, 20):
        await driver.publish(TOPIC, bytes(size))
    assert len(driver._outbox) == 2
    assert driver.counters.publish_failures == 0


async def test_a_cancelled_publish_takes_nothing() -> None:
    """Who does not wait for it has not handed it over, and nothing failed."""
    driver = driver_with(is_connected=True)
    with trio.CancelScope() as scope:
        scope.cancel()
        await driver.publish(TOPIC, b"never")
    assert len(driver._outbox) == driver.counters.publish_failures == 0
