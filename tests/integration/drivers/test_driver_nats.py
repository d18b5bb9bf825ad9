"""The NATS driver inside the faulty one passes the suite of all drivers on a real server; alone: test_driver_nats_cluster.py."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from fanout_drivers.faults import FaultRates
from fanout_drivers.faulty import FaultyDriver
from fanout_drivers.nats import NatsDriver, NatsLimits
from fanout_drivers.nats_login import NatsLogin
from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from tests.contract.driver_suite import DriverSuite
from tests.contract.wild_driver import WILD, WildSuite
from tests.integration.drivers.rig import PREFIX, free_port, login_of, running_driver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fanout_drivers.base import FanoutDriver
    from khala.adapters.embedded_nats import NatsCommand

pytestmark = pytest.mark.slow


class _OnServer:
    """Opens drivers on the server of this module."""

    command: NatsCommand

    @pytest.fixture(autouse=True)
    def _take_server(self, nats_server: NatsCommand) -> None:
        self.command = nats_server

    @asynccontextmanager
    async def open_plain(self, limits: NatsLimits) -> AsyncIterator[NatsDriver]:
        """Open a driver with these bounds."""
        login = login_of(self.command)
        async with (
            open_asyncio_loop(),
            running_driver(NatsDriver((self.command.url,), login, PREFIX, limits)) as it,
        ):
            yield it


SMALL = NatsLimits(queue_max_records=50)


@asynccontextmanager
async def open_absent() -> AsyncIterator[NatsDriver]:
    """Open a driver for a port on which nobody listens."""
    driver = NatsDriver((f"nats://127.0.0.1:{free_port()}",), NatsLogin("khala-test"), PREFIX)
    async with open_asyncio_loop(), running_driver(driver):
        yield driver


class TestCalmFaultyNatsDriver(_OnServer, DriverSuite):
    """Without faults it is the inner driver."""

    @asynccontextmanager
    async def open_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one around the driver."""
        async with self.open_plain(NatsLimits()) as driver:
            yield FaultyDriver(driver, FaultRates())

    @asynccontextmanager
    async def open_small_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one around a driver whose subscribers hold 50 messages."""
        async with self.open_plain(SMALL) as driver:
            yield FaultyDriver(driver, FaultRates())

    @asynccontextmanager
    async def open_absent_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one around a driver without a server."""
        async with open_absent() as driver:
            yield FaultyDriver(driver, FaultRates())


class TestWildFaultyNatsDriver(_OnServer, WildSuite):
    """With all faults."""

    @asynccontextmanager
    async def open_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one around the driver."""
        async with self.open_plain(NatsLimits()) as driver:
            yield FaultyDriver(driver, WILD, seed=1)

    @asynccontextmanager
    async def open_small_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one around a driver whose subscribers hold 50 messages."""
        async with self.open_plain(SMALL) as driver:
            yield FaultyDriver(driver, WILD, seed=2)
