"""Composition root of the control service: adapters into actors into routes, and their lifetimes.

Started by `khala up` (inside its own nursery and asyncio loop) or `python -m control serve`. Start order:
configuration judged, pool and peers opened, sweeper running, port bound. Leaving is the reverse: the port
closes, requests in flight finish, the sweeper is cancelled, connections are given back.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib import metadata, resources
from typing import Final

import attrs
import httpx
import trio

from control.actors.audit_trail import AuditTrail
from control.actors.authentication import Authentication
from control.actors.key_commands import KeyCommands
from control.actors.node_audit import NodeAudit
from control.actors.org_commands import OrgCommands
from control.actors.revocation_commands import RevocationCommands
from control.actors.revocation_hints import RevocationHints
from control.actors.session_commands import SessionCommands
from control.actors.sign_in_flow import SignInFlow
from control.actors.sweeper import Sweeper
from control.actors.sync_token_commands import SyncTokenCommands
from control.adapters.configuration import SECTION, ControlConfig
from control.adapters.http.application import Commands, make_control_app
from control.adapters.http.development_issuer import ISSUER_PATH
from control.adapters.http.sign_in import CALLBACK_PATH
from control.adapters.identity.development import DevelopmentIssuer
from control.adapters.identity.oidc import OidcProvider
from control.adapters.identity.workos import WorkosProvider
from control.adapters.metrics import PrometheusMeters
from control.adapters.postgres.audit import PostgresAudit
from control.adapters.postgres.orgs import PostgresOrgs
from control.adapters.postgres.pending_sign_ins import PostgresPendingSignIns
from control.adapters.postgres.redemptions import PostgresRedemptions
from control.adapters.postgres.revocations import PostgresRevocations, RevocationWriter
from control.adapters.postgres.service_keys import PostgresKeys
from control.adapters.postgres.sessions import PostgresSessions
from control.adapters.runtime_owners import HttpRuntimeOwners
from control.adapters.signing_keys import KeyRing, load_key_ring
from control.core.limits import ControlLimits
from control.core.sessions import SessionLimits
from control.core.sync_tokens import SyncLimits
from control.ports import Clock, IdentityProvider, Rng
from fanout_drivers.base import FanoutDriver, find_hinter
from fanout_drivers.driver_watch import DriverWatch
from khala_contracts import http_messages as m
from khala_service.adapters.http_client import ServiceHttpClient, open_service_client
from khala_service.adapters.postgres import PostgresPool, open_pool
from khala_service.adapters.postgres_metrics import watch_pools
from khala_service.adapters.postgres_migrations import (
    MigrationReport,
    check_revision,
    run_migrations,
)
from khala_service.admin_routes import AdminToken
from khala_service.config import ConfigRefused, Secret
from khala_service.http_edge import ReadyCheck, serve
from khala_service.identifiers import SystemClock, SystemIds, SystemRng
from khala_service.limit_metrics import LimitCollector
from khala_service.live_limits import LimitChange, TakesEffect, take_over
from khala_service.logs import bind_log_context, get_logger
from khala_service.metrics import MetricsRegistry
from khala_service.readiness import make_drain_check
from khala_service.reloading import reloadable_config
from khala_service.service_auth import SERVICE_CREDENTIAL_PREFIX, ServiceCredentials
from khala_service.supervision import supervise
from khala_service.tls import TlsFiles, trust

__all__ = ["SECTION", "ControlConfig", "ControlEndpoints", "migrate", "serve_control"]

MIGRATIONS: Final = resources.files("control") / "adapters" / "postgres" / "migrations"
# What /api/compat says of this build. The node enforces the same at hello.
PROTOCOL_RANGE: Final = (1, 1)
SCHEMA_RANGE: Final = (1, 1)

DEVELOPMENT_CLIENT_ID: Final = "khala-dev"
# The development issuer wherever it listens: a login of another issuer is never the same user.
DEVELOPMENT_ISSUER: Final = "khala-dev"

_log = get_logger("control")


@attrs.frozen
class ControlEndpoints:
    """Where a started control service listens."""

    port: int


@attrs.frozen
class _Actors:
    commands: Commands
    sweeper: Sweeper
    # None: the driver cannot hint, so nodes poll.
    hints: RevocationHints | None
    # Counts a task that was started again, by kind.
    restarted: Callable[[str], None]
    flow: SignInFlow | None
    issuer: DevelopmentIssuer | None
    session_limits: SessionLimits
    sync_limits: SyncLimits


async def migrate(owner_dsn: Secret | str) -> MigrationReport:
    """Bring schema control to this build's revision; run inside `open_asyncio_loop`.

    Raises: as `khala_service.adapters.postgres_migrations.run_migrations`.
    """
    return await run_migrations(owner_dsn, plane="control", directory=MIGRATIONS)


async def serve_control(
    config: ControlConfig,
    *,
    driver: FanoutDriver | None = None,
    drain: trio.Event | None = None,
    clock: Clock | None = None,
    reread: Callable[[], ControlConfig] | None = None,
    task_status: trio.TaskStatus[ControlEndpoints] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve control; start it with ``nursery.start`` inside ``open_asyncio_loop``.

    Starts, not ready, also while its database or the runtime is away.

    Args:
        config: Validated configuration.
        driver: Tells nodes of revocations at once; None: they learn of them by their polls.
        drain: Set it to become not ready, finish requests and return; None: until cancelled.
        clock: Wall time; the system's if None.
        reread: Reads the configuration again for a reload of limits and minimum build; None: never.
        task_status: Started with the bound port once requests are answered.

    Raises:
        ConfigRefused: The key ring or a service credential is unusable.
        OSError: The address cannot be bound.
    """
    bind_log_context(service="control")
    draining = drain if drain is not None else trio.Event()
    ring = load_key_ring(config.signing_keys_file, may_create=config.is_dev)
    credentials = _read_credentials(config)
    metrics = MetricsRegistry("control")
    async with (
        open_pool(
            config.database_dsn,
            application_name="khala-control",
            max_size=config.database_connections_max,
            statement_timeout_ms=config.database_statement_timeout_ms,
            acquire_timeout_s=config.database_acquire_timeout_ms / 1000,
        ) as pool,
        open_service_client(
            config.runtime_url,
            peer="runtime",
            credential=config.service_credential,
            verify=trust(SECTION, config.tls_ca),
        ) as runtime,
        # The identity provider is a public one, or in development ourselves.
        httpx.AsyncClient(
            trust_env=False, follow_redirects=False, verify=trust(SECTION, config.tls_ca, also_public=True)
        ) as web,
        trio.open_nursery() as services,
    ):
        watch_pools(metrics, {"control": pool})
        wall = clock or SystemClock()
        actors = _make_actors(
            config,
            pool=pool,
            runtime=runtime,
            web=web,
            ring=ring,
            metrics=metrics,
            clock=wall,
            driver=driver,
        )
        compat, limits = _compat(config), config.limits
        metrics.register(LimitCollector("control", limits, Counter(), {}))
        checks = _ready_checks(pool, draining)
        if driver is not None:
            watch = DriverWatch(driver, is_needed_at_start=False)
            metrics.register(watch)
            checks["fanout"] = watch.check
        app = make_control_app(
            actors.commands,
            ring=ring,
            compat=compat,
            nodes=credentials["node"],
            runtimes=credentials["runtime"],
            admin=None if config.admin_token is None else AdminToken(config.admin_token),
            metrics=metrics,
            ready_checks=checks,
            flow=actors.flow,
            issuer=actors.issuer,
            origin=config.origin,
            clock=wall,
            edge=config.edge,
        )
        await services.start(
            partial(supervise, "sweeper", actors.sweeper.serve_sweeping, restarted=actors.restarted)
        )
        if actors.hints is not None:
            hinting = actors.hints.serve_hinting
            await services.start(partial(supervise, "revocation_hints", hinting, restarted=actors.restarted))
        live = [*(field.name for field in attrs.fields(ControlLimits)), "min_build_id"]
        apply = partial(_apply_limits, limits, actors, compat)
        with reloadable_config(SECTION, config, reread, live=live, apply=apply):
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
                _log.info("control_started", port=port, mode=config.mode)
                task_status.started(ControlEndpoints(port=port))
        services.cancel_scope.cancel()


