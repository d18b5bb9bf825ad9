"""What a service says of its driver: the readiness check, and every counter at /metrics."""

from __future__ import annotations

import attrs

from fanout_drivers.base import DriverCounters
from fanout_drivers.driver_watch import DriverWatch
from fanout_drivers.memory import MemoryDriver
from khala_service.metrics import MetricsRegistry
from khala_service.readiness import Readiness


@attrs.define(eq=False)
class MoodyDriver(MemoryDriver):
    """A memory driver whose broker comes and goes."""

    is_healthy: bool = False

    async def check_health(self) -> bool:
        """Return what the test says."""
        return self.is_healthy


async def answer(watch: DriverWatch) -> tuple[str, bool]:
    """Return the word of the check, and whether a service with it is ready."""
    report = await Readiness({"fanout": watch.check}).report()
    return report.checks["fanout"], report.is_ready


async def test_who_needs_it_waits_for_the_first_connection_only() -> None:
    """A node: connecting and not ready; once it was connected, a broker that is away changes nothing."""
    driver = MoodyDriver()
    watch = DriverWatch(driver, is_needed_at_start=True)
    assert await answer(watch) == ("connecting", False)
    driver.is_healthy = True
    assert await answer(watch) == ("ok", True)
    driver.is_healthy = False
    assert await answer(watch) == ("disconnected", True)
    driver.is_healthy = True
    assert await answer(watch) == ("ok", True)


async def test_who_does_not_need_it_is_ready_without() -> None:
    """A runtime commits without a broker; its check names the state all the same."""
    driver = MoodyDriver()
    watch = DriverWatch(driver, is_needed_at_start=False)
    assert await answer(watch) == ("disconnected", True)
    driver.is_healthy = True
    assert await answer(watch) == ("ok", True)


async def test_everything_it_counts_is_shown() -> None:
    """Each counter under its own name with its own value, what was injected by fault, and the guarantees."""
    driver = MoodyDriver(is_healthy=True)
    watch = DriverWatch(driver, is_needed_at_start=False)
    metrics = MetricsRegistry("node", process_metrics=False)
    metrics.register(watch)
    assert metrics.sample("khala_driver_connected") == 0
    await watch.check()
    assert metrics.sample("khala_driver_connected") == 1
    totals = [field.name for field in attrs.fields(DriverCounters) if field.type in ("int", int)]
    for number, name in enumerate(totals, start=1):
        setattr(driver.counters, name, number)
    driver.counters.injected["loss"] = 7
    assert [metrics.sample(f"khala_driver_{name}_total") for name in totals] == [*range(1, len(totals) + 1)]
    assert metrics.sample("khala_driver_injected_total", {"fault": "loss"}) == 7
    said = {
        "may_lose": "true",
        "may_duplicate": "false",
        "may_reorder": "false",
        "crosses_processes": "false",
    }
    assert metrics.sample("khala_driver_info", {"driver": "memory", **said}) == 1
