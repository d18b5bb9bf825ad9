"""Composition root of the runtime: adapters into actors into routes, and their lifetimes.

Started by `khala up` (inside its own nursery and asyncio loop) or `python -m runtime serve`. Start order:
configuration judged, pool and control client opened, port bound (not ready), authority taken (generation
and lineage), relay and appender running. Leaving is the reverse: the port closes, requests in flight are
answered, then the writers stop, then what still waits for nodes is dropped (they find it in the journal).
"""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from khala_contracts.fanout_records import RecordSigner
from khala_contracts.topics import TOPIC_CLASSES
from khala_service.adapters.http_client import open_service_client
from khala_service.adapters.postgres import open_pool
from khala_service.adapters.postgres_migrations import run_migrations
from khala_service.errors import DatabaseError, Unavailable
from khala_service.http_edge import serve
from khala_service.identifiers import SystemClock, SystemIds
from khala_service.logs import get_logger
from khala_service.metrics import MetricsRegistry
from khala_service.service_auth import ServiceCredentials
from runtime.actors.appender import Appender
from runtime.actors.generation_watch import GenerationWatch
from runtime.actors.key_cleaner import KeyCleaner
from runtime.actors.relay import Relay
from runtime.actors.run_commands import RunCommands
from runtime.actors.run_directory import RunDirectory
from runtime.actors.run_reads import RunReads
from runtime.adapters.configuration import SECTION, RuntimeConfig
from runtime.adapters.http.application import make_runtime_app
from runtime.adapters.metrics import RuntimeMetrics
from runtime.adapters.postgres.journal_store import MIGRATIONS, PostgresJournalStore
from runtime.adapters.principals_http import HttpPrincipalResolver
from runtime.core.rate_limit import RateLimiter, rates_of

if TYPE_CHECKING:
    from quart_trio import QuartTrio

    from fanout_drivers.base import FanoutDriver
    from khala_service.adapters.http_client import ServiceHttpClient
    from khala_service.adapters.postgres import PostgresPool
    from khala_service.adapters.postgres_migrations import MigrationReport
    from khala_service.config import Secret
    from khala_service.http_edge import ReadyCheck
    from runtime.ports import Authority, Clock, JournalStore

__all__ = ["SECTION", "RuntimeConfig", "RuntimeEndpoints", "migrate", "serve_runtime"]

# How often a starting runtime asks again for a database that is away or not migrated yet.
START_RETRY_S: Final = 0.5

_log = get_logger("runtime")


@attrs.frozen
class RuntimeEndpoints:
    """Where a started runtime listens."""

    port: int


async def migrate(owner_dsn: Secret | str) -> MigrationReport:
    """Bring schema runtime to this build's revision; run inside `open_asyncio_loop`.

    Raises: as `khala_service.adapters.postgres_migrations.run_migrations`.
    """
    return await run_migrations(owner_dsn, plane="runtime", directory=MIGRATIONS)


