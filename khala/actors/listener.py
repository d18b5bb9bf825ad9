"""Accepts sockets, admits them at a bounded rate, and owns the nursery of connections.

Admission comes first because it is the cheapest place to refuse (core/admission.py): whoever is turned away is
told ``rate_limited`` with a time of its own to return, in words or by HTTP 429, and its token is unspent.

When the node leaves it stops listening and sees its clients off (actors/departing.py). Invariant: from the step that
accepted it to its end a client is in ``connections``, so that nobody is there of whom the drain does not know.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import trio

from khala.actors.connection import Connection
from khala.actors.departing import Departing
from khala.core.admission import Admission, Admitted, TurnedAway
from khala.core.in_flight import InFlight
from khala.ports import TransportBrokenError
from khala_contracts import codec, reason_codes, strict_json
from khala_contracts.codec import ErrorMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala.actors.access_audit import AccessAudit
    from khala.actors.actor_ports import CommandRunner
    from khala.actors.supervision import Supervisor
    from khala.core.counters import NodeCounters
    from khala.core.limits import NodeLimits
    from khala.ports import ByteTransport, Ids, OriginPolicy, Rng, WebSocketPeer

# Enough for a client to read a refusal before the socket goes.
REFUSAL_LINGER_S: Final = 0.5
# How long a handshake keeps its place while others wait for one. Shorter: a phone on a bad network never gets
# in. Longer: fewer silent sockets are enough to keep everybody out.
PLACE_KEPT_S: Final = 1.0


class Acceptor(Protocol):
    """The listening socket."""

    async def accept(self) -> ByteTransport:
        """Return the next connected client. Cancellation: safe; nobody is accepted."""

    def stop(self) -> list[ByteTransport]:
        """Stop listening: whoever connects from now on is refused at once, and tries another node.

        Returns:
            Who was connected already and has not been accepted; closing would drop them without a word.
        """


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
        rng: Rng,
        commands: CommandRunner[Connection],
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
        self._rng = rng
        self._commands = commands
        self._origin_policy = origin_policy
        self._make_peer = make_peer
        self._supervisor = supervisor
        self._log = log
        self._audit = audit
        # In the order of their coming; the values mean nothing.
        self.connections: dict[Connection, None] = {}
        self._in_flight = InFlight(limits)
        self._admission = Admission(limits, now=trio.current_time())
        # Admitted connections in the order of their coming. Invariant: whoever has not said hello is in it.
        self._greeting: deque[Connection] = deque()
        # Connections that are told that they may not enter.
        self._telling = 0
        # Clients that were refused barely, with the time at which their sockets are closed; ascending.
        self._refused: deque[tuple[float, ByteTransport]] = deque()
        self._has_refused = trio.Event()
        # There while the node leaves.
        self._departing: Departing | None = None

    async def serve(self, acceptor: Acceptor, drain: trio.Event) -> None:
        """Accept until ``drain`` is set, then let the connections leave, then return.

        That takes ``drain_timeout_s`` at most. Cancellation: every connection is dropped at once.
        """
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(self._accept, acceptor, connections)
                accepting.start_soon(self._end_refused)
                await drain.wait()
                accepting.cancel_scope.cancel()
            connections.cancel_scope.deadline = trio.current_time() + self._limits.drain_timeout_s
            for transport in acceptor.stop():
                # Admission is not for them: who is told to go takes no place.
                self._start(connections, transport)
            self._departing = Departing(self.connections.keys(), limits=self._limits, rng=self._rng)
            await self._departing.run()

    async def _accept(self, acceptor: Acceptor, connections: trio.Nursery) -> None:
        while True:
            transport = await acceptor.accept()
            self._take_back_a_place()
            verdict = self._admission.decide(
                trio.current_time(), handshakes_open=self._counters.handshakes_open, telling=self._telling
            )
            match verdict:
                case Admitted():
                    self._start(connections, transport)
                case TurnedAway(is_told=True):
                    self._telling += 1
                    self._start(connections, transport, verdict)
                case TurnedAway():
                    self._refuse(transport, verdict)

    def _take_back_a_place(self) -> None:
        """Where every place is taken, end the handshake that has said nothing for longest, if that is long.

        Without this, whoever opens as many sockets as there are places, and says nothing, shuts the door for
        everybody until the hello deadline.
        """
        waiting, limits = self._greeting, self._limits
        while waiting and not waiting[0].is_greeting:
            waiting.popleft()
        if not waiting or self._counters.handshakes_open < limits.handshakes_max:
            return
        now = trio.current_time()
        if now - waiting[0].opened_at >= PLACE_KEPT_S:
            waiting.popleft().close(
                reason_codes.RATE_LIMITED,
                limits.name_limit("handshakes_max"),
                retry_after_ms=self._admission.give_turn_ms(now),
            )

    def _refuse(self, transport: ByteTransport, turned_away: TurnedAway) -> None:
        """Refuse without having read anything, and without a task: of a storm there are thousands."""
        self._counters.handshakes_rejected[str(reason_codes.RATE_LIMITED.http_status)] += 1
        self._counters.limit_violations[turned_away.limit] += 1
        if self._audit is not None:
            value = str(getattr(self._limits, turned_away.limit))
            self._audit.limit_exceeded(None, turned_away.limit, reason_codes.RATE_LIMITED, value)
        try:
            transport.try_send(_refusal_of(turned_away))
        except TransportBrokenError:
            # It has gone already.
            transport.abort()
            return
        self._refused.append((trio.current_time() + REFUSAL_LINGER_S, transport))
        self._has_refused.set()

    async def _end_refused(self) -> None:
        """Close the sockets of those who were refused, each after its client could read why."""
        try:
            while True:
                while self._refused:
                    await trio.sleep_until(self._refused[0][0])
                    self._refused.popleft()[1].abort()
                self._has_refused = trio.Event()
                await self._has_refused.wait()
        finally:
            while self._refused:
                self._refused.popleft()[1].abort()

    def _start(
        self, connections: trio.Nursery, transport: ByteTransport, turned_away: TurnedAway | None = None
    ) -> None:
        """Make the connection of an accepted client and serve it.

        Race: the node is asked to leave between accepting a client and the first step of its task.
          accept:  accept() ... start_soon(serve)                    serve begins
          drain:                                  tell everybody
        So it is in ``connections`` from here on, and not from the first step of its task.
        """
        connection = Connection(
            self._ids.new("con"),
            transport=transport,
            limits=self._limits,
            counters=self._counters,
            commands=self._commands,
            origin_policy=self._origin_policy,
            supervisor=self._supervisor,
            in_flight=self._in_flight,
            audit=self._audit,
            turned_away=turned_away,
        )
        self.connections[connection] = None
        self._counters.connections_open = len(self.connections)
        connections.start_soon(self._serve_one, connection, transport, turned_away)

    async def _serve_one(
        self, connection: Connection, transport: ByteTransport, turned_away: TurnedAway | None
    ) -> None:
        if turned_away is None:
            self._counters.connections_accepted += 1
            self._greeting.append(connection)
            self._log.connection_opened(connection)
        try:
            await connection.serve(self._make_peer(transport, connection))
        except Exception as exc:  # noqa: BLE001 - what a connection could not contain by itself
            self._supervisor.note_crash("connection", connection.connection_id, exc)
        finally:
            del self.connections[connection]
            self._counters.connections_open = len(self.connections)
            if turned_away is None:
                self._log.connection_closed(connection)
            else:
                self._telling -= 1
            if self._departing is not None:
                self._departing.note_left()


def _refusal_of(turned_away: TurnedAway) -> bytes:
    """Return the whole answer of HTTP, with the error that every refusal has."""
    said = ErrorMessage.of(
        reason_codes.RATE_LIMITED,
        details={"limit": turned_away.limit},
        retry_after_ms=turned_away.retry_after_ms,
    )
    body = strict_json.print_json(codec.error_to_wire(said)).encode()
    return (
        b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nRetry-After: %d\r\n\r\n%b"
    ) % (len(body), -(-turned_away.retry_after_ms // 1000), body)
