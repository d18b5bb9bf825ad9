"""Nodes over a real PostgreSQL: their engine and their reader, an authority that writes, and bare clients.

Control is a fake (whoever names a token is welcome). The authority writes the rows that ``append_v1``
writes, from the model ``TopicLog``, and repeats a commit whose outcome it does not know.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio

from fanout_drivers.memory import MemoryDriver
from khala.adapters.postgres.journal import open_journal_reader
from khala.app import NodeParts, serve_engine
from khala.core.counters import NodeCounters
from khala.core.limits import NodeLimits
from khala_contracts import codec
from khala_contracts.codec import FromStart, Subscribe, SubscribeFrom, TopicStart, Welcome
from khala_contracts.fanout_records import RecordSigner
from khala_service.adapters.postgres import open_pool
from khala_service.config import Secret
from khala_service.errors import Unavailable
from tests.actors.khala.fake_control import FakeControl, FakeTokens
from tests.actors.khala.node_under_test import KEY, KEY_ID, hello_with
from tests.actors.khala.wire_transcript import WireTranscript
from tests.topic_log import LINEAGE, claims_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fanout_drivers.base import FanoutDriver
    from khala.actors.registry import TopicRegistry
    from khala_contracts.codec import ClientMessage, CursorStart
    from khala_contracts.topics import ParsedTopic
    from khala_service.adapters.postgres import PostgresPool
    from tests.topic_log import TopicLog

M = TypeVar("M")
UPGRADE_REQUEST = (
    "GET /sync/v1/ws HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Protocol: {}\r\n\r\n"
)
_HEAD = """
INSERT INTO runtime.topic_heads VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'none', $9, $10, clock_timestamp())
ON CONFLICT (topic) DO UPDATE
SET head_seq = excluded.head_seq, head_chain = excluded.head_chain, head_bytes_total = excluded.head_bytes_total
"""
_ROWS = """
INSERT INTO runtime.journal
SELECT $1, seq, entry, chain, total, NULL, clock_timestamp()
FROM unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::bigint[]) AS rows (seq, entry, chain, total)
ON CONFLICT DO NOTHING
"""
_FLOOR = """
UPDATE runtime.topic_heads
SET floor_seq = $2, floor_chain = $3, floor_bytes_total = $4, floor_reason = $5
WHERE topic = $1
"""


@attrs.define(eq=False)
class Authority:
    """Writes journals, and says so through a driver if it is told to."""

    pool: PostgresPool
    driver: FanoutDriver
    signer: RecordSigner = attrs.field(factory=lambda: RecordSigner(KEY_ID, KEY))
    # How often a commit had to be repeated.
    repeats: int = 0

    async def begin(self) -> None:
        """Empty the journal and make the tests' lineage the current one."""
        await self.pool.execute(
            "TRUNCATE runtime.journal; TRUNCATE runtime.topic_heads; DELETE FROM runtime.lineage"
        )
        await self.pool.execute(
            "INSERT INTO runtime.lineage VALUES ($1, NULL, 'test', '1', 1, '0/0', clock_timestamp(), true)",
            LINEAGE,
        )

    async def commit(
        self, log: TopicLog, count: int = 1, *, payload: bytes = b"x", is_said: bool = True
    ) -> None:
        """Append to the log and write it; return once it is committed, however often that takes."""
        before = log.head_seq
        record = log.append(count, payload=payload)
        while True:
            try:
                await self.write(log, before)
            except Unavailable:
                self.repeats += 1
                await trio.sleep(0.05)
            else:
                break
        if is_said:
            await self.driver.publish(record.topic, self.signer.seal(record))

    async def move_floor(self, log: TopicLog, floor_seq: int, *, is_pruned: bool = False) -> None:
        """Retain from ``floor_seq`` on, for the log's reason; rows below stay for a while unless pruned."""
        log.floor_seq = floor_seq
        seen = log.observe()
        topic = log.topic.name
        await self.pool.execute(
            _FLOOR, topic, floor_seq, seen.floor_chain, seen.floor_bytes_total, seen.floor_reason.value
        )
        if is_pruned:
            await self.pool.execute(
                "DELETE FROM runtime.journal WHERE topic = $1 AND seq < $2", topic, floor_seq
            )

    async def write(self, log: TopicLog, after_seq: int) -> None:
        """Write the head row and the journal's rows after ``after_seq``. Raises Unavailable."""
        seen = log.observe()
        seqs = list(range(after_seq + 1, log.head_seq + 1))
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                _ROWS,
                log.topic.name,
                seqs,
                [log.entries[seq - 1] for seq in seqs],
                [log.chains[seq] for seq in seqs],
                [log.bytes_totals[seq] for seq in seqs],
            )
            await connection.execute(
                _HEAD,
                log.topic.name,
                log.topic.topic_class.name,
                seen.head_seq,
                seen.head_chain,
                seen.head_bytes_total,
                seen.floor_seq,
                seen.floor_chain,
                seen.floor_bytes_total,
                seen.rights.owner_user_id,
                seen.rights.org_id,
            )


