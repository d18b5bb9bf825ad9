"""The fan-out driver of a runtime that has none: nothing is published.

Nodes then find every commit by their position checks, twice a second. For `python -m runtime serve`
where no broker is configured; `khala up` brings its own driver.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from fanout_drivers.base import DriverGuarantees

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fanout_drivers.base import Delivery
    from khala_contracts.topics import TopicName

__all__ = ["SilentDriver"]


class _SilentSubscriber:
    """Hears nothing."""

    async def subscribe(self, topic: TopicName) -> None:
        """Do nothing; see FanoutSubscriber."""
        del topic
        await trio.lowlevel.checkpoint()

    async def unsubscribe(self, topic: TopicName) -> None:
        """Do nothing; see FanoutSubscriber."""
        del topic
        await trio.lowlevel.checkpoint()

    async def receive(self) -> Delivery:
        """Wait for ever; see FanoutSubscriber."""
        await trio.sleep_forever()
        raise AssertionError("sleep_forever returned")


@attrs.frozen
class SilentDriver:
    """Loses everything, and says so."""

    name: str = attrs.field(default="silent", init=False)
    guarantees: DriverGuarantees = attrs.field(
        default=DriverGuarantees(
            may_lose=True, may_duplicate=False, may_reorder=False, crosses_processes=True
        ),
        init=False,
    )

    async def publish(self, topic: TopicName, data: bytes) -> None:
        """Drop the record."""
        del topic, data
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def open_subscriber(self) -> AsyncIterator[_SilentSubscriber]:
        """Open an end that never hears anything."""
        await trio.lowlevel.checkpoint()
        yield _SilentSubscriber()

    async def check_health(self) -> bool:
        """Return True: there is nothing that could be broken."""
        await trio.lowlevel.checkpoint()
        return True
