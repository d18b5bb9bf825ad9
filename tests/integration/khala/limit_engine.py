"""One engine of a node on a real socket, between a journal and a control in memory, with limits of a test's own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from fanout_drivers.memory import MemoryDriver
from khala.actors.access_audit import AccessAudit
from khala.app import NodeParts, serve_engine
from khala.core.access_audit import AuditAction
from khala.core.counters import NodeCounters
from khala.core.limits import VIOLATIONS, NodeLimits
from khala_contracts.codec import (
    ClientHeartbeat,
    ErrorMessage,
    FromStart,
    Subscribe,
    SubscribeFrom,
    TopicStart,
    Unsubscribe,
    Welcome,
    encode_client_message,
)
from khala_contracts.fanout_records import RecordSigner
from tests.actors.khala.fake_control import CountingIds, FakeClock, FakeControl, FakeTokens, FixedRng
from tests.actors.khala.fake_journal import FakeJournal, log_of
from tests.actors.khala.node_under_test import KEY, KEY_ID, hello_with
from tests.integration.khala.rig import BareClient, open_socket
from tests.topic_log import claims_for, run_topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from khala.actors.registry import TopicRegistry
    from khala_contracts.topics import ParsedTopic, TopicName
    from tests.topic_log import TopicLog

# On a machine that is busy with other things. Times that a case asserts are lower bounds, or far below this.
DEADLINE_S: Final = 20.0
TOPICS: Final = tuple(run_topic(number) for number in range(1, 5))
FOREIGN: Final = run_topic(9)


@attrs.define(eq=False)
class Engine:
    """One running engine, and what stands around it."""

    port: int
    limits: NodeLimits
    counters: NodeCounters
    control: FakeControl
    tokens: FakeTokens
    driver: MemoryDriver
    topics: TopicRegistry
    logs: dict[TopicName, TopicLog]
    clients: trio.Nursery

    async def upgrade(self) -> BareClient:
        """Connect and ask for the upgrade, without a hello."""
        return await open_socket(self.port, self.clients)

    async def connect(self) -> BareClient:
        """Connect, say hello with a token for all topics, and be welcome."""
        client = await self.upgrade()
        await client.say(hello_with(self.grant()))
        await client.wait(lambda: client.of(Welcome), within_s=DEADLINE_S)
        return client

    def grant(self) -> str:
        """Return a new token for all topics."""
        token = f"token-{len(self.tokens.claims) + 1}"
        expires_at_s = round(FakeClock().now()) + 300
        self.tokens.claims[token] = attrs.evolve(claims_for(*TOPICS), jti=token, expires_at_s=expires_at_s)
        return token

    async def commit(self, topic: ParsedTopic, count: int = 1, *, payload: bytes = b"x") -> None:
        """Append frames and tell the node."""
        record = self.logs[topic.name].append(count, payload=payload)
        await self.driver.publish(topic.name, RecordSigner(KEY_ID, KEY).seal(record))

    async def refused(self, client: BareClient, limit: str, *, close_code: int | None = None) -> ErrorMessage:
        """Wait for the one error that names ``limit``, for its close, its count and its row of audit."""
        code = VIOLATIONS[limit].name

        def told() -> list[ErrorMessage]:
            return [error for error in client.of(ErrorMessage) if error.code == code]

        await client.wait(lambda: bool(told()), within_s=DEADLINE_S)
        (error,) = told()
        assert error.details == {"limit": limit, "max": str(getattr(self.limits, limit))}
        if close_code is not None:
            await closed(client, close_code)
        await self.audited(limit)
        return error

    async def audited(self, limit: str, count: int = 1) -> None:
        """Wait until violations of this limit are counted, and one row names it with its code and value."""
        assert self.counters.limit_violations == {limit: count}

        def rows() -> list[tuple[object, str, str]]:
            events = [event for event in self.control.events if event.action is AuditAction.LIMIT]
            return [(event.reason, event.limit, event.limit_value) for event in events]

        await until(lambda: bool(rows()))
        assert rows() == [(VIOLATIONS[limit], limit, str(getattr(self.limits, limit)))]


@asynccontextmanager
async def open_engine(**limits: Any) -> AsyncIterator[Engine]:
    """Run an engine with these limits on a real socket; its journal and control are fakes."""
    quick = {"sweep_interval_s": 0.02, "audit_flush_interval_s": 0.01, "close_timeout_s": 0.1}
    held = NodeLimits(**{**quick, **limits})
    logs = {topic.name: log_of(topic, 0) for topic in TOPICS}
    counters, control, tokens, driver = NodeCounters(), FakeControl(), FakeTokens(), MemoryDriver()
    audit = AccessAudit(
        control, limits=held, counters=counters, clock=FakeClock(), ids=CountingIds(), rng=FixedRng()
    )
    parts = NodeParts(
        journal=FakeJournal.of(logs.values()),
        tokens=tokens,
        control=control,
        driver=driver,
        fanout_keys={KEY_ID: KEY},
        clock=FakeClock(),
        audit=audit,
    )
    async with trio.open_nursery() as services:

        async def serve(task_status: trio.TaskStatus[tuple[int, TopicRegistry]]) -> None:
            await serve_engine(
                parts,
                node_id="node",
                host="127.0.0.1",
                port=0,
                limits=held,
                cors_origins=(),
                counters=counters,
                drain=trio.Event(),
                task_status=task_status,
            )

        services.start_soon(audit.run)
        port, topics = await services.start(serve)
        yield Engine(port, held, counters, control, tokens, driver, topics, logs, services)
        services.cancel_scope.cancel()


async def until(is_met: Callable[[], bool]) -> None:
    """Wait until a condition of the engine holds."""
    with trio.fail_after(DEADLINE_S):
        while not is_met():
            await trio.sleep(0.005)


async def closed(client: BareClient, code: int) -> None:
    """Wait until the node has closed with this code."""
    await until(lambda: client.is_over)
    assert client.transcript.closed_with == code


def padded_unsubscribe(size: int) -> bytes:
    """Return a message of exactly this size, which is answered with topic_invalid."""
    for length in range(size):
        message = encode_client_message(Unsubscribe(("x" * length,)))
        if len(message) == size:
            return message
    raise AssertionError(size)


def framed(payload: bytes) -> bytes:
    """Return a binary message as one frame, masked with zeros."""
    size = len(payload)
    head = bytes((0x82, 0x80 | size)) if size < 126 else b"\x82\xfe" + size.to_bytes(2, "big")
    return head + bytes(4) + payload


FOLLOW: Final = Subscribe((TopicStart(TOPICS[0].name, FromStart(SubscribeFrom.BEGINNING)),))
BEAT: Final = framed(encode_client_message(ClientHeartbeat()))
