"""The driver ``none`` passes the suite of all drivers: it declares that it carries and announces nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fanout_drivers.silent import SilentDriver
from tests.contract.driver_suite import DriverSuite, in_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fanout_drivers.base import FanoutDriver


@in_virtual_time
class TestSilentDriver(DriverSuite):
    """Nothing arrives, and nothing is said about it."""

    @asynccontextmanager
    async def open_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one."""
        yield SilentDriver()

    @asynccontextmanager
    async def open_small_driver(self) -> AsyncIterator[FanoutDriver]:
        """Open one; it holds nothing anyway."""
        yield SilentDriver()