@attrs.define(eq=False)
class BareClient:
    """One WebSocket without a library: what comes is judged by the transcript, nothing reconnects."""

    stream: trio.SocketStream
    transcript: WireTranscript
    received: list[object] = attrs.field(factory=list)
    # Monotonic time of the last bytes that came.
    heard_at: float = 0.0
    is_over: bool = False
    _heard: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        """Read until the node closes."""
        async with self.stream:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while data := await self.stream.receive_some():
                    self.received += self.transcript.feed(data)
                    self.heard_at = trio.current_time()
                    self._heard.set()
                    self._heard = trio.Event()
        self.is_over = True
        self._heard.set()

    async def say(self, message: ClientMessage) -> None:
        """Send one message."""
        if self.transcript.is_text:
            await self.say_raw(codec.encode_client_message_json(message).encode())
        else:
            await self.say_raw(codec.encode_client_message(message))

    async def say_raw(self, payload: bytes) -> None:
        """Send one message of these bytes, masked with zeros."""
        opcode, size = 0x81 if self.transcript.is_text else 0x82, len(payload)
        head = bytes((opcode, 0x80 | size)) if size < 126 else bytes((opcode, 0xFE)) + size.to_bytes(2, "big")
        await self.stream.send_all(head + bytes(4) + payload)

    async def subscribe(
        self, *topics: ParsedTopic, start: CursorStart | SubscribeFrom = SubscribeFrom.BEGINNING
    ) -> None:
        """Subscribe, from the beginning if nothing else is said."""
        how = FromStart(start) if isinstance(start, SubscribeFrom) else start
        await self.say(Subscribe(tuple(TopicStart(topic.name, how) for topic in topics)))

    async def wait(self, is_met: Callable[[], object], *, within_s: float = 10.0) -> None:
        """Wait until the condition holds, looking at it whenever something came."""
        with trio.fail_after(within_s):
            while not is_met():
                heard = self._heard
                assert not self.is_over or is_met(), f"the node closed with {self.transcript.closed_with}"
                with trio.move_on_after(0.05):
                    await heard.wait()

    async def wait_at(self, topic: ParsedTopic, seq: int, *, within_s: float = 10.0) -> None:
        """Wait until the topic has been received up to ``seq``."""
        await self.wait(lambda: self.position(topic) >= seq, within_s=within_s)

    def position(self, topic: ParsedTopic) -> int:
        """Return the last seq received or started from, -1 if not subscribed."""
        followed = self.transcript.topics.get(topic.name)
        return followed.position if followed is not None else -1

    def of(self, kind: type[M]) -> list[M]:
        """Return what of this kind has come."""
        return [message for message in self.received if isinstance(message, kind)]

    async def leave(self) -> None:
        """Cut the connection."""
        await trio.aclose_forcefully(self.stream)


async def open_socket(port: int, nursery: trio.Nursery, *, is_text: bool = False) -> BareClient:
    """Connect to a node and ask for the upgrade; the client reads in ``nursery``."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    client = BareClient(stream, WireTranscript(is_text=is_text))
    await stream.send_all(UPGRADE_REQUEST.format("khala.v1.json" if is_text else "khala.v1").encode())
    nursery.start_soon(client.run)
    return client


@attrs.define(eq=False)
class RunningNode:
    """One node's engine."""

    port: int
    counters: NodeCounters
    topics: TopicRegistry
    # Set it to let the node leave, and wait for the other.
    drain: trio.Event
    has_left: trio.Event


