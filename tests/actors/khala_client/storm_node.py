"""A node without sockets or HTTP for very many clients of the ring, which counts what they do: tests of reconnects.

Its door is the node's own (khala/core/admission.py). Every client connects through a loop of its own, so that the
node knows who opens how many sockets at once, and which token each brings.
"""

from __future__ import annotations

import math
from collections import Counter
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import attrs

from khala.core.admission import Admission, TurnedAway
from khala.core.limits import NodeLimits
from khala_client.core.happenings import Delivered
from khala_client.core.protocol import Identity
from khala_client.errors import Unavailable
from khala_client.ring.link import SyncLink
from khala_client.ring.ports import SocketEnded
from khala_contracts import codec, reason_codes
from khala_contracts.codec import ErrorMessage
from tests.unit.khala_client.node_model import LogModel, NodeModel, topic_number

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

    from khala_client.core.happenings import Happening
    from khala_client.notices import Notice
    from khala_client.ring.ports import EventLoop
    from khala_contracts.topics import TopicName

TOPIC = topic_number(1)


@attrs.define(eq=False)
class StormSocket:
    """One connection; the client's end of it is a SyncSocket."""

    node: StormNode
    client: int
    close_code: int | None = None
    is_open: bool = True
    model: NodeModel | None = None
    _arrived: list[bytes] = attrs.field(factory=list)
    _more: anyio.Event = attrs.field(factory=anyio.Event)

    async def receive(self) -> bytes:
        """Return what the node has said; see SyncSocket."""
        await anyio.lowlevel.checkpoint()
        while not self._arrived:
            if not self.is_open:
                raise SocketEnded
            self._more = anyio.Event()
            await self._more.wait()
        return self._arrived.pop(0)

    async def send(self, data: bytes) -> None:
        """Let the node take a message; see SyncSocket."""
        await anyio.lowlevel.checkpoint()
        if not self.is_open:
            raise SocketEnded
        if self.model is None:
            self.node.greet(self, data)
        else:
            self.say(*self.model.receive(data))
        self.pump()

    async def ping(self) -> None:
        """Be answered at once; see SyncSocket."""
        await anyio.lowlevel.checkpoint()

    async def close(self, code: int, reason: str) -> None:
        """Leave; see SyncSocket."""
        del code, reason
        await anyio.lowlevel.checkpoint()
        self.node.sockets_of[self.client] -= 1
        self.end(None)

    def pump(self) -> None:
        """Say what is due of the topic."""
        while self.model is not None and TOPIC in self.model.topics and (due := self.model.pump(TOPIC, 10)):
            self.say(*due)

    def say(self, *messages: bytes) -> None:
        """Send."""
        self._arrived += messages
        self._more.set()

    def end(self, close_code: int | None) -> None:
        """Cut it; None: without a word."""
        if self.is_open:
            self.is_open, self.close_code = False, close_code
            self.node.sockets.discard(self)
            self._more.set()


