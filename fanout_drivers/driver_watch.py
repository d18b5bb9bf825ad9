"""What a service says of its driver: counters at /metrics, and the readiness check ``fanout``.

A driver that is away delays, it breaks nothing: once it was connected it takes nobody out of traffic.
Before that a node would serve every client by position checks alone, so it is not ready; a runtime
commits and control revokes without it, and they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from khala_service.readiness import Degraded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from fanout_drivers.base import FanoutDriver

__all__ = ["DriverWatch"]

_TOTALS: Final = {
    "published": "Records handed over to the broker.",
    "publish_failures": "Records that could not be handed over; nodes find them in the journal.",
    "received": "Messages taken from the broker.",
    "dropped": "Messages dropped for lack of room, each announced as position unknown.",
    "rejected": "Messages that name no topic of ours.",
    "connects": "Connections made to the broker.",
    "connect_failures": "Attempts to connect that failed.",
    "forbidden": "Records that the broker threw away, because this login may not publish them.",
    "hints_beside": "Hints given or heard by a second way while the broker was away or healing.",
}
_GUARANTEES: Final = ("may_lose", "may_duplicate", "may_reorder", "crosses_processes")


class DriverWatch:
    """Watches one driver for one service; a collector of its metrics."""

    def __init__(self, driver: FanoutDriver, *, is_needed_at_start: bool) -> None:
        """Watch ``driver``; a service that needs it at the start is not ready before it was connected."""
        self._driver = driver
        self._is_needed = is_needed_at_start
        self._is_connected = False

    async def check(self) -> str | None:
        """Answer the readiness check ``fanout``: ok, ``connecting`` or ``disconnected``, and the reason if known.

        Cancellation: safe.
        """
        self._is_connected = await self._driver.check_health()
        if self._is_connected:
            self._is_needed = False
            return None
        word = "connecting" if self._is_needed else "disconnected"
        trouble = self._driver.counters.trouble
        answer = f"{word}: {trouble}" if trouble else word
        return answer if self._is_needed else Degraded(answer)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by the registry at a scrape, after the readiness check."""
        driver = self._driver
        for name, text in _TOTALS.items():
            yield CounterMetricFamily(f"khala_driver_{name}", text, value=getattr(driver.counters, name))
        injected = CounterMetricFamily(
            "khala_driver_injected", "Harm done on purpose, by fault; faulty drivers only.", labels=["fault"]
        )
        for fault, count in sorted(driver.counters.injected.items()):
            injected.add_metric([fault], count)
        yield injected
        yield GaugeMetricFamily(
            "khala_driver_connected",
            "1 if messages published now can reach subscribers, as far as the driver knows.",
            value=self._is_connected,
        )
        info = GaugeMetricFamily(
            "khala_driver_info",
            "1; the labels say which driver it is and what it may do to messages.",
            labels=["driver", *_GUARANTEES],
        )
        guarantees = [str(getattr(driver.guarantees, name)).lower() for name in _GUARANTEES]
        info.add_metric([driver.name, *guarantees], 1)
        yield info