@attrs.define(eq=False)
class Rig:
    """Some nodes and the authority behind them."""

    authority: Authority
    nodes: list[RunningNode]
    tokens: FakeTokens
    control: FakeControl
    _clients: trio.Nursery

    async def connect(
        self, *topics: ParsedTopic, node: int = 0, is_text: bool = False, is_welcome: bool = True
    ) -> BareClient:
        """Connect to a node and say hello with a token for these topics."""
        client = await open_socket(self.nodes[node].port, self._clients, is_text=is_text)
        token = f"token-{len(self.tokens.claims) + 1}"
        now_s = round(SYSTEM_START_S + trio.current_time())
        self.tokens.claims[token] = attrs.evolve(
            claims_for(*topics), jti=token, issued_at_s=now_s, expires_at_s=now_s + 300
        )
        await client.say(hello_with(token))
        if is_welcome:
            await client.wait(lambda: bool(client.of(Welcome)))
        return client

    async def follow(self, *topics: ParsedTopic, node: int = 0, is_text: bool = False) -> BareClient:
        """Connect and subscribe from the beginning."""
        client = await self.connect(*topics, node=node, is_text=is_text)
        await client.subscribe(*topics)
        return client


# Wall time of these tests: any, as long as tokens and clock agree.
SYSTEM_START_S = 1_700_000_000


class _RigClock:
    """Wall time of the node, in step with its tokens."""

    def now(self) -> float:
        """Return Unix seconds."""
        return SYSTEM_START_S + trio.current_time()


@asynccontextmanager
async def open_rig(
    authority_dsn: str,
    reader_dsn: str,
    *,
    nodes: int = 1,
    limits: NodeLimits | None = None,
    driver: MemoryDriver | None = None,
    drivers: list[FanoutDriver] | None = None,
) -> AsyncIterator[Rig]:
    """Run nodes that read through ``reader_dsn``; must be inside ``open_asyncio_loop``.

    Args:
        authority_dsn: With which the authority writes.
        reader_dsn: With which the nodes read, perhaps through a proxy.
        nodes: How many.
        limits: Of each.
        driver: What the authority publishes on.
        drivers: What each node subscribes to, if that is not the same.
    """
    limits = limits or NodeLimits()
    publishing = driver or MemoryDriver()
    tokens, control = FakeTokens(), FakeControl()
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            open_pool(authority_dsn, application_name="khala-test", max_size=4, acquire_timeout_s=1.0)
        )
        running: list[RunningNode] = []
        journals = [
            await stack.enter_async_context(open_journal_reader(Secret(reader_dsn), limits))
            for _ in range(nodes)
        ]
        # After the pools, so that it ends before them.
        services = await stack.enter_async_context(trio.open_nursery())
        for number, journal in enumerate(journals):
            parts = NodeParts(
                journal=journal,
                tokens=tokens,
                control=control,
                driver=publishing if drivers is None else drivers[number],
                fanout_keys={KEY_ID: KEY},
                clock=_RigClock(),
            )
            counters, drain, has_left = NodeCounters(), trio.Event(), trio.Event()

            async def serve(
                task_status: trio.TaskStatus[tuple[int, TopicRegistry]],
                parts: NodeParts = parts,
                counters: NodeCounters = counters,
                drain: trio.Event = drain,
                has_left: trio.Event = has_left,
            ) -> None:
                await serve_engine(
                    parts,
                    node_id="node",
                    host="127.0.0.1",
                    port=0,
                    limits=limits,
                    cors_origins=(),
                    counters=counters,
                    drain=drain,
                    task_status=task_status,
                )
                has_left.set()

            port, topics = await services.start(serve)
            running.append(RunningNode(port, counters, topics, drain, has_left))
        authority = Authority(pool, publishing)
        await authority.begin()
        yield Rig(authority, running, tokens, control, services)
        services.cancel_scope.cancel()
