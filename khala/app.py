"""Composition of one node: adapters into ports, services above connections above accepting.

Leaving the blocks is the order of shutdown: accepting stops first, connections drain, then the
position check, the record pump and the pools end. Nothing here decides anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from khala.actors.commands import ClientCommands
from khala.actors.listener import Listener
from khala.actors.registry import TopicRegistry
from khala.actors.replay import PageReader
from khala.actors.sweeper import run_sweeper
from khala.adapters.control_http import HttpControlClient, HttpKeySource
from khala.adapters.metrics import NodeCollector
from khala.adapters.postgres.journal import open_journal_reader
from khala.adapters.sockets import open_acceptor
from khala.adapters.sync_tokens import JwksTokenVerifier
from khala.adapters.websocket_sansio import SansIoPeer
from khala.core.counters import NodeCounters
from khala.core.limits import NodeLimits
from khala.core.origin_policy import ExactOrigins
from khala.core.ranges import RangeCache
from khala_contracts.fanout_records import RecordVerifier
from khala_service.adapters.http_client import open_service_client
from khala_service.config import Secret, described
from khala_service.http_edge import make_app, serve
from khala_service.identifiers import SystemClock, SystemIds, SystemRng
from khala_service.logs import get_logger
from khala_service.metrics import MetricsRegistry

if TYPE_CHECKING:
    from fanout_drivers.base import FanoutDriver
    from khala.actors.connection import Connection
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

_log = get_logger("khala.node")


@attrs.frozen(kw_only=True)
class NodeConfig:
    """Configuration of one node; section ``node``."""

    database_dsn: Secret = attrs.field(metadata=described("DSN of the role khala_reader."))
    control_url: str = attrs.field(metadata=described("Base URL of control."))
    service_credential: Secret = attrs.field(
        metadata=described("Credential with which this node calls control.")
    )
    fanout_keys: dict[str, Secret] = attrs.field(
        metadata=described("Keys of the record MAC by key id, in hexadecimal.")
    )
    host: str = attrs.field(default="127.0.0.1", metadata=described("Address of the WebSocket listener."))
    port: int = attrs.field(
        default=8473, metadata=described("Port of the WebSocket listener; 0 takes a free one.")
    )
    admin_host: str = attrs.field(default="127.0.0.1", metadata=described("Address of health and metrics."))
    admin_port: int = attrs.field(
        default=8474, metadata=described("Port of health and metrics; 0 takes a free one.")
    )
    node_id: str = attrs.field(
        default="", metadata=described("Name in welcome and logs; empty: made at start.")
    )
    allowed_origins: tuple[str, ...] = attrs.field(
        default=(), metadata=described("Origins whose pages may connect, as browsers send them.")
    )
    limits: NodeLimits = attrs.field(factory=NodeLimits)


@attrs.frozen
class NodeEndpoints:
    """Where a started node listens."""

    node_id: str
    port: int
    admin_port: int


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


class _NodeLog:
    """Reports contained crashes."""

    def topic_crashed(self, topic: str, restart_in_s: float, exc: BaseException) -> None:
        """Report a crash of one topic's task."""
        _log.error("topic_crashed", topic=topic, restart_in_s=restart_in_s, exc_info=exc)

    def connection_crashed(self, connection_id: str, exc: BaseException) -> None:
        """Report a crash inside one connection."""
        _log.error("connection_crashed", connection_id=connection_id, exc_info=exc)


