"""A listener on virtual time, with scripted clients instead of a socket."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from khala.actors.listener import Listener
from khala.actors.supervision import Supervisor
from khala.core.counters import NodeCounters
from khala.core.limits import NodeLimits
from khala.core.origin_policy import ExactOrigins
from khala_contracts.codec import encode_client_message
from tests.actors.khala.fake_control import CountingIds, FixedRng
from tests.actors.khala.node_under_test import hello_with
from tests.actors.khala.scripted_peer import ScriptedPeer
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.topic_log import claims_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from khala.actors.connection import Connection
    from khala.core.origin_policy import UpgradeRequest
    from khala.core.protocol import Command
    from khala.ports import ByteTransport


@attrs.define(eq=False)
class QueueAcceptor:
    """A listening socket whose clients the test makes."""

    _send: trio.MemorySendChannel[SimulatedTransport]
    _receive: trio.MemoryReceiveChannel[SimulatedTransport]

    @classmethod
    def with_backlog(cls, backlog: int = 1_000) -> QueueAcceptor:
        """Listen."""
        return cls(*trio.open_memory_channel[SimulatedTransport](backlog))

    def connect(self, transport: SimulatedTransport | None = None) -> SimulatedTransport:
        """Connect a client."""
        transport = transport or SimulatedTransport()
        self._send.send_nowait(transport)
        return transport

    async def accept(self) -> ByteTransport:
        """Return the next client; see Acceptor."""
        return await self._receive.receive()

    def stop(self) -> list[ByteTransport]:
        """Return who waits, and nobody from now on; see Acceptor."""
        waiting: list[ByteTransport] = []
        with suppress(trio.WouldBlock):
            while True:
                waiting.append(self._receive.receive_nowait())
        return waiting


@attrs.define
class Welcoming:
    """Runs commands: whoever says hello is welcome, and a second command is a bug of ours."""

    commands_run: int = 0

    async def run(self, connection: Connection, command: Command) -> None:
        """Welcome, or crash."""
        await trio.lowlevel.checkpoint()
        assert command is not None
        self.commands_run += 1
        if connection.claims is not None:
            raise ZeroDivisionError
        connection.welcome(claims_for())


@attrs.define
class CrashLog:
    """Remembers contained crashes."""

    crashed: list[str] = attrs.field(factory=list)

    def task_crashed(
        self, kind: str, name: str, exc: BaseException, *, restart_in_s: float | None = None
    ) -> None:
        """Remember it; see CrashLog of the supervision."""
        assert kind == "connection"
        self.crashed.append(name)


@attrs.define
class LifeLog:
    """Remembers which connections were opened, and how each ended."""

    opened: list[str] = attrs.field(factory=list)
    closed: list[tuple[str, str]] = attrs.field(factory=list)

    def connection_opened(self, connection: Connection) -> None:
        """Remember it; see ConnectionLog."""
        self.opened.append(connection.connection_id)

    def connection_closed(self, connection: Connection) -> None:
        """Remember it; see ConnectionLog."""
        self.closed.append((connection.connection_id, connection.ended_as))


@attrs.define(eq=False)
class ListenerUnderTest:
    """A listener with its clients' ends."""

    listener: Listener
    acceptor: QueueAcceptor
    counters: NodeCounters
    log: CrashLog
    lives: LifeLog
    drain: trio.Event
    peers: dict[ByteTransport, ScriptedPeer]
    # What clients ask for, by the order of their coming, where that is not the usual upgrade.
    requests: dict[int, UpgradeRequest | None]
    has_returned: bool = False

    async def connect(self, *, says_hello: bool = True) -> SimulatedTransport:
        """Connect, and say hello unless told otherwise."""
        transport = self.acceptor.connect()
        await wait_all_tasks_blocked()
        if says_hello and transport in self.peers:
            self.peers[transport].say(encode_client_message(hello_with("t")))
            await wait_all_tasks_blocked()
        return transport


@asynccontextmanager
async def open_listener(limits: NodeLimits | None = None) -> AsyncIterator[ListenerUnderTest]:
    """Run a listener."""
    limits = limits or NodeLimits()
    counters, log, lives = NodeCounters(), CrashLog(), LifeLog()
    peers: dict[ByteTransport, ScriptedPeer] = {}
    requests: dict[int, UpgradeRequest | None] = {}

    def make_peer(transport: ByteTransport, connection: Connection) -> ScriptedPeer:
        peer = ScriptedPeer(connection.emit)
        peer.request = requests.get(len(peers), peer.request)
        peers[transport] = peer
        return peer

    listener = Listener(
        limits=limits,
        counters=counters,
        ids=CountingIds(),
        rng=FixedRng(0.5),
        commands=Welcoming(),
        origin_policy=ExactOrigins(frozenset()),
        make_peer=make_peer,
        supervisor=Supervisor(counters, log),
        log=lives,
    )
    under_test = ListenerUnderTest(
        listener, QueueAcceptor.with_backlog(), counters, log, lives, trio.Event(), peers, requests
    )

    async def listen() -> None:
        await listener.serve(under_test.acceptor, under_test.drain)
        under_test.has_returned = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        yield under_test
        nursery.cancel_scope.cancel()
