"""A whole node above its ports, in virtual time: real actors, fake journal and control, simulated sockets.

    async with open_node(log) as node:
        client = await node.connect(log.topic)
        client.subscribe(log.topic)
        await node.settle()
        assert client.seqs(log.topic) == [...]

``settle`` runs every task until all of them wait for time or for the test, so nothing here sleeps to
synchronise; ``trio.sleep`` in a test means that virtual time passes.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from fanout_drivers.memory import MemoryDriver
from khala.actors.access_audit import AccessAudit
from khala.actors.commands import ClientCommands
from khala.actors.connection import Connection
from khala.actors.evictions import Evictions
from khala.actors.observations import WORKERS, GroupedObservations
from khala.actors.page_reads import PageReads
from khala.actors.registry import TopicRegistry
from khala.actors.replay import PageReader
from khala.actors.supervision import Supervisor
from khala.actors.sweeper import run_sweeper
from khala.core.counters import NodeCounters
from khala.core.in_flight import InFlight
from khala.core.limits import NodeLimits
from khala.core.origin_policy import ExactOrigins
from khala.core.ranges import RangeCache
from khala_contracts import codec
from khala_contracts.codec import (
    FromStart,
    Hello,
    Subscribe,
    SubscribeFrom,
    TopicStart,
    Unsubscribe,
    VersionRange,
    Welcome,
)
from khala_contracts.fanout_records import RecordSigner, RecordVerifier
from tests.actors.khala.fake_control import CountingIds, FakeClock, FakeControl, FakeTokens, FixedRng
from tests.actors.khala.fake_journal import FakeJournal
from tests.actors.khala.scripted_peer import SYNC_REQUEST, ScriptedPeer
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.actors.khala.wire_transcript import WireTranscript
from tests.topic_log import DEVICE, claims_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from khala_contracts.codec import ClientMessage, CursorStart
    from khala_contracts.fanout_records import FanoutRecord
    from khala_contracts.sync_claims import SyncClaims
    from khala_contracts.topics import ParsedTopic
    from tests.topic_log import TopicLog

KEY_ID, KEY = "key-1", bytes(range(32))
M = TypeVar("M")


def hello_with(token: str) -> Hello:
    """Return a hello of the test's device."""
    return Hello(
        token=token,
        ticket=None,
        device_id=DEVICE,
        client_build_id="test",
        protocol=VersionRange(1, 1),
        schema=VersionRange(1, 1),
    )


@attrs.define
class CrashLog:
    """Remembers contained crashes; a test that expects none checks that at its end."""

    crashes: list[BaseException] = attrs.field(factory=list)
    # Kind and name of each.
    named: list[tuple[str, str]] = attrs.field(factory=list)

    def task_crashed(
        self, kind: str, name: str, exc: BaseException, *, restart_in_s: float | None = None
    ) -> None:
        """Remember it; see CrashLog of the supervision."""
        assert restart_in_s is None or restart_in_s > 0
        self.crashes.append(exc)
        self.named.append((kind, name))


@attrs.define(eq=False)
class ClientUnderTest:
    """One client: what it says goes to the scripted peer, what it receives comes from the socket."""

    connection: Connection
    transport: SimulatedTransport
    peer: ScriptedPeer
    transcript: WireTranscript
    is_served: bool = True
    received: list[object] = attrs.field(factory=list)

    def say(self, message: ClientMessage) -> None:
        """Send one message in this client's subprotocol."""
        if self.transcript.is_text:
            self.peer.say(codec.encode_client_message_json(message))
        else:
            self.peer.say(codec.encode_client_message(message))

    def subscribe(self, *topics: ParsedTopic, start: CursorStart | SubscribeFrom | None = None) -> None:
        """Subscribe to topics, from the beginning if nothing else is said."""
        wanted = SubscribeFrom.BEGINNING if start is None else start
        how = FromStart(wanted) if isinstance(wanted, SubscribeFrom) else wanted
        self.say(Subscribe(tuple(TopicStart(topic.name, how) for topic in topics)))

    def unsubscribe(self, *topics: ParsedTopic) -> None:
        """Unsubscribe."""
        self.say(Unsubscribe(tuple(topic.name for topic in topics)))

    def read(self, max_bytes: int | None = None) -> list[object]:
        """Take bytes from the socket; return the messages that they complete."""
        messages: list[object] = list(self.transcript.feed(self.transport.take(max_bytes)))
        self.received += messages
        return messages

    def take_all(self, kind: type[M]) -> list[M]:
        """Read; return what of this kind has been received since this was last asked."""
        self.read()
        taken = [message for message in self.received if isinstance(message, kind)]
        self.received = [message for message in self.received if not isinstance(message, kind)]
        return taken

    def take(self, kind: type[M]) -> M:
        """Read; return the one message of this kind that has been received since."""
        taken = self.take_all(kind)
        assert len(taken) == 1, f"{len(taken)} of {kind.__name__}, then {self.received}"
        return taken[0]

    def seqs(self, topic: ParsedTopic) -> list[int]:
        """Read; return the seqs received since ``subscribed``."""
        self.read()
        return self.transcript.topics[topic.name].seqs

    def position(self, topic: ParsedTopic) -> int:
        """Read; return the last seq received or started from, -1 if not subscribed."""
        self.read()
        followed = self.transcript.topics.get(topic.name)
        return followed.position if followed is not None else -1

    def is_live(self, topic: ParsedTopic) -> bool:
        """Read; return whether ``replay_complete`` was received."""
        self.read()
        return self.transcript.topics[topic.name].completed_at is not None

    @property
    def close_code(self) -> int | None:
        """Code of the close frame that was received."""
        self.read()
        return self.transcript.closed_with


