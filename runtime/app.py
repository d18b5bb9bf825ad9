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

from fanout_drivers.driver_watch import DriverWatch
from khala_contracts.fanout_records import RecordSigner
from khala_contracts.topics import TOPIC_CLASSES
from khala_service import failpoints
from khala_service.adapters.http_client import open_service_client
from khala_service.adapters.postgres import open_pool
from khala_service.adapters.postgres_metrics import watch_pools
from khala_service.adapters.postgres_migrations import run_migrations
from khala_service.admin_routes import AdminToken
from khala_service.errors import DatabaseError, SerializationTrouble, Unavailable
from khala_service.http_edge import serve
from khala_service.identifiers import SystemClock, SystemIds
from khala_service.limit_metrics import LimitCollector
from khala_service.live_limits import LimitChange, TakesEffect, take_over
from khala_service.logs import bind_log_context, get_logger
from khala_service.metrics import MetricsRegistry
from khala_service.reloading import reloadable_config
from khala_service.service_auth import ServiceCredentials
from khala_service.supervision import Service, supervise
from khala_service.tls import TlsFiles, trust
from runtime.actors.app_topic_commands import AppTopicCommands
from runtime.actors.appender import Appender
from runtime.actors.command_path import CommandPath
from runtime.actors.explainer import Explainer
from runtime.actors.generation_watch import GenerationWatch
from runtime.actors.head_news import tell_heads
from runtime.actors.key_cleaner import KeyCleaner
from runtime.actors.limit_audit import LimitAudit
from runtime.actors.projection_repair import ProjectionRepair
from runtime.actors.projector import Projector
from runtime.actors.relay import Relay
from runtime.actors.run_commands import RunCommands
from runtime.actors.run_directory import RunDirectory
from runtime.actors.run_reads import RunReads
from runtime.actors.run_transfers import RunTransfers
from runtime.adapters.configuration import SECTION, RuntimeConfig
from runtime.adapters.http.application import make_runtime_app
from runtime.adapters.limit_audit_http import HttpLimitAuditLog
from runtime.adapters.memberships_http import HttpMembershipDirectory
from runtime.adapters.metrics import RuntimeMetrics
from runtime.adapters.node_metrics import NodeRegistryCollector
from runtime.adapters.postgres.journal_store import MIGRATIONS, PostgresJournalStore
from runtime.adapters.postgres.projection_store import PostgresProjectionStore
from runtime.adapters.postgres.transfer_store import PostgresTransferStore
from runtime.adapters.principals_http import HttpPrincipalResolver
from runtime.adapters.projection_metrics import PrometheusProjectionMetrics
from runtime.adapters.readiness import make_ready_checks
from runtime.core.limits import VIOLATIONS
from runtime.core.node_registry import NodeRegistry
from runtime.core.rate_limit import RateLimiter, rates_of
from runtime.core.relayed_records import RelayedRecords

