"""Admission, containment and drain, with scripted clients instead of a socket."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from khala.actors.listener import PLACE_KEPT_S, Listener
from khala.actors.supervision import Supervisor
from khala.core.counters import NodeCounters
from khala.core.limits import NodeLimits
from khala.core.origin_policy import ExactOrigins
from khala_contracts.codec import ErrorMessage, Unsubscribe, encode_client_message
from khala_service.live_limits import take_over
from tests.actors.khala.fake_control import CountingIds
from tests.actors.khala.node_under_test import hello_with
from tests.actors.khala.scripted_peer import ScriptedPeer
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.actors.khala.wire_transcript import WireTranscript
from tests.topic_log import claims_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from khala.actors.connection import Connection
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

    def connect(self) -> SimulatedTransport:
        """Connect a client."""
        transport = SimulatedTransport()
        self._send.send_nowait(transport)
        return transport

    async def accept(self) -> ByteTransport:
        """Return the next client; see Acceptor."""
        return await self._receive.receive()


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
    counters, log, lives, peers = NodeCounters(), CrashLog(), LifeLog(), {}

    def make_peer(transport: ByteTransport, connection: Connection) -> ScriptedPeer:
        peers[transport] = ScriptedPeer(connection.emit)
        return peers[transport]

    listener = Listener(
        limits=limits,
        counters=counters,
        ids=CountingIds(),
        commands=Welcoming(),
        origin_policy=ExactOrigins(frozenset()),
        make_peer=make_peer,
        supervisor=Supervisor(counters, log),
        log=lives,
    )
    under_test = ListenerUnderTest(
        listener, QueueAcceptor.with_backlog(), counters, log, lives, trio.Event(), peers
    )

    async def listen() -> None:
        await listener.serve(under_test.acceptor, under_test.drain)
        under_test.has_returned = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        yield under_test
        nursery.cancel_scope.cancel()


def told(transport: SimulatedTransport) -> ErrorMessage:
    """Return the error that a client was told after its upgrade, before the close."""
    transcript = WireTranscript()
    error = transcript.feed(transport.take())[0]
    assert transcript.closed_with == 4003
    assert isinstance(error, ErrorMessage)
    return error


async def test_admission_at_its_burst(autojump_clock: MockClock) -> None:
    """admission_burst clients at once; one more is told rate_limited and when, and then there is room."""
    async with open_listener(NodeLimits(admission_burst=5, admission_per_s=2.0)) as under_test:
        admitted = [await under_test.connect() for _ in range(5)]
        refused = await under_test.connect(says_hello=False)
        error = told(refused)
        assert (error.code, error.retry_after_ms) == ("rate_limited", 500)
        assert error.details == {"limit": "admission_per_s", "max": "2.0"}
        assert refused.is_aborted
        assert under_test.counters.connections_open == 5
        assert under_test.counters.hellos_refused == {"rate_limited": 1}
        assert under_test.counters.limit_violations == {"admission_per_s": 1}
        await trio.sleep(0.5)
        await under_test.connect()
        assert under_test.counters.connections_open == 6
        assert not any(transport.is_aborted for transport in admitted)
        assert len(under_test.lives.opened) == 6


async def test_more_refusals_than_can_be_told(autojump_clock: MockClock) -> None:
    """Above the rate of refusals in words the answer is HTTP 429 at once, with the same error and a turn of its own."""
    async with open_listener(NodeLimits(admission_burst=2, admission_per_s=0.5)) as under_test:
        for _ in range(4):
            await under_test.connect()
        head, _, body = (await under_test.connect()).take().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: 6\r\n" in head + b"\r\n"
        error = json.loads(body)
        assert (error["code"], error["retry_after_ms"], error["details"]) == (
            "rate_limited",
            6_000,
            {"limit": "admission_per_s"},
        )
        assert under_test.counters.handshakes_rejected == {"429": 1}
        assert under_test.counters.limit_violations == {"admission_per_s": 3}


async def test_handshakes_at_once(autojump_clock: MockClock) -> None:
    """handshakes_max clients that have not said hello; one more is turned away until one has."""
    async with open_listener(NodeLimits(handshakes_max=3)) as under_test:
        waiting = [await under_test.connect(says_hello=False) for _ in range(3)]
        error = told(await under_test.connect(says_hello=False))
        assert (error.code, error.details["limit"]) == ("rate_limited", "handshakes_max")
        under_test.peers[waiting[0]].say(encode_client_message(hello_with("t")))
        await wait_all_tasks_blocked()
        welcome = await under_test.connect()
        assert not welcome.is_aborted
        assert under_test.counters.connections_accepted == 4


async def test_silent_sockets_do_not_shut_the_door(autojump_clock: MockClock) -> None:
    """All places taken by clients that say nothing: after a second the oldest gives way to whoever comes."""
    async with open_listener(NodeLimits(handshakes_max=3)) as under_test:
        silent = [await under_test.connect(says_hello=False) for _ in range(3)]
        await trio.sleep(PLACE_KEPT_S - 0.01)
        told(await under_test.connect(says_hello=False))
        assert not any(transport.is_aborted for transport in silent)
        await trio.sleep(0.01)
        welcome = await under_test.connect()
        assert not welcome.is_aborted
        assert told(silent[0]).details["limit"] == "handshakes_max"
        assert not any(transport.is_aborted for transport in silent[1:])
        assert under_test.counters.handshakes_open == 2


async def test_a_reload_counts_for_the_next_client(autojump_clock: MockClock) -> None:
    """KH-45: limits are read at each decision: a lower rate and fewer places refuse the next client."""
    limits = NodeLimits(admission_burst=100, handshakes_max=2)
    async with open_listener(limits) as under_test:
        await under_test.connect(says_hello=False)
        take_over(limits, NodeLimits(admission_burst=100, handshakes_max=1))
        assert told(await under_test.connect(says_hello=False)).details["max"] == "1"
        take_over(limits, NodeLimits(admission_burst=1, admission_per_s=0.001, handshakes_max=64))
        await under_test.connect()
        assert told(await under_test.connect(says_hello=False)).details["limit"] == "admission_per_s"


async def test_a_crash_ends_one_connection(autojump_clock: MockClock) -> None:
    """INV-9: a bug met by one client is logged and counted; the others stay and new ones are served."""
    async with open_listener() as under_test:
        healthy, doomed = await under_test.connect(), await under_test.connect()
        under_test.peers[doomed].say(encode_client_message(Unsubscribe(("x",))))
        await wait_all_tasks_blocked()
        assert doomed.is_aborted
        assert under_test.log.crashed == ["con_2"]
        assert under_test.counters.task_restarts == {"connection": 1}
        assert not healthy.is_aborted
        await under_test.connect()
        assert under_test.counters.connections_open == 2


async def test_drain(autojump_clock: MockClock) -> None:
    """Accepting stops, every client is closed with 4000, and serving ends once they have left."""
    async with open_listener() as under_test:
        clients = [await under_test.connect() for _ in range(3)]
        silent = await under_test.connect(says_hello=False)
        under_test.drain.set()
        await wait_all_tasks_blocked()
        for client in [*clients, silent]:
            transcript = WireTranscript()
            transcript.feed(client.take())
            assert transcript.closed_with == 4000
            assert client.is_aborted
        assert under_test.has_returned
        assert under_test.counters.connections_open == 0
        assert trio.current_time() == 0
        # Nobody is accepted any more.
        late = await under_test.connect()
        assert late.take() == b""


async def test_every_life_is_reported_once(autojump_clock: MockClock) -> None:
    """OBS-08: opened and closed with the id, and the reason of the end: ours, the client's, or none."""
    async with open_listener() as under_test:
        transports = [await under_test.connect() for _ in range(4)]
        under_test.peers[transports[0]].leave(1001)
        under_test.peers[transports[1]].vanish()
        under_test.peers[transports[2]].say(encode_client_message(Unsubscribe(("x",))))
        await wait_all_tasks_blocked()
        under_test.drain.set()
        await wait_all_tasks_blocked()
        assert under_test.lives.opened == ["con_1", "con_2", "con_3", "con_4"]
        assert dict(under_test.lives.closed) == {
            "con_1": "1001",
            "con_2": "1006",
            "con_3": "internal",
            "con_4": "draining",
        }
        assert len(under_test.lives.closed) == 4