def _make_actors(
    config: ControlConfig,
    *,
    pool: PostgresPool,
    runtime: ServiceHttpClient,
    web: httpx.AsyncClient,
    ring: KeyRing,
    metrics: MetricsRegistry,
    clock: Clock,
    driver: FanoutDriver | None,
) -> _Actors:
    ids, rng, meters = SystemIds(), SystemRng(), PrometheusMeters(metrics)
    session_limits, sync_limits = config.session_limits, config.sync_limits
    hinter = find_hinter(driver)
    hints = None if hinter is None else RevocationHints(hinter, count=meters.count_hint)
    writer = RevocationWriter() if hints is None else RevocationWriter(hints.mark)
    sessions, keys = PostgresSessions(pool, writer), PostgresKeys(pool, writer)
    redemptions, revocations = PostgresRedemptions(pool), PostgresRevocations(pool)
    pending = PostgresPendingSignIns(pool)
    log = PostgresAudit(pool)
    trail = AuditTrail(log, clock, meters)
    meters.watch_audit_backlog(lambda: trail.suppressed_count)
    authentication = Authentication(sessions=sessions, keys=keys, verifier=ring, clock=clock)
    commands = Commands(
        audit=NodeAudit(log, meters),
        sessions=SessionCommands(
            store=sessions,
            authentication=authentication,
            trail=trail,
            signer=ring,
            clock=clock,
            ids=ids,
            rng=rng,
            limits=session_limits,
            meters=meters,
        ),
        revocations=RevocationCommands(
            store=sessions,
            log=revocations,
            authentication=authentication,
            trail=trail,
            clock=clock,
            meters=meters,
        ),
        orgs=OrgCommands(
            store=PostgresOrgs(pool, writer),
            authentication=authentication,
            trail=trail,
            clock=clock,
            ids=ids,
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
            limits=sync_limits,
            meters=meters,
        ),
    )
    sweeper = Sweeper(
        redemptions=redemptions,
        sessions=sessions,
        revocations=revocations,
        pending=pending,
        trail=trail,
        clock=clock,
        ids=ids,
        meters=meters,
        refresh_grace_s=config.refresh_grace_s,
    )
    issuer = _development_issuer(config, clock, rng) if config.provider == "development" else None
    provider = _provider(config, web, clock)
    flow: SignInFlow | None = None
    if provider is not None:
        flow = SignInFlow(
            provider=provider,
            pending=pending,
            sessions=commands.sessions,
            trail=trail,
            clock=clock,
            rng=rng,
            redirect_uri=config.origin + CALLBACK_PATH,
        )
    return _Actors(
        commands=commands,
        sweeper=sweeper,
        hints=hints,
        restarted=meters.count_restart,
        flow=flow,
        issuer=issuer,
        session_limits=session_limits,
        sync_limits=sync_limits,
    )


