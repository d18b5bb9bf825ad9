"""Composition root of the control service: adapters into actors into routes, and their lifetimes.

Started by `khala up` (inside its own nursery and asyncio loop) or `python -m control serve`. Start order:
configuration judged, pool and peers opened, sweeper running, port bound. Leaving is the reverse: the port
closes, requests in flight finish, the sweeper is cancelled, connections are given back.
"""

from functools import partial
from importlib import metadata, resources
from typing import Final

import attrs
import trio

from control.actors.audit_trail import AuditTrail
from control.actors.authentication import Authentication
from control.actors.key_commands import KeyCommands
from control.actors.session_commands import SessionCommands
from control.actors.sweeper import Sweeper
from control.actors.sync_token_commands import SyncTokenCommands
from control.adapters.configuration import SECTION, ControlConfig
from control.adapters.http.application import Commands, make_control_app
from control.adapters.metrics import PrometheusMeters
from control.adapters.postgres.audit import PostgresAudit
from control.adapters.postgres.redemptions import PostgresRedemptions
from control.adapters.postgres.service_keys import PostgresKeys
from control.adapters.postgres.sessions import PostgresSessions
from control.adapters.runtime_owners import HttpRuntimeOwners
from control.adapters.signing_keys import KeyRing, load_key_ring
from control.ports import Clock
from khala_contracts import http_messages as m
from khala_service.adapters.http_client import ServiceHttpClient, open_service_client
from khala_service.adapters.postgres import PostgresPool, open_pool
from khala_service.adapters.postgres_migrations import (
    MigrationReport,
    check_revision,
    run_migrations,
)
from khala_service.config import ConfigRefused, Secret
from khala_service.http_edge import ReadyCheck, serve
from khala_service.identifiers import SystemClock, SystemIds, SystemRng
from khala_service.logs import get_logger
from khala_service.metrics import MetricsRegistry
from khala_service.service_auth import SERVICE_CREDENTIAL_PREFIX, ServiceCredentials

__all__ = ["SECTION", "ControlConfig", "ControlEndpoints", "migrate", "serve_control"]

MIGRATIONS: Final = resources.files("control") / "adapters" / "postgres" / "migrations"
# What /api/compat says of this build. The node enforces the same at hello.
PROTOCOL_RANGE: Final = (1, 1)
SCHEMA_RANGE: Final = (1, 1)

_log = get_logger("control")


@attrs.frozen
class ControlEndpoints:
    """Where a started control service listens."""

    port: int


@attrs.frozen
class _Actors:
    commands: Commands
    sweeper: Sweeper


async def migrate(owner_dsn: Secret | str) -> MigrationReport:
    """Bring schema control to this build's revision; run inside `open_asyncio_loop`.

    Raises: as `khala_service.adapters.postgres_migrations.run_migrations`.
    """
    return await run_migrations(owner_dsn, plane="control", directory=MIGRATIONS)