if TYPE_CHECKING:
    from collections.abc import Callable

    from quart_trio import QuartTrio

    from fanout_drivers.base import FanoutDriver
    from khala_service.adapters.http_client import ServiceHttpClient
    from khala_service.adapters.postgres import PostgresPool
    from khala_service.adapters.postgres_migrations import MigrationReport
    from khala_service.config import Secret
    from runtime.core.limits import RuntimeLimits
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
    reread: Callable[[], RuntimeConfig] | None = None,
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
        reread: Reads the configuration again for a reload of limits and rates; None: never.
        task_status: Started with the bound port once commands are accepted (or it drains before).

    Raises:
        OSError: The address cannot be bound.
    """
    bind_log_context(service="runtime")
    # Limits of our own: what the object holds is what is in force, and a reload changes it.
    config = attrs.evolve(config, limits=attrs.evolve(config.limits))
    draining = drain if drain is not None else trio.Event()
    if config.is_dev:
        failpoints.arm(config.failpoints, hit_file=config.failpoint_file)
    async with (
        open_pool(
            config.database_dsn,
            application_name="khala-runtime",
            max_size=config.database_connections_max,
            statement_timeout_ms=config.database_statement_timeout_ms,
            acquire_timeout_s=config.database_acquire_timeout_ms / 1000,
        ) as pool,
        open_service_client(
            config.control_url,
            peer="control",
            credential=config.service_credential,
            verify=trust(SECTION, config.tls_ca),
        ) as control,
        trio.open_nursery() as services,
    ):
        parts = _make_parts(config, pool=pool, driver=driver, control=control, clock=clock or SystemClock())
        app = _make_app(config, parts, control=control, clock=clock or SystemClock(), draining=draining)
        live = ("limits", "publish_rate_per_s")
        apply = partial(_apply_limits, config.limits, parts)
        with reloadable_config(SECTION, config, reread, live=live, apply=apply):
            await _serve_parts(config, parts, app, services, draining=draining, task_status=task_status)
        services.cancel_scope.cancel()


def _apply_limits(limits: RuntimeLimits, parts: _Parts, wanted: RuntimeConfig) -> tuple[LimitChange, ...]:
    changes = take_over(limits, wanted.limits)
    parts.relay.bytes_max = limits.relay_bytes_max
    rates = rates_of(TOPIC_CLASSES, wanted.publish_rate_per_s)
    return changes + tuple(
        LimitChange(f"publish_rate_per_s.{name}", old, new, TakesEffect.AT_ONCE)
        for name, old, new in parts.limiter.replace_rates(rates)
    )


async def _serve_parts(
    config: RuntimeConfig,
    parts: _Parts,
    app: QuartTrio,
    services: trio.Nursery,
    *,
    draining: trio.Event,
    task_status: trio.TaskStatus[RuntimeEndpoints],
) -> None:
    async with trio.open_nursery() as accepting:
        port = await accepting.start(
            partial(
                serve,
                app,
                host=config.host,
                port=config.port,
                shutdown=draining,
                notice_s=config.drain_notice_s,
                tls=TlsFiles.of(SECTION, config.tls_cert, config.tls_key),
            )
        )
        _log.info("runtime_listening", port=port)
        authority = await _take_authority(parts, draining)
        if authority is not None:
            for kind, task in _tasks(parts, authority).items():
                await services.start(partial(supervise, kind, task, restarted=parts.metrics.task_restarted))
            _log.info("runtime_started", generation=authority.generation, lineage=authority.lineage)
        task_status.started(RuntimeEndpoints(port=port))


def _tasks(parts: _Parts, authority: Authority) -> dict[str, Service]:
    """Return what serves besides the routes, in the order of starting; the keys are TASK_KINDS."""
    return {
        "relay": parts.relay.serve,
        "appender": partial(parts.appender.serve, authority),
        "generation_watch": GenerationWatch(parts.store, parts.appender, authority).serve,
        "key_cleaner": KeyCleaner(parts.store).serve,
        "limit_audit": parts.limit_audit.serve,
        "projector": partial(parts.projector.serve, authority),
    }


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
    pool: PostgresPool
    driver: DriverWatch
    projector: Projector
    repair: ProjectionRepair
    transfers: PostgresTransferStore
    relayed: RelayedRecords
    limit_audit: LimitAudit
    nodes: NodeRegistry


def _make_parts(
    config: RuntimeConfig,
    *,
    pool: PostgresPool,
    driver: FanoutDriver,
    control: ServiceHttpClient,
    clock: Clock,
) -> _Parts:
    registry = MetricsRegistry("runtime")
    watch_pools(registry, {"runtime": pool})
    watch = DriverWatch(driver, is_needed_at_start=False)
    registry.register(watch)
    metrics = RuntimeMetrics(registry)
    store = PostgresJournalStore(pool)
    relayed = RelayedRecords()
    relay = Relay(
        driver,
        RecordSigner(config.fanout_key_id, config.fanout_key_bytes()),
        clock=clock,
        metrics=metrics,
        bytes_max=config.limits.relay_bytes_max,
        relayed=relayed,
    )
    limiter = RateLimiter(rates_of(TOPIC_CLASSES, config.publish_rate_per_s))
    appender = Appender(store, relay, limits=config.limits, limiter=limiter, metrics=metrics)
    ids = SystemIds()
    projections = PostgresProjectionStore(pool)
    projector = Projector(
        projections,
        relay,
        ids=ids,
        metrics=PrometheusProjectionMetrics(registry, queue_of=lambda: projector.queue),
        supersede=appender.supersede,
        tell_heads=partial(tell_heads, store, relay),
    )
    relay.listen(projector)
    repair = ProjectionRepair(projections, relay, ids=ids, authority=lambda: appender.authority)
    transfers = PostgresTransferStore(pool, projections)
    parts = _Parts(
        store,
        relay,
        appender,
        limiter,
        ids,
        registry,
        metrics,
        pool,
        watch,
        projector,
        repair,
        transfers,
        relayed,
        LimitAudit(HttpLimitAuditLog(control, "runtime"), clock=clock, ids=ids),
        NodeRegistry(),
    )
    metrics.watch_queues(appender, relay)
    registry.register(NodeRegistryCollector(parts.nodes))
    reasons = {name: reason.name for name, reason in VIOLATIONS.items()}
    registry.register(LimitCollector("runtime", config.limits, parts.limit_audit.violations, reasons))
    return parts


def _make_app(
    config: RuntimeConfig, parts: _Parts, *, control: ServiceHttpClient, clock: Clock, draining: trio.Event
) -> QuartTrio:
    path = CommandPath(
        store=parts.store,
        appender=parts.appender,
        limiter=parts.limiter,
        limits=config.limits,
        ids=parts.ids,
        metrics=parts.metrics,
    )
    directory = RunDirectory(parts.store)
    return make_runtime_app(
        resolver=HttpPrincipalResolver(control, clock),
        commands=RunCommands(path, directory=directory, limits=config.limits, ids=parts.ids),
        transfers=RunTransfers(
            path,
            store=parts.store,
            transfers=parts.transfers,
            members=HttpMembershipDirectory(control),
            directory=directory,
            relay=parts.relay,
            authority=lambda: parts.appender.authority,
            supersede=parts.appender.supersede,
            tell_heads=partial(tell_heads, parts.store, parts.relay),
            limits=config.limits,
            ids=parts.ids,
            metrics=parts.metrics,
        ),
        app_topics=AppTopicCommands(path),
        reads=RunReads(store=parts.store, limits=config.limits),
        controls=ServiceCredentials({"control": config.control_credential}),
        limits=config.limits,
        ids=parts.ids,
        repair=parts.repair,
        explainer=Explainer(parts.store, parts.relayed),
        admin=None if config.admin_token is None else AdminToken(config.admin_token),
        has_failpoints=config.is_dev,
        draining=draining,
        metrics=parts.registry,
        edge=config.edge,
        limit_audit=parts.limit_audit,
        nodes=ServiceCredentials({} if config.node_credential is None else {"node": config.node_credential}),
        registry=parts.nodes,
        clock=clock,
        ready_checks=make_ready_checks(
            pool=parts.pool,
            store=parts.store,
            control=control,
            driver=parts.driver,
            appender=parts.appender,
            projector=parts.projector,
            draining=draining,
        ),
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
        except (DatabaseError, SerializationTrouble) as error:
            word = f"refused_{error.sqlstate}"
        if word != reason:
            _log.warning("waiting_for_database", reason=word)
            reason = word
        await trio.sleep(START_RETRY_S)
