"""The faulty driver around another: the rates of its suite, for every inner driver the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fanout_drivers.faults import FaultRates
from fanout_drivers.faulty import FaultyDriver
from tests.contract.driver_suite import TOPIC, DriverSuite

if TYPE_CHECKING:
    from fanout_drivers.base import FanoutDriver, FanoutSubscriber

__all__ = ["WILD", "WildSuite"]

WILD: Final = FaultRates(loss=0.1, duplicate=0.2, reorder=0.2, delay=0.1, disconnect=0.01, forge=0.1)


class WildSuite(DriverSuite):
    """Everything at once; a tenth of the messages is lost without a word."""

    async def make_it_lose(
        self, driver: FanoutDriver, subscriber: FanoutSubscriber, sent: list[bytes]
    ) -> None:
        """Publish enough for the faults to meet some of it, and check that they count themselves."""
        await super().make_it_lose(driver, subscriber, sent)
        assert isinstance(driver, FaultyDriver)
        assert driver.injected["loss"] > 0
        await driver.publish(TOPIC, b"after the loss")