async def serve_runtime(
    config: RuntimeConfig,
    *,
    driver: FanoutDriver,
    drain: trio.Event | None = None,
    clock: Clock | None = None,
    task_status: trio.TaskStatus[RuntimeEndpoints] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the runtime; start it with ``nursery.start`` inside ``open_asyncio_loop``.

    Listens at once and says that it is not ready until the database is there, migrated, and ours to
    write; before that no command is accepted, because there is no generation to commit under.

    Args:
        config: Validated configuration.
        driver: Carries news of commits to the nodes.
        drain: Set it to become not ready, finish requests and return; None: until cancelled.
        clock: Wall time; the system's if None.
        task_status: Started with the bound port once commands are accepted (or it drains before).

    Raises:
        OSError: The address cannot be bound.
    """
    draining = drain if drain is not None else trio.Event()
    async with (
        open_pool(
            config.database_dsn,
            application_name="khala-runtime",
            max_size=config.database_connections_max,
        ) as pool,
        open_service_client(
            config.control_url, peer="control", credential=config.service_credential
        ) as control,
        trio.open_nursery() as services,
    ):
        parts = _make_parts(config, pool=pool, driver=driver, clock=clock or SystemClock())
        app = _make_app(config, parts, control=control, clock=clock or SystemClock(), draining=draining)
        async with trio.open_nursery() as accepting:
            port = await accepting.start(
                partial(serve, app, host=config.host, port=config.port, shutdown=draining)
            )
            _log.info("runtime_listening", port=port)
            authority = await _take_authority(parts, draining)
            if authority is not None:
                await services.start(parts.relay.serve)
                await services.start(parts.appender.serve, authority)
                await services.start(GenerationWatch(parts.store, parts.appender, authority).serve)
                await services.start(KeyCleaner(parts.store).serve)
                _log.info("runtime_started", generation=authority.generation, lineage=authority.lineage)
            task_status.started(RuntimeEndpoints(port=port))
        services.cancel_scope.cancel()


@attrs.frozen
class _Parts:
    """What the tasks and the routes are made of."""

    store: JournalStore
    relay: Relay
    appender: Appender
    limiter: RateLimiter
    ids: SystemIds
    registry: MetricsRegistry
    metrics: RuntimeMetrics


def _make_parts(config: RuntimeConfig, *, pool: PostgresPool, driver: FanoutDriver, clock: Clock) -> _Parts:
    registry = MetricsRegistry("runtime")
    pool.watch(registry)
    metrics = RuntimeMetrics(registry)
    store = PostgresJournalStore(pool)
    relay = Relay(
        driver,
        RecordSigner(config.fanout_key_id, config.fanout_key_bytes()),
        clock=clock,
        metrics=metrics,
        bytes_max=config.limits.relay_bytes_max,
    )
    limiter = RateLimiter(rates_of(TOPIC_CLASSES, config.publish_rate_per_s))
    appender = Appender(store, relay, limits=config.limits, limiter=limiter, metrics=metrics)
    parts = _Parts(store, relay, appender, limiter, SystemIds(), registry, metrics)
    _watch(parts)
    return parts


def _make_app(
    config: RuntimeConfig, parts: _Parts, *, control: ServiceHttpClient, clock: Clock, draining: trio.Event
) -> QuartTrio:
    commands = RunCommands(
        store=parts.store,
        appender=parts.appender,
        directory=RunDirectory(parts.store),
        limiter=parts.limiter,
        limits=config.limits,
        ids=parts.ids,
        metrics=parts.metrics,
    )
    return make_runtime_app(
        resolver=HttpPrincipalResolver(control, clock),
        commands=commands,
        reads=RunReads(store=parts.store, limits=config.limits),
        controls=ServiceCredentials({"control": config.control_credential}),
        limits=config.limits,
        ids=parts.ids,
        metrics=parts.registry,
        ready_checks=_ready_checks(parts.store, parts.appender, draining),
    )


async def _take_authority(parts: _Parts, draining: trio.Event) -> Authority | None:
    """Return our authority, waiting for a database that is away or not migrated yet.

    None: asked to drain before that.
    """
    authority: Authority | None = None
    async with trio.open_nursery() as nursery:

        async def stop_waiting() -> None:
            await draining.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(stop_waiting)
        authority = await _wait_authority(parts.store, parts.ids)
        nursery.cancel_scope.cancel()
    return authority


async def _wait_authority(store: JournalStore, ids: SystemIds) -> Authority:
    holder = f"{socket.gethostname()}:{os.getpid()}"
    reason = ""
    while True:
        try:
            word = await store.check()
            if word is None:
                return await store.take_authority(holder=holder, lineage_candidate=ids.new("lin"))
        except Unavailable as error:
            word = error.reason
        except DatabaseError as error:
            word = f"refused_{error.sqlstate}"
        if word != reason:
            _log.warning("waiting_for_database", reason=word)
            reason = word
        await trio.sleep(START_RETRY_S)


def _ready_checks(store: JournalStore, appender: Appender, draining: trio.Event) -> dict[str, ReadyCheck]:
    async def is_serving() -> str | None:
        return "draining" if draining.is_set() else None

    async def has_schema() -> str | None:
        return await store.check()

    async def holds_generation() -> str | None:
        if appender.is_superseded:
            return "superseded"
        return None if appender.authority is not None else "not_taken"

    async def has_writers() -> str | None:
        return None if appender.is_running else "stopped"

    return {
        "serving": is_serving,
        "database": has_schema,
        "generation": holds_generation,
        "writers": has_writers,
    }


def _watch(parts: _Parts) -> None:
    metrics, appender, relay = parts.metrics, parts.appender, parts.relay
    metrics.watch(
        "khala_runtime_inbox_requests", "Requests waiting for a commit.", lambda: appender.inbox_requests
    )
    metrics.watch(
        "khala_runtime_inbox_bytes", "Payload bytes waiting for a commit.", lambda: appender.inbox_bytes
    )
    metrics.watch(
        "khala_runtime_relay_bytes", "Bytes of copies waiting for the driver.", lambda: relay.waiting_bytes
    )
    metrics.watch(
        "khala_runtime_generation",
        "Generation that this process writes under; 0 before it has one.",
        lambda: appender.authority.generation if appender.authority else 0,
    )