def _apply_limits(
    limits: ControlLimits, actors: _Actors, compat: m.CompatResponse, wanted: ControlConfig
) -> tuple[LimitChange, ...]:
    """Put the limits of a configuration into force, for every command from now on."""
    changes = take_over(limits, wanted.limits)
    take_over(actors.session_limits, wanted.session_limits)
    take_over(actors.sync_limits, wanted.sync_limits)
    actors.commands.keys.per_org_max = wanted.keys_per_org_max
    actors.sweeper.refresh_grace_s = wanted.refresh_grace_s
    old, compat.min_build_id = compat.min_build_id, wanted.min_build_id
    if old == wanted.min_build_id:
        return changes
    return (*changes, LimitChange("min_build_id", old, wanted.min_build_id, TakesEffect.AT_ONCE))


def _development_issuer(config: ControlConfig, clock: Clock, rng: Rng) -> DevelopmentIssuer:
    return DevelopmentIssuer(
        issuer=config.origin + ISSUER_PATH,
        client_id=DEVELOPMENT_CLIENT_ID,
        redirect_uri=config.origin + CALLBACK_PATH,
        clock=clock,
        rng=rng,
    )


def _provider(config: ControlConfig, web: httpx.AsyncClient, clock: Clock) -> IdentityProvider | None:
    """Return who signs people in; None: nobody, and the routes do not exist."""
    match config.provider:
        case "development":
            return OidcProvider(
                issuer=config.origin + ISSUER_PATH,
                client_id=DEVELOPMENT_CLIENT_ID,
                client_secret=None,
                http=web,
                clock=clock,
                known_as=DEVELOPMENT_ISSUER,
            )
        case "oidc":
            return OidcProvider(
                issuer=config.oidc_issuer,
                client_id=config.oidc_client_id,
                client_secret=config.oidc_client_secret,
                http=web,
                clock=clock,
            )
        case "workos":
            assert config.workos_api_key is not None, "checked by the configuration"
            return WorkosProvider(
                client_id=config.workos_client_id,
                api_key=config.workos_api_key,
                http=web,
                base_url=config.workos_base_url,
            )
        case _:
            return None


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
    async def has_database() -> str | None:
        await pool.measure_clock_skew()
        return None

    async def has_schema() -> str | None:
        return await check_revision(pool, plane="control", directory=MIGRATIONS)

    return {"draining": make_drain_check(draining), "database": has_database, "migration": has_schema}


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