async def serve_control(
    config: ControlConfig,
    *,
    drain: trio.Event | None = None,
    clock: Clock | None = None,
    task_status: trio.TaskStatus[ControlEndpoints] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve control; start it with ``nursery.start`` inside ``open_asyncio_loop``.

    Starts, not ready, also while its database or the runtime is away.

    Args:
        config: Validated configuration.
        drain: Set it to become not ready, finish requests and return; None: until cancelled.
        clock: Wall time; the system's if None.
        task_status: Started with the bound port once requests are answered.

    Raises:
        ConfigRefused: The key ring or a service credential is unusable.
        OSError: The address cannot be bound.
    """
    draining = drain if drain is not None else trio.Event()
    ring = load_key_ring(config.signing_keys_file, may_create=config.is_dev)
    credentials = _read_credentials(config)
    metrics = MetricsRegistry("control")
    async with (
        open_pool(
            config.database_dsn,
            application_name="khala-control",
            max_size=config.database_connections_max,
        ) as pool,
        open_service_client(
            config.runtime_url, peer="runtime", credential=config.service_credential
        ) as runtime,
        trio.open_nursery() as services,
    ):
        pool.watch(metrics)
        actors = _make_actors(
            config, pool=pool, runtime=runtime, ring=ring, metrics=metrics, clock=clock or SystemClock()
        )
        app = make_control_app(
            actors.commands,
            ring=ring,
            compat=_compat(config),
            nodes=credentials["node"],
            runtimes=credentials["runtime"],
            metrics=metrics,
            ready_checks=_ready_checks(pool, draining),
            is_dev=config.is_dev,
        )
        services.start_soon(actors.sweeper.serve_sweeping)
        async with trio.open_nursery() as accepting:
            port = await accepting.start(
                partial(serve, app, host=config.host, port=config.port, shutdown=draining)
            )
            _log.info("control_started", port=port, mode=config.mode)
            task_status.started(ControlEndpoints(port=port))
        services.cancel_scope.cancel()


def _make_actors(
    config: ControlConfig,
    *,
    pool: PostgresPool,
    runtime: ServiceHttpClient,
    ring: KeyRing,
    metrics: MetricsRegistry,
    clock: Clock,
) -> _Actors:
    ids, rng, meters = SystemIds(), SystemRng(), PrometheusMeters(metrics)
    sessions, keys = PostgresSessions(pool), PostgresKeys(pool)
    redemptions = PostgresRedemptions(pool)
    trail = AuditTrail(PostgresAudit(pool), clock, meters)
    authentication = Authentication(sessions=sessions, keys=keys, verifier=ring, clock=clock)
    commands = Commands(
        sessions=SessionCommands(
            store=sessions,
            authentication=authentication,
            trail=trail,
            signer=ring,
            clock=clock,
            ids=ids,
            rng=rng,
            limits=config.session_limits,
            meters=meters,
        ),
        keys=KeyCommands(
            store=keys,
            authentication=authentication,
            trail=trail,
            clock=clock,
            ids=ids,
            rng=rng,
            meters=meters,
            per_org_max=config.keys_per_org_max,
        ),
        sync_tokens=SyncTokenCommands(
            authentication=authentication,
            sessions=sessions,
            redemptions=redemptions,
            owners=HttpRuntimeOwners(runtime),
            trail=trail,
            signer=ring,
            clock=clock,
            ids=ids,
            limits=config.sync_limits,
            meters=meters,
        ),
    )
    sweeper = Sweeper(
        redemptions=redemptions, sessions=sessions, trail=trail, clock=clock, ids=ids, meters=meters
    )
    return _Actors(commands=commands, sweeper=sweeper)


def _read_credentials(config: ControlConfig) -> dict[str, ServiceCredentials]:
    """Return who may use the internal routes.

    Raises:
        ConfigRefused: naming every credential that is not one.
    """
    given = {
        "service": config.service_credential,
        "runtime": config.runtime_credential,
        "node": config.node_credential,
    }
    errors = [
        f"control.{caller}_credential: does not start with {SERVICE_CREDENTIAL_PREFIX}"
        for caller, secret in given.items()
        if not secret.reveal().startswith(SERVICE_CREDENTIAL_PREFIX)
    ]
    if errors:
        raise ConfigRefused(tuple(sorted(errors)))
    return {caller: ServiceCredentials({caller: given[caller]}) for caller in ("runtime", "node")}


def _ready_checks(pool: PostgresPool, draining: trio.Event) -> dict[str, ReadyCheck]:
    async def is_serving() -> str | None:
        return "draining" if draining.is_set() else None

    async def has_schema() -> str | None:
        return await check_revision(pool, plane="control", directory=MIGRATIONS)

    return {"serving": is_serving, "database": has_schema}


def _compat(config: ControlConfig) -> m.CompatResponse:
    try:
        version = metadata.version("khala")
    except metadata.PackageNotFoundError:
        version = "source"
    return m.CompatResponse(
        min_build_id=config.min_build_id,
        protocol_min=PROTOCOL_RANGE[0],
        protocol_max=PROTOCOL_RANGE[1],
        schema_min=SCHEMA_RANGE[0],
        schema_max=SCHEMA_RANGE[1],
        version=version,
    )
