"""FD-04: a broker that refuses for ten minutes under a stream of commits, in virtual time."""

from __future__ import annotations

import json
import random
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import attrs
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

import fanout_drivers.nats
from fanout_drivers.background import open_background
from fanout_drivers.backoff import LONG_MIN_S, PATIENCE_S, SHORT_CAP_S
from fanout_drivers.base import DriverCounters
from fanout_drivers.beside import CLUSTER_HEALING_S, Healing, HintsBesideBroker
from fanout_drivers.nats import NatsDriver
from fanout_drivers.nats_login import NatsLogin
from khala_contracts.topics import Lineage
from khala_service.errors import Unavailable
from khala_service.logs import configure_logging
from runtime.actors.relay import RETRY_MAX_S, Relay
from tests.actors.runtime.rig import LINEAGE, SIGNER, CountedMetrics
from tests.actors.runtime.test_relay import CLOCK, commits
from tests.unit.fanout_drivers.test_beside import FakeDoorbell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest
    from trio.testing import MockClock

    from fanout_drivers.nats_connection import NatsHandler

AWAY_S = 600.0
COMMIT_EVERY_S = 3.0
TOPICS = 20


@attrs.define(eq=False)
class FakeSession:
    """A connection that takes everything, until it is lost."""

    lost: trio.Event = attrs.field(factory=trio.Event)
    payload_max_bytes: int = 1 << 20
    is_clustered: bool = False
    reason: str = "broker_connection_lost"
    taken: int = 0

    async def settle(self, subjects: object, is_wanted: object) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_lost(self) -> None:
        await self.lost.wait()

    async def publish_all(self, messages: list[tuple[str, bytes]]) -> None:
        await trio.lowlevel.checkpoint()
        self.taken += len(messages)

    def publish_nowait(self, subject: str, data: bytes) -> bool:
        self.taken += 1
        return True


@attrs.define(eq=False)
class Broker:
    """There or not; notes each attempt."""

    session: FakeSession | None = attrs.field(factory=FakeSession)
    attempts: list[float] = attrs.field(factory=list)

    @asynccontextmanager
    async def open_session(
        self, server: str, login: NatsLogin, handler: NatsHandler
    ) -> AsyncIterator[FakeSession]:
        await trio.lowlevel.checkpoint()
        self.attempts.append(trio.current_time())
        if self.session is None:
            raise Unavailable("broker_unreachable")
        yield self.session


async def test_ten_minutes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Attempts of both owners are rare and said, nothing grows, each commit is hinted at beside; then all is well."""
    del autojump_clock
    configure_logging("test")
    broker, doorbell, counters, metrics = Broker(), FakeDoorbell(), DriverCounters(), CountedMetrics()
    monkeypatch.setattr(fanout_drivers.nats, "open_nats_session", broker.open_session)
    beside = HintsBesideBroker(doorbell, counters, Healing(trio.current_time()))  # type: ignore[arg-type]
    driver = NatsDriver(
        ("nats://a:1", "nats://b:1"), NatsLogin("test"), "test", rng=random.Random(4).random,
        counters=counters, beside=beside,
    )  # fmt: skip
    relay = Relay(driver, SIGNER, clock=CLOCK, metrics=metrics, bytes_max=1 << 20)
    first = broker.session
    assert first is not None
    async with open_background(driver.serve), trio.open_nursery() as nursery:
        await nursery.start(relay.serve)
        await trio.sleep(60)
        relay.offer(commits(1, 1), lineage=Lineage(LINEAGE))
        assert (first.taken, doorbell.rings) == (1, 0)
        broker.session = None
        first.lost.set()
        await wait_all_tasks_blocked()
        lost_at, begun = trio.current_time(), len(broker.attempts)
        capfd.readouterr()
        for number in range(int(AWAY_S / COMMIT_EVERY_S)):
            relay.offer(commits(number % TOPICS, 1), lineage=Lineage(LINEAGE))
            assert relay.waiting_topics <= TOPICS
            await trio.sleep(COMMIT_EVERY_S)
            assert (relay.waiting_bytes, len(driver._outbox)) == (0, 0)
        # Who connects: doubling up to 4 s, and once in 30 s after two minutes.
        attempts = broker.attempts[begun:]
        waits = [after - before for before, after in pairwise(attempts)]
        early = [wait for at, wait in zip(attempts, waits, strict=False) if at < lost_at + PATIENCE_S]
        late = [wait for at, wait in zip(attempts, waits, strict=False) if at >= lost_at + PATIENCE_S]
        assert max(early) <= SHORT_CAP_S
        assert len(late) > 5
        assert LONG_MIN_S <= min(late) <= max(late) <= 2 * LONG_MIN_S
        assert len(set(late)) == len(late), "no jitter"
        # Who publishes: doubling from 0.1 s, and once in 30 s.
        assert len(metrics.publish_failures) <= 10 + AWAY_S / RETRY_MAX_S
        assert counters.publish_failures == len(metrics.publish_failures)
        # The log says the same of both.
        lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
        said = {
            name: [line for line in lines if line["event"] == name] for name in ("broker_away", "driver_away")
        }
        for event, count in (("broker_away", len(attempts)), ("driver_away", len(metrics.publish_failures))):
            told = sum(1 + int(line.get("suppressed", 0)) for line in said[event])
            assert 0 < told <= count + 1
        # Every commit was told by the second way, at once.
        assert doorbell.rings == AWAY_S / COMMIT_EVERY_S
        assert counters.trouble == "broker_unreachable"
        broker.session = FakeSession()
        with trio.fail_after(2 * LONG_MIN_S + 1):
            while not await driver.check_health():
                await trio.sleep(0.1)
        await trio.sleep(1)
        # A hint for each topic, at once; then copies, and for a while rings beside them.
        assert (relay.waiting_topics, broker.session.taken) == (0, TOPICS)
        rings = doorbell.rings
        relay.offer(commits(1, 1), lineage=Lineage(LINEAGE))
        assert (doorbell.rings, broker.session.taken) == (rings + 1, TOPICS + 1)
        await trio.sleep(CLUSTER_HEALING_S)
        relay.offer(commits(1, 1), lineage=Lineage(LINEAGE))
        assert (doorbell.rings, broker.session.taken) == (rings + 1, TOPICS + 2)
        nursery.cancel_scope.cancel()
