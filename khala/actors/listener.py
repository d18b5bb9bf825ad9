"""Accepts sockets, admits them at a bounded rate, and owns the nursery of connections.

Admission comes first because it is the cheapest place to refuse: a socket above the rate gets an
HTTP 503 with a ``Retry-After`` spread over the queue, and its token is unspent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio

from khala.actors.connection import Connection
from khala.core.rate_limit import TokenBucket
from khala_contracts import reason_codes

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala.actors.access_audit import AccessAudit
    from khala.actors.connection import CommandRunner
    from khala.actors.supervision import Supervisor
    from khala.core.counters import NodeCounters
    from khala.core.limits import NodeLimits
    from khala.ports import ByteTransport, Ids, OriginPolicy, WebSocketPeer

# Enough for a client to read a refusal before the socket goes.
REFUSAL_LINGER_S: Final = 0.5


class Acceptor(Protocol):
    """The listening socket."""

    async def accept(self) -> ByteTransport:
        """Return the next connected client. Cancellation: safe; nobody is accepted."""


class ConnectionLog(Protocol):
    """Where the life of a connection is reported; called by the task that serves it."""

    def connection_opened(self, connection: Connection) -> None:
        """Say that a client was admitted; it has not said anything yet."""

    def connection_closed(self, connection: Connection) -> None:
        """Say that a connection has ended, and why."""


class Listener:
    """The connections of one node."""

    def __init__(
        self,
        *,
        limits: NodeLimits,
        counters: NodeCounters,
        ids: Ids,
        commands: CommandRunner,
        origin_policy: OriginPolicy,
        make_peer: Callable[[ByteTransport, Connection], WebSocketPeer],
        supervisor: Supervisor,
        log: ConnectionLog,
        audit: AccessAudit | None = None,
    ) -> None:
        """Serve clients of ``commands`` through peers that ``make_peer`` makes."""
        self._limits = limits
        self._counters = counters
        self._ids = ids
        self._commands = commands
        self._origin_policy = origin_policy
        self._make_peer = make_peer
        self._supervisor = supervisor
        self._log = log
        self._audit = audit
        self.connections: set[Connection] = set()
        self._admission = TokenBucket.full(
            limits.admission_per_s, limits.admission_burst, now=trio.current_time()
        )

    async def serve(self, acceptor: Acceptor, drain: trio.Event) -> None:
        """Accept until ``drain`` is set, then let the connections leave, then return.

        Cancellation: every connection is dropped at once.
        """
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(self._accept, acceptor, connections)
                await drain.wait()
                accepting.cancel_scope.cancel()
            connections.cancel_scope.deadline = trio.current_time() + self._limits.drain_timeout_s
            for connection in tuple(self.connections):
                connection.close(reason_codes.DRAINING)

    async def _accept(self, acceptor: Acceptor, connections: trio.Nursery) -> None:
        while True:
            transport = await acceptor.accept()
            if self._may_enter():
                connections.start_soon(self._serve_one, transport)
            else:
                connections.start_soon(self._refuse, transport)

    def _may_enter(self) -> bool:
        has_place = self._counters.handshakes_open < self._limits.handshakes_max
        return has_place and self._admission.take(trio.current_time())

    async def _refuse(self, transport: ByteTransport) -> None:
        self._counters.handshakes_rejected["503"] += 1
        retry_after_s = max(1, round(self._admission.wait_s()))
        try:
            transport.try_send(
                b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n"
                b"Retry-After: %d\r\n\r\n" % retry_after_s
            )
            await trio.sleep(REFUSAL_LINGER_S)
        finally:
            transport.abort()

    async def _serve_one(self, transport: ByteTransport) -> None:
        connection = Connection(
            self._ids.new("con"),
            transport=transport,
            limits=self._limits,
            counters=self._counters,
            commands=self._commands,
            origin_policy=self._origin_policy,
            supervisor=self._supervisor,
            audit=self._audit,
        )
        self.connections.add(connection)
        self._counters.connections_accepted += 1
        self._counters.connections_open = len(self.connections)
        self._log.connection_opened(connection)
        try:
            await connection.serve(self._make_peer(transport, connection))
        except Exception as exc:  # noqa: BLE001 - what a connection could not contain by itself
            self._supervisor.note_crash("connection", connection.connection_id, exc)
        finally:
            self.connections.discard(connection)
            self._counters.connections_open = len(self.connections)
            self._log.connection_closed(connection)