@attrs.define(eq=False)
class StormNode:
    """See the module docstring. Times are of the event loop, so virtual."""

    limits: NodeLimits
    log: LogModel = attrs.field(factory=lambda: LogModel(TOPIC))
    is_there: bool = True
    sockets: set[StormSocket] = attrs.field(factory=set)
    sockets_of: Counter[int] = attrs.field(factory=Counter)
    sockets_max: int = 0
    attempts: list[float] = attrs.field(factory=list)
    # When, and who.
    welcomes: list[tuple[float, int]] = attrs.field(factory=list)
    refusals: int = 0
    tokens: list[str] = attrs.field(factory=list)
    mints: Counter[int] = attrs.field(factory=Counter)
    door: Admission = attrs.field(
        default=attrs.Factory(lambda node: Admission(node.limits, now=anyio.current_time()), takes_self=True)
    )

    def greet(self, socket: StormSocket, hello: bytes) -> None:
        """Judge a hello at the door."""
        now = anyio.current_time()
        message = codec.decode_client_message_untrusted(hello)
        assert isinstance(message, codec.Hello)
        self.tokens.append(message.token or "")
        verdict = self.door.decide(now, handshakes_open=0, telling=0)
        if isinstance(verdict, TurnedAway):
            self.refusals += 1
            error = ErrorMessage.of(reason_codes.RATE_LIMITED, retry_after_ms=verdict.retry_after_ms)
            socket.say(codec.encode_server_control(error))
            socket.end(reason_codes.RATE_LIMITED.close_code)
            return
        socket.model = NodeModel([self.log])
        self.welcomes.append((now, socket.client))
        socket.say(*socket.model.receive(hello))

    def cut(self, close_code: int | None = None) -> None:
        """End every connection at once."""
        for socket in tuple(self.sockets):
            socket.end(close_code)

    def append(self, count: int = 1) -> None:
        """Commit, and let everybody have it."""
        self.log.append(count)
        for socket in tuple(self.sockets):
            socket.pump()

    def forget(self) -> None:
        """Count anew."""
        self.attempts.clear()
        self.welcomes.clear()
        self.tokens.clear()
        self.mints.clear()
        self.refusals = 0

    def largest_second(self) -> float:
        """Return the largest share of all welcomes in any second, wherever it begins."""
        times = sorted(at for at, _ in self.welcomes)
        return max(sum(at <= other < at + 1 for other in times) for at in times) / len(times)


@attrs.define(eq=False)
class StormClient:
    """One client of the ring: the sink of its topic, and what its link asks of an event loop."""

    node: StormNode
    number: int
    seqs: list[int] = attrs.field(factory=list)

    async def mint(self, topics: tuple[TopicName, ...]) -> str:
        """Return a token that nobody has had."""
        assert topics == (TOPIC,)
        await anyio.lowlevel.checkpoint()
        self.node.mints[self.number] += 1
        return f"{self.number}-{len(self.node.attempts)}-{self.node.mints[self.number]}"

    async def connect(self, tasks: TaskGroup, url: str, *, ssl_context: ssl.SSLContext | None) -> StormSocket:
        """Connect; see EventLoop."""
        del tasks, url, ssl_context
        await anyio.lowlevel.checkpoint()
        node = self.node
        node.attempts.append(anyio.current_time())
        if not node.is_there:
            raise Unavailable("nobody there")
        socket = StormSocket(node, self.number)
        node.sockets.add(socket)
        node.sockets_of[self.number] += 1
        node.sockets_max = max(node.sockets_max, node.sockets_of[self.number])
        return socket

    def put_happening(self, happening: Happening) -> None:
        """Keep what is applied; see Sink."""
        if isinstance(happening, Delivered):
            self.seqs += [applied.frame.seq for applied in happening.applied]

    def put_notice(self, notice: Notice) -> None:
        """See Sink."""


@asynccontextmanager
async def open_storm(
    count: int, *, admission_per_s: float = math.inf, admission_burst: int = 10**6
) -> AsyncIterator[tuple[StormNode, list[StormClient]]]:
    """Connect ``count`` clients, all welcome, with an hour of peace behind them; then this door."""
    node = StormNode(NodeLimits(admission_per_s=1e9, admission_burst=10**9))
    node.log.append(3)
    clients = [StormClient(node, number) for number in range(count)]
    async with anyio.create_task_group() as tasks:
        for client in clients:
            loop: EventLoop = client  # type: ignore[assignment]  # of it a link uses ``connect`` alone
            link = SyncLink(
                "ws://node.test/sync/v1/ws",
                loop=loop,
                mint=client.mint,
                identity=Identity(f"dev_{client.number:08d}", "0.1.0"),
                rng=Random(client.number),
            )
            link.follow(TOPIC, "beginning", client)
            tasks.start_soon(link.run)
        await anyio.sleep(61)
        assert len(node.sockets) == count
        node.limits = NodeLimits(admission_per_s=min(admission_per_s, 1e9), admission_burst=admission_burst)
        node.door = Admission(node.limits, now=anyio.current_time())
        node.forget()
        yield node, clients
        tasks.cancel_scope.cancel()