@attrs.define(eq=False)
class NodeUnderTest:
    """The tasks of a node, and both ends of its ports."""

    nursery: trio.Nursery
    journal: FakeJournal
    driver: MemoryDriver
    limits: NodeLimits
    counters: NodeCounters
    registry: TopicRegistry
    reads: PageReads
    pages: PageReader
    commands: ClientCommands
    tokens: FakeTokens
    control: FakeControl
    clock: FakeClock
    crash_log: CrashLog
    supervisor: Supervisor
    # None unless the test asked for revocations.
    evictions: Evictions | None = None
    # None unless the test asked for reports to the audit log.
    audit: AccessAudit | None = None
    signer: RecordSigner = attrs.field(factory=lambda: RecordSigner(KEY_ID, KEY))
    connections: set[Connection] = attrs.field(factory=set)
    ids: CountingIds = attrs.field(factory=CountingIds)
    in_flight: InFlight = attrs.field(
        default=attrs.Factory(lambda node: InFlight(node.limits), takes_self=True)
    )

    async def settle(self) -> None:
        """Let every task run until all wait for time or for the test."""
        await wait_all_tasks_blocked()

    # -- the authority -------------------------------------------------------------------------------

    async def publish(self, *records: FanoutRecord) -> None:
        """Hand sealed records to the driver, in this order, and let the node take them."""
        for record in records:
            await self.driver.publish(record.topic, self.signer.seal(record))
        await self.settle()

    async def commit(self, log: TopicLog, count: int = 1, *, payload: bytes = b"x") -> FanoutRecord:
        """Append frames to the log and publish their record."""
        record = log.append(count, payload=payload)
        await self.publish(record)
        return record

    # -- clients ----------------------------------------------------------------------------------------

    def open_client(
        self,
        *,
        transport: SimulatedTransport | None = None,
        is_text: bool = False,
        peer_request: object = SYNC_REQUEST,
    ) -> ClientUnderTest:
        """Connect without a word."""
        transport = transport or SimulatedTransport()
        connection = Connection(
            self.ids.new("con"),
            transport=transport,
            limits=self.limits,
            counters=self.counters,
            commands=self.commands,
            origin_policy=ExactOrigins(frozenset({"https://app.example"})),
            supervisor=self.supervisor,
            in_flight=self.in_flight,
            audit=self.audit,
        )
        peer = ScriptedPeer(connection.emit)
        peer.request = peer_request  # type: ignore[assignment]
        if is_text:
            peer.request = attrs.evolve(SYNC_REQUEST, subprotocols=("khala.v1.json",))
        client = ClientUnderTest(connection, transport, peer, WireTranscript(is_text=is_text))
        self.connections.add(connection)
        self.nursery.start_soon(self._serve, client)
        return client

    async def _serve(self, client: ClientUnderTest) -> None:
        try:
            await client.connection.serve(client.peer)
        finally:
            client.is_served = False
            self.connections.discard(client.connection)

    def grant(self, *topics: ParsedTopic, claims: SyncClaims | None = None) -> str:
        """Return a fresh token for these topics."""
        token = f"token-{len(self.tokens.claims) + 1}"
        granted = claims or claims_for(*topics)
        self.tokens.claims[token] = attrs.evolve(
            granted,
            jti=token,
            issued_at_s=round(self.clock.now()),
            expires_at_s=round(self.clock.now()) + 300,
        )
        return token

    async def connect(
        self,
        *topics: ParsedTopic,
        transport: SimulatedTransport | None = None,
        is_text: bool = False,
        claims: SyncClaims | None = None,
    ) -> ClientUnderTest:
        """Connect, say hello with a token for these topics, and take the welcome."""
        client = self.open_client(transport=transport, is_text=is_text)
        client.say(hello_with(self.grant(*topics, claims=claims)))
        await self.settle()
        client.take(Welcome)
        return client

    async def follow(
        self,
        *topics: ParsedTopic,
        start: CursorStart | SubscribeFrom | None = None,
        transport: SimulatedTransport | None = None,
        is_text: bool = False,
    ) -> ClientUnderTest:
        """Connect and subscribe."""
        client = await self.connect(*topics, transport=transport, is_text=is_text)
        client.subscribe(*topics, start=start)
        await self.settle()
        return client