async def serve_engine(
    parts: NodeParts,
    *,
    node_id: str,
    host: str,
    port: int,
    limits: NodeLimits,
    allowed_origins: tuple[str, ...],
    counters: NodeCounters,
    drain: trio.Event,
    task_status: trio.TaskStatus[tuple[int, TopicRegistry]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve WebSocket clients until ``drain`` is set and they have left.

    Raises:
        OSError: The address cannot be bound.
    Cancellation: every connection is dropped at once.
    """
    log = _NodeLog()
    acceptor = open_acceptor(host, port, send_buffer_bytes=limits.send_buffer_bytes)
    try:
        async with parts.driver.open_subscriber() as subscriber, trio.open_nursery() as services:
            pages = PageReader(
                services, journal=parts.journal, limits=limits, counters=counters, rng=parts.rng
            )
            topics = TopicRegistry(
                services,
                subscriber=subscriber,
                verifier=RecordVerifier(parts.fanout_keys),
                journal=parts.journal,
                pages=pages,
                ranges=RangeCache(limits.shared_ranges_max_bytes),
                limits=limits,
                counters=counters,
                log=log,
            )
            commands = ClientCommands(
                node_id=node_id,
                limits=limits,
                counters=counters,
                clock=parts.clock,
                tokens=parts.tokens,
                control=parts.control,
                journal=parts.journal,
                topics=topics,
            )

            def make_peer(transport: ByteTransport, connection: Connection) -> WebSocketPeer:
                return SansIoPeer(
                    transport,
                    connection.emit,
                    message_max_bytes=limits.inbound_message_max_bytes,
                )

            listener = Listener(
                limits=limits,
                counters=counters,
                ids=parts.ids,
                commands=commands,
                origin_policy=ExactOrigins(frozenset(allowed_origins)),
                make_peer=make_peer,
                log=log,
            )
            services.start_soon(topics.run_pump)
            services.start_soon(topics.run_position_check)
            services.start_soon(topics.run_linger)
            services.start_soon(_sweep, listener, limits, counters, parts.clock)
            task_status.started((acceptor.port, topics))
            await listener.serve(acceptor, drain)
            services.cancel_scope.cancel()
    finally:
        acceptor.close()


async def _sweep(listener: Listener, limits: NodeLimits, counters: NodeCounters, clock: Clock) -> None:
    await run_sweeper(listener.connections, limits=limits, counters=counters, clock=clock)


async def serve_node(
    config: NodeConfig,
    *,
    driver: FanoutDriver,
    drain: trio.Event | None = None,
    task_status: trio.TaskStatus[NodeEndpoints] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve one node; start it with ``nursery.start`` inside ``open_asyncio_loop``.

    Args:
        config: Validated configuration.
        driver: The fan-out driver that the composition root chose.
        drain: Set it to let clients leave within ``drain_timeout_s``; cancelling drops them.
        task_status: Started with the bound ports once clients can connect.

    Raises:
        OSError: An address cannot be bound.
    """
    limits = config.limits
    ids = SystemIds()
    node_id = config.node_id or ids.new("nod")
    counters = NodeCounters()
    draining = drain if drain is not None else trio.Event()
    keys = JwksTokenVerifier(HttpKeySource(config.control_url))
    async with (
        open_journal_reader(config.database_dsn, limits) as journal,
        open_service_client(
            config.control_url, peer="control", credential=config.service_credential
        ) as control_client,
        trio.open_nursery() as services,
    ):
        control = HttpControlClient(control_client, node_id)
        services.start_soon(control.run)
        parts = NodeParts(
            journal=journal,
            tokens=keys,
            control=control,
            driver=driver,
            fanout_keys={k: bytes.fromhex(v.reveal()) for k, v in config.fanout_keys.items()},
            ids=ids,
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
                    allowed_origins=config.allowed_origins,
                    counters=counters,
                    drain=draining,
                    task_status=task_status,
                )

            port, topics = await engine.start(run_engine)
            admin_port = await services.start(
                _serve_admin, config, counters, topics, _ready_checks(journal.check, keys.check, draining)
            )
            task_status.started(NodeEndpoints(node_id, port, admin_port))
        services.cancel_scope.cancel()


def _ready_checks(journal: ReadyCheck, keys: ReadyCheck, draining: trio.Event) -> dict[str, ReadyCheck]:
    async def not_draining() -> str | None:
        return "draining" if draining.is_set() else None

    return {"draining": not_draining, "journal": journal, "control_keys": keys}


async def _serve_admin(
    config: NodeConfig,
    counters: NodeCounters,
    topics: TopicRegistry,
    checks: dict[str, ReadyCheck],
    *,
    task_status: trio.TaskStatus[int],
) -> None:
    metrics = MetricsRegistry("khala")
    metrics.register(
        NodeCollector(
            counters,
            {
                "windows_bytes": lambda: topics.windows_bytes,
                "position_check_age_seconds": lambda: trio.current_time() - topics.checked_at,
            },
        )
    )
    app = make_app("khala", metrics=metrics, ready_checks=checks)
    await serve(
        app,
        host=config.admin_host,
        port=config.admin_port,
        shutdown=trio.Event(),
        task_status=task_status,
    )
