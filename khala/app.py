"""Composition of one node: adapters into ports, services above connections above accepting.

Leaving the blocks is the order of shutdown: accepting stops first, connections drain, then the
position check, the record pump and the pools end. Nothing here decides anything.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from fanout_drivers.driver_watch import DriverWatch
from khala.actors.access_audit import AccessAudit
from khala.actors.commands import ClientCommands
from khala.actors.evictions import Evictions
from khala.actors.fanout_looks import FanoutLooks
from khala.actors.listener import Acceptor, Listener
from khala.actors.node_reporter import NodeReporter
from khala.actors.observations import WORKERS, GroupedObservations
from khala.actors.observer import DeliveryObserver
from khala.actors.page_reads import PageReads
from khala.actors.registry import TopicRegistry
from khala.actors.replay import PageReader
from khala.actors.start_gate import StartGate
from khala.actors.supervision import Supervisor
from khala.actors.sweeper import run_sweeper
from khala.adapters.admin_http import make_admin_app
from khala.adapters.configuration import SECTION, NodeConfig
from khala.adapters.control_http import HttpControlClient, HttpKeySource
from khala.adapters.explain_http import add_explain_route
from khala.adapters.metrics import watch_node
from khala.adapters.node_log import NodeLog
from khala.adapters.postgres.journal import open_journal_reader
from khala.adapters.runtime_http import failing_checks, open_node_reports
from khala.adapters.sockets import open_acceptor
from khala.adapters.sync_tokens import JwksTokenVerifier
from khala.adapters.websocket_adapters import make_peer
from khala.adapters.websocket_sansio import NO_PROXIES
from khala.core.counters import NodeCounters
from khala.core.origin_policy import ExactOrigins
from khala.core.protocol import ClientBuilds
from khala.core.ranges import RangeCache
from khala_contracts.fanout_records import RecordVerifier
from khala_service import failpoints
from khala_service.adapters.http_client import open_service_client
from khala_service.admin_routes import AdminToken
from khala_service.client_address import TrustedProxies
from khala_service.http_edge import serve
from khala_service.identifiers import SystemClock, SystemIds, SystemRng
from khala_service.live_limits import LimitChange, TakesEffect, take_over
from khala_service.logs import bind_log_context
from khala_service.metrics import MetricsRegistry
from khala_service.readiness import Readiness, make_drain_check
from khala_service.reloading import reloadable, reloadable_config
from khala_service.tls import TlsFiles, open_tls, trust

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fanout_drivers.base import FanoutDriver
    from khala.actors.connection import Connection
    from khala.adapters.sockets import SocketAcceptor
    from khala.adapters.websocket_adapters import WebSocketAdapter
    from khala.core.limits import NodeLimits
    from khala.ports import (
        ByteTransport,
        Clock,
        ControlClient,
        Ids,
        JournalReader,
        Rng,
        TokenVerifier,
        WebSocketPeer,
    )
    from khala_service.readiness import ReadyCheck

__all__ = [
    "SECTION",
    "EngineAcceptor",
    "NodeConfig",
    "NodeEndpoints",
    "NodeParts",
    "run_engine",
    "serve_engine",
    "serve_node",
]


@attrs.frozen
class NodeEndpoints:
    """Where a started node listens."""

    node_id: str
    port: int
    admin_port: int


class EngineAcceptor(Acceptor, Protocol):
    """Where the clients of an engine come from: a listening socket, or a simulated one."""

    # Bound of the kernel's buffer of each connection that is accepted from now on.
    send_buffer_bytes: int

    @property
    def port(self) -> int:
        """The port that it listens on."""


@attrs.frozen(kw_only=True)
class NodeParts:
    """What the engine of a node is made of; a benchmark or a simulation brings its own."""

    journal: JournalReader
    tokens: TokenVerifier
    control: ControlClient
    driver: FanoutDriver
    fanout_keys: dict[str, bytes]
    clock: Clock = attrs.field(factory=SystemClock)
    rng: Rng = attrs.field(factory=SystemRng)
    ids: Ids = attrs.field(factory=SystemIds)
    # None: hellos are served from the start.
    gate: StartGate | None = None
    # None: nothing is ever revoked.
    evictions: Evictions | None = None
    # None: decisions about access are reported to nobody.
    audit: AccessAudit | None = None
    # None: nobody asks how topics and subscriptions do.
    looks: FanoutLooks | None = None
    # Which clients are too old.
    builds: ClientBuilds = attrs.field(factory=ClientBuilds)


async def serve_engine(
    parts: NodeParts,
    *,
    node_id: str,
    host: str,
    port: int,
    limits: NodeLimits,
    cors_origins: tuple[str, ...],
    counters: NodeCounters,
    drain: trio.Event,
    proxies: TrustedProxies = NO_PROXIES,
    tls: TlsFiles | None = None,
    websocket_adapter: WebSocketAdapter = "websockets",
    is_port_shared: bool = False,
    task_status: trio.TaskStatus[tuple[int, TopicRegistry]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve WebSocket clients until ``drain`` is set and they have left.

    Raises:
        OSError: The address cannot be bound.
        ConfigRefused: The files of ``tls`` hold no certificate with its key.
    Cancellation: every connection is dropped at once.
    """
    with _listening(host, port, limits=limits, tls=tls, is_port_shared=is_port_shared) as acceptor:
        await run_engine(
            parts,
            node_id=node_id,
            acceptor=acceptor,
            limits=limits,
            cors_origins=cors_origins,
            counters=counters,
            drain=drain,
            proxies=proxies,
            websocket_adapter=websocket_adapter,
            task_status=task_status,
        )