@asynccontextmanager
async def open_node(
    *logs: TopicLog,
    limits: NodeLimits | None = None,
    driver: MemoryDriver | None = None,
    ranges: RangeCache | None = None,
    may_crash: bool = False,
    is_revocable: bool = False,
    is_audited: bool = False,
) -> AsyncIterator[NodeUnderTest]:
    """Run a node whose journal has these logs; leaving the block ends it.

    Every connection's transcript has been judged as it was read; contained crashes fail the test
    here unless it expects them.
    """
    limits = limits or NodeLimits()
    journal, driver = FakeJournal.of(logs), driver or MemoryDriver()
    counters, crash_log, clock = NodeCounters(), CrashLog(), FakeClock()
    tokens, control = FakeTokens(), FakeControl()
    async with driver.open_subscriber() as subscriber, trio.open_nursery() as nursery:
        supervisor = Supervisor(counters, crash_log)
        reads = PageReads(
            journal, readers_max=limits.journal_readers_max, counters=counters, supervisor=supervisor
        )
        pages = PageReader(
            nursery, reads=reads, limits=limits, counters=counters, supervisor=supervisor, rng=FixedRng()
        )
        evictions = None
        if is_revocable:
            evictions = Evictions(control, limits=limits, counters=counters, clock=clock, rng=FixedRng())
            nursery.start_soon(evictions.feed.run)
        registry = TopicRegistry(
            nursery,
            subscriber=subscriber,
            verifier=RecordVerifier({KEY_ID: KEY}),
            journal=journal,
            reads=reads,
            pages=pages,
            ranges=ranges or RangeCache(limits.shared_ranges_max_bytes),
            limits=limits,
            counters=counters,
            supervisor=supervisor,
            revocations_hinted=None if evictions is None else evictions.hint,
        )
        audit = None
        if is_audited:
            audit = AccessAudit(
                control, limits=limits, counters=counters, clock=clock, ids=CountingIds(), rng=FixedRng()
            )
            nursery.start_soon(audit.run)
        # Without a pause, so that ``settle`` sees every answer.
        observations = GroupedObservations(journal, pause_s=0.0, counters=counters)
        for _ in range(WORKERS):
            nursery.start_soon(observations.run)
        commands = ClientCommands(
            node_id="node-1",
            limits=limits,
            counters=counters,
            clock=clock,
            tokens=tokens,
            control=control,
            observations=observations,
            topics=registry,
            evictions=evictions,
            audit=audit,
        )
        node = NodeUnderTest(
            nursery, journal, driver, limits, counters, registry, reads, pages, commands, tokens, control,
            clock, crash_log, supervisor, evictions, audit,
        )  # fmt: skip
        if evictions is not None:
            evictions.watch(node.connections)
        registry.start()
        nursery.start_soon(_sweep, node)
        yield node
        nursery.cancel_scope.cancel()
    if not may_crash:
        assert crash_log.crashes == []


async def _sweep(node: NodeUnderTest) -> None:
    await run_sweeper(
        node.connections,
        limits=node.limits,
        counters=node.counters,
        clock=node.clock,
        evictions=node.evictions,
    )


def names(topics: Sequence[ParsedTopic]) -> list[str]:
    """Return the names of topics."""
    return [topic.name for topic in topics]
