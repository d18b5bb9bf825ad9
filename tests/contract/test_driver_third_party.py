"""A driver of somebody else: a distribution with an entry point, chosen by configuration, in the same suite."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from fanout_drivers.opening import DriverContext, FanoutConfig, open_driver
from khala_service.config import ConfigRefused
from khala_service.secret import Secret
from tests.contract.driver_suite import DriverSuite, in_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fanout_drivers.base import FanoutDriver

MODULE = '''
"""A driver that was written with nothing but fanout_drivers.base at hand: it keeps the newest, not the last."""

from contextlib import asynccontextmanager

import trio

from fanout_drivers.base import DriverCounters, DriverGuarantees, PositionUnknown, RecordCopy


class End:
    def __init__(self, room):
        self.room, self.topics, self.waiting, self.missed = room, set(), [], set()
        self.is_closed, self.changed = False, trio.Event()

    async def subscribe(self, topic):
        self.topics.add(topic)
        await trio.lowlevel.checkpoint()

    async def unsubscribe(self, topic):
        self.topics.discard(topic)
        await trio.lowlevel.checkpoint()

    def offer(self, copy):
        if copy.topic in self.topics:
            if len(self.waiting) < self.room:
                self.waiting.append(copy)
            else:
                self.missed.add(copy.topic)
            self.changed.set()

    async def receive(self):
        await trio.lowlevel.checkpoint_if_cancelled()
        while not (self.waiting or self.missed):
            if self.is_closed:
                raise trio.ClosedResourceError
            self.changed = trio.Event()
            await self.changed.wait()
        if self.waiting:
            return self.waiting.pop(0)
        missed, self.missed = self.missed, set()
        return PositionUnknown(frozenset(missed))


class AcmeDriver:
    name = "acme"
    guarantees = DriverGuarantees(
        may_lose=True, may_duplicate=False, may_reorder=False, crosses_processes=False
    )
    entries_max_bytes = 100_000

    def __init__(self, room):
        self.room, self.ends, self.counters = room, [], DriverCounters()

    async def publish(self, topic, data):
        self.counters.published += 1
        for end in self.ends:
            end.offer(RecordCopy(topic, data))
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def open_subscriber(self):
        end = End(self.room)
        self.ends.append(end)
        try:
            yield end
        finally:
            self.ends.remove(end)
            end.is_closed, end.waiting, end.missed = True, [], set()
            end.changed.set()

    async def check_health(self):
        await trio.lowlevel.checkpoint()
        return True


@asynccontextmanager
async def open_acme(context):
    yield AcmeDriver(int(context.config.options.get("room", "10000")))
'''
METADATA = "Metadata-Version: 2.1\nName: acme-fanout\nVersion: 1.0\n"
ENTRY_POINTS = "[khala.fanout_drivers]\nacme = acme_fanout:open_acme\n"


@pytest.fixture
def acme_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution on the path, as an installer leaves it."""
    (tmp_path / "acme_fanout.py").write_text(MODULE, encoding="utf-8")
    info = tmp_path / "acme_fanout-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA, encoding="utf-8")
    (info / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("acme_fanout", None)


def context(**options: str) -> DriverContext:
    """Return a configuration that names the driver."""
    return DriverContext(
        config=FanoutConfig(driver="acme", options=options),
        database_dsn=Secret("postgresql://nowhere"),
        component="node",
    )


@pytest.mark.usefixtures("acme_installed")
@in_virtual_time
class TestThirdPartyDriver(DriverSuite):
    """FD-01: added by an entry point, it passes unmodified."""

    @asynccontextmanager
    async def open_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open it by its name."""
        async with open_driver(context(), is_one_process=True) as driver:
            yield driver

    @asynccontextmanager
    async def open_small_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open it with room for 50 messages, by its own option."""
        async with open_driver(context(room="50"), is_one_process=True) as driver:
            yield driver


@pytest.mark.usefixtures("acme_installed")
async def test_it_is_refused_where_it_cannot_go() -> None:
    """ARC-08: a driver that cannot leave its process is a configuration error with a remote runtime."""
    with pytest.raises(ConfigRefused, match=r"acme cannot leave its process.*postgres or nats"):
        async with open_driver(context(), is_one_process=False):
            raise AssertionError("it was opened")


async def test_without_the_distribution_it_is_not_known() -> None:
    """The error names the driver and those that are installed."""
    with pytest.raises(ConfigRefused, match=r"fanout\.driver: acme is not installed; known are .*memory"):
        async with open_driver(context(), is_one_process=True):
            raise AssertionError("it was opened")
