"""When commands may come to this runtime: the checks of /readyz, in the words of runbooks/metrics.md.

Cheap: one statement each for the two that ask the database, one request for the one that asks control.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from khala_service.readiness import make_drain_check

if TYPE_CHECKING:
    import trio

    from fanout_drivers.driver_watch import DriverWatch
    from khala_service.adapters.http_client import ServiceHttpClient
    from khala_service.adapters.postgres import PostgresPool
    from khala_service.readiness import ReadyCheck
    from runtime.actors.appender import Appender
    from runtime.actors.projector import Projector
    from runtime.ports import JournalStore

__all__ = ["make_ready_checks"]


def make_ready_checks(
    *,
    pool: PostgresPool,
    store: JournalStore,
    control: ServiceHttpClient,
    driver: DriverWatch,
    appender: Appender,
    projector: Projector,
    draining: trio.Event,
) -> dict[str, ReadyCheck]:
    """Return the checks by name.

    Args:
        pool: Measures the clock against the database's, which needs an answer.
        store: Knows whether the schema is that of this build.
        control: Judges who callers are.
        driver: Only ever says that delivery is slower.
        appender: Has the generation, and the writers.
        projector: Once it has run, only ever says that lists are older.
        draining: Set when the service is asked to end.
    """

    async def has_control() -> str | None:
        # Without it nobody's credential can be judged, so every command would be refused.
        await control.ping()
        return None

    async def has_database() -> str | None:
        await pool.measure_clock_skew()
        return None

    async def has_schema() -> str | None:
        return await store.check()

    async def holds_generation() -> str | None:
        if appender.is_superseded:
            return "superseded"
        return None if appender.authority is not None else "not_taken"

    async def has_writers() -> str | None:
        return None if appender.is_running else "stopped"

    return {
        "draining": make_drain_check(draining),
        "database": has_database,
        "migration": has_schema,
        "control": has_control,
        "fanout": driver.check,
        "generation": holds_generation,
        "writers": has_writers,
        "projector": projector.check,
    }