async def test_drain_of_clients_that_do_not_leave(autojump_clock: MockClock) -> None:
    """A client that neither reads nor answers holds the drain up for close_timeout_s only."""
    async with open_listener() as under_test:
        stubborn = await under_test.connect()
        stubborn.stall()
        under_test.peers[stubborn].answers_close = False
        under_test.drain.set()
        await trio.sleep(1.9)
        assert not under_test.has_returned
        await trio.sleep(0.2)
        assert under_test.has_returned
        assert stubborn.is_aborted


async def test_drain_has_a_deadline(autojump_clock: MockClock) -> None:
    """Whatever holds a connection, serving ends drain_timeout_s after the drain began."""
    limits = NodeLimits(drain_timeout_s=3.0, close_timeout_s=1_000.0)
    async with open_listener(limits) as under_test:
        stubborn = await under_test.connect()
        under_test.peers[stubborn].answers_close = False
        under_test.drain.set()
        await trio.sleep(2.9)
        assert not under_test.has_returned
        await trio.sleep(0.2)
        assert under_test.has_returned


async def test_a_thousand_connections_leave_no_task(autojump_clock: MockClock) -> None:
    """ARC-13: after 1,000 clients have come and gone, in every way, no task of theirs is left."""
    limits = NodeLimits(admission_burst=1_000, handshakes_max=1_000)
    async with open_listener(limits) as under_test:
        await wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        clients = [await under_test.connect(says_hello=number % 3 > 0) for number in range(1_000)]
        for number, client in enumerate(clients):
            peer = under_test.peers[client]
            (peer.leave, peer.vanish)[number % 2]()
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert under_test.counters.connections_open == 0
        assert under_test.listener.connections == set()