async def run_engine(
    parts: NodeParts,
    *,
    node_id: str,
    acceptor: EngineAcceptor,
    limits: NodeLimits,
    cors_origins: tuple[str, ...],
    counters: NodeCounters,
    drain: trio.Event,
    proxies: TrustedProxies = NO_PROXIES,
    websocket_adapter: WebSocketAdapter = "websockets",
    task_status: trio.TaskStatus[tuple[int, TopicRegistry]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve whoever ``acceptor`` accepts until ``drain`` is set and they have left.

    Started with the acceptor's port and the topics. Cancellation: every connection is dropped at once.
    """
    log = NodeLog()
    supervisor = Supervisor(counters, log)
    async with parts.driver.open_subscriber() as subscriber, trio.open_nursery() as services:
        reads = PageReads(
            parts.journal,
            readers_max=limits.journal_readers_max,
            counters=counters,
            supervisor=supervisor,
        )
        pages = PageReader(
            services,
            reads=reads,
            limits=limits,
            counters=counters,
            supervisor=supervisor,
            rng=parts.rng,
        )
        ranges = RangeCache(limits.shared_ranges_max_bytes)
        topics = TopicRegistry(
            services,
            subscriber=subscriber,
            verifier=RecordVerifier(parts.fanout_keys),
            journal=parts.journal,
            reads=reads,
            pages=pages,
            ranges=ranges,
            limits=limits,
            counters=counters,
            supervisor=supervisor,
            revocations_hinted=None if parts.evictions is None else parts.evictions.hint,
        )
        observations = GroupedObservations(parts.journal, counters=counters)
        commands = ClientCommands(
            node_id=node_id,
            limits=limits,
            counters=counters,
            clock=parts.clock,
            tokens=parts.tokens,
            control=parts.control,
            observations=observations,
            topics=topics,
            gate=parts.gate,
            evictions=parts.evictions,
            audit=parts.audit,
            builds=parts.builds,
        )

        def open_peer(transport: ByteTransport, connection: Connection) -> WebSocketPeer:
            return make_peer(
                websocket_adapter,
                transport,
                connection,
                message_max_bytes=limits.inbound_message_max_bytes,
                proxies=proxies,
            )

        listener = Listener(
            limits=limits,
            counters=counters,
            ids=parts.ids,
            rng=parts.rng,
            commands=commands,
            origin_policy=ExactOrigins(frozenset(cors_origins)),
            make_peer=open_peer,
            supervisor=supervisor,
            log=log,
            audit=parts.audit,
        )

        if parts.evictions is not None:
            parts.evictions.watch(listener.connections)
        if parts.looks is not None:
            parts.looks.watch(listener.connections)

        async def sweep() -> None:
            await run_sweeper(
                listener.connections,
                limits=limits,
                counters=counters,
                clock=parts.clock,
                evictions=parts.evictions,
            )

        observer = DeliveryObserver(
            listener.connections, counters=counters, read_pages_bytes=lambda: pages.held_bytes
        )

        def take_over_copies() -> None:
            # Everybody else reads the limits themselves when they need them.
            acceptor.send_buffer_bytes = limits.send_buffer_bytes
            ranges.resize(limits.shared_ranges_max_bytes)

        topics.start()
        for _ in range(WORKERS):
            services.start_soon(supervisor.run_restarted, "observations", "observations", observations.run)
        services.start_soon(supervisor.run_restarted, "sweep", "sweep", sweep)
        services.start_soon(supervisor.run_restarted, "observer", "observer", observer.run)
        task_status.started((acceptor.port, topics))
        with reloadable("node.engine", take_over_copies):
            await listener.serve(acceptor, drain)
        services.cancel_scope.cancel()


@contextmanager
def _listening(
    host: str, port: int, *, limits: NodeLimits, tls: TlsFiles | None, is_port_shared: bool
) -> Iterator[SocketAcceptor]:
    with open_tls(tls) as side:
        acceptor = open_acceptor(
            host,
            port,
            send_buffer_bytes=limits.send_buffer_bytes,
            tls=None if side is None else side.context,
            is_port_shared=is_port_shared,
        )
        try:
            yield acceptor
        finally:
            acceptor.close()


async def serve_node(
    config: NodeConfig,
    *,
    driver: FanoutDriver,
    drain: trio.Event | None = None,
    reread: Callable[[], NodeConfig] | None = None,
    task_status: trio.TaskStatus[NodeEndpoints] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve one node; start it with ``nursery.start`` inside ``open_asyncio_loop``.

    Args:
        config: Validated configuration.
        driver: The fan-out driver that the composition root chose.
        drain: Set it to let clients leave within ``drain_timeout_s``; cancelling drops them.
        reread: Reads the configuration again for a reload of limits and minimum build; None: never.
        task_status: Started with the bound ports once clients can connect.

    Raises:
        OSError: An address cannot be bound.
    """
    if config.mode == "dev":
        failpoints.arm(config.failpoints, hit_file=config.failpoint_file)
    # An object of our own: what it holds is what is in force, and a reload changes it.
    limits, builds = attrs.evolve(config.limits), ClientBuilds(config.min_build_id)

    def apply(wanted: NodeConfig) -> tuple[LimitChange, ...]:
        changes = take_over(limits, wanted.limits)
        old, builds.min_build_id = builds.min_build_id, wanted.min_build_id
        if old == wanted.min_build_id:
            return changes
        return (*changes, LimitChange("min_build_id", old, wanted.min_build_id, TakesEffect.AT_ONCE))

    ids = SystemIds()
    node_id = config.node_id or ids.new("nod")
    bind_log_context(service="node", node=node_id)
    counters = NodeCounters()
    draining = drain if drain is not None else trio.Event()
    with reloadable_config(SECTION, config, reread, live=("limits", "min_build_id"), apply=apply):
        await _serve_configured(
            config,
            limits=limits,
            builds=builds,
            node_id=node_id,
            ids=ids,
            counters=counters,
            driver=driver,
            draining=draining,
            task_status=task_status,
        )


async def _serve_configured(
    config: NodeConfig,
    *,
    limits: NodeLimits,
    builds: ClientBuilds,
    node_id: str,
    ids: SystemIds,
    counters: NodeCounters,
    driver: FanoutDriver,
    draining: trio.Event,
    task_status: trio.TaskStatus[NodeEndpoints],
) -> None:
    verify = trust(SECTION, config.tls_ca)
    keys = JwksTokenVerifier(HttpKeySource(config.control_url, verify=verify))
    async with (
        open_journal_reader(config.database_dsn, limits) as journal,
        open_service_client(
            config.control_url, peer="control", credential=config.service_credential, verify=verify
        ) as control_client,
        open_node_reports(
            config.runtime_url,
            credential=config.service_credential,
            verify=verify,
            node_id=node_id,
            ids=ids,
            clock=SystemClock(),
        ) as reports,
        trio.open_nursery() as services,
    ):
        supervisor = Supervisor(counters, NodeLog())
        control = HttpControlClient(control_client, node_id)
        services.start_soon(supervisor.run_restarted, "control_client", "control_client", control.run)
        evictions = Evictions(control, limits=limits, counters=counters, clock=SystemClock(), rng=SystemRng())
        services.start_soon(
            supervisor.run_restarted, "revocation_feed", "revocation_feed", evictions.feed.run
        )
        audit = AccessAudit(
            control, limits=limits, counters=counters, clock=SystemClock(), ids=ids, rng=SystemRng()
        )
        services.start_soon(supervisor.run_restarted, "access_audit", "access_audit", audit.run)
        watch = DriverWatch(driver, is_needed_at_start=True)
        needed = {
            "journal": journal.check,
            "control_keys": keys.check,
            "revocations": evictions.check,
            "fanout": watch.check,
        }
        gate = StartGate(needed, rng=SystemRng())
        looks = FanoutLooks()
        parts = NodeParts(
            journal=journal,
            tokens=keys,
            control=control,
            driver=driver,
            fanout_keys={k: bytes.fromhex(v.reveal()) for k, v in config.fanout_keys.items()},
            ids=ids,
            gate=gate,
            evictions=evictions,
            audit=audit,
            looks=looks,
            builds=builds,
        )
        reporter: NodeReporter | None = None
        if reports is not None:
            reporter = NodeReporter(
                reports,
                looks,
                counters=counters,
                draining=draining,
                read_checks=partial(failing_checks, Readiness(needed)),
            )
        async with trio.open_nursery() as engine:

            async def run_engine(
                task_status: trio.TaskStatus[tuple[int, TopicRegistry]],
            ) -> None:
                await serve_engine(
                    parts,
                    node_id=node_id,
                    host=config.host,
                    port=config.port,
                    limits=limits,
                    cors_origins=config.cors_origins,
                    proxies=TrustedProxies.of(config.trusted_proxies),
                    counters=counters,
                    drain=draining,
                    tls=TlsFiles.of(SECTION, config.tls_cert, config.tls_key),
                    websocket_adapter=config.websocket_adapter,
                    is_port_shared=config.reuse_port,
                    task_status=task_status,
                )

            async def say_not_ready() -> None:
                # Who probes the admin port sees it before the port is gone.
                await draining.wait()
                await trio.sleep(config.drain_notice_s)

            engine.start_soon(say_not_ready)
            port, topics = await engine.start(run_engine)
            metrics = MetricsRegistry("node")
            watch_node(
                metrics,
                counters,
                topics,
                limits,
                pools=journal.pools,
                driver=watch,
                evictions=evictions,
                audit=audit,
            )
            checks = {"draining": make_drain_check(draining), **needed}
            admin_port = await services.start(
                partial(_serve_admin, config, metrics, checks, node_id=node_id, topics=topics)
            )
            # Where everything is there already, who was told of the ports is not turned away.
            await gate.ask()
            services.start_soon(supervisor.run_restarted, "start_gate", "start_gate", gate.run)
            if reporter is not None:
                services.start_soon(supervisor.run_restarted, "node_reporter", "node_reporter", reporter.run)
            task_status.started(NodeEndpoints(node_id, port, admin_port))
        async with trio.open_nursery() as last_words:
            last_words.start_soon(audit.say_last_words)
            if reporter is not None:
                last_words.start_soon(reporter.say_last_words)
        services.cancel_scope.cancel()


async def _serve_admin(
    config: NodeConfig,
    metrics: MetricsRegistry,
    checks: Mapping[str, ReadyCheck],
    *,
    node_id: str,
    topics: TopicRegistry,
    task_status: trio.TaskStatus[int],
) -> None:
    app = make_admin_app(config, metrics=metrics, ready_checks=checks)
    if config.admin_token is not None:
        token = AdminToken(config.admin_token)
        add_explain_route(app, token, node_id=node_id, topics=topics, clock=SystemClock())
    await serve(
        app,
        host=config.admin_host,
        port=config.admin_port,
        shutdown=trio.Event(),
        task_status=task_status,
    )
