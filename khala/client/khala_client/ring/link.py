"""The one connection of a client, and its only retry owner.

Runs as one task for the life of a Khala object. While a topic is followed it mints a token,
connects, lets the sans-IO machine speak, and when the connection ends does what the machine
decides: wait and reconnect, or end every topic. While no topic is followed there is no socket.

Tasks of one connection, all ending with it: reader (never waits for the writer or for a follower),
writer, timer. Invariant: at most one socket at any time; every queue here is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol

import anyio
import attrs

from khala_client.core.apply import ApplyCounts
from khala_client.core.happenings import (
    CloseRequest,
    Delivered,
    Happening,
    LeaveAsked,
    Output,
    ServerRefused,
    TokenDue,
    TopicEnded,
    Welcomed,
)
from khala_client.core.sync import Reconnect, Stop, SyncMachine
from khala_client.errors import KhalaError, Unavailable
from khala_client.notices import Connected, Disconnected, Notice
from khala_client.ring.ports import SocketEnded
from khala_contracts.topics import TopicName

if TYPE_CHECKING:
    import ssl

    from anyio.abc import TaskGroup
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from khala_client.core.backoff import Rng
    from khala_client.core.cursor import After
    from khala_client.core.protocol import Identity
    from khala_client.ring.ports import EventLoop, SyncSocket

__all__ = ["Mint", "Sink", "SyncLink"]

# Control messages waiting for the socket; a client that fills this is not being read at all.
_OUTBOUND_MAX: Final = 256
# A mint asks the runtime for owners; the HTTP client's own time-outs are longer than a user's patience.
_MINT_TIMEOUT_S: Final = 20.0
# Closing the socket has deadlines of its own, of two seconds together; past this a library hangs.
_LEAVE_TIMEOUT_S: Final = 5.0
_NO_FAILURE: Final = ""
_CLOSED: Final = "the client was closed"

# Mints a token for these topics; raises KhalaError.
Mint = Callable[[tuple[TopicName, ...]], Awaitable[str]]


class Sink(Protocol):
    """Who follows one topic: takes what happens to it, at once and without waiting."""

    def put_happening(self, happening: Happening) -> None:
        """Take one happening of this topic, in order."""
        ...

    def put_notice(self, notice: Notice) -> None:
        """Take news about the connection."""
        ...


class SyncLink:
    """Follows topics for any number of sinks over one connection after the other."""

    def __init__(
        self,
        url: str,
        *,
        loop: EventLoop,
        mint: Mint,
        identity: Identity,
        rng: Rng,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        self._loop = loop
        self._mint = mint
        self._ssl_context = ssl_context
        self._machine = SyncMachine(identity, rng=rng)
        self._sinks: dict[TopicName, Sink] = {}
        self._outbound: MemoryObjectSendStream[bytes] | None = None
        self._close_request: CloseRequest | None = None
        self._is_token_due = False
        self._is_hanging_up = False
        self._is_over = False
        # Set and replaced whenever a waiting task has to look again.
        self._changed = anyio.Event()

    # -- for subscriptions; all of these are synchronous --------------------------------------

    def follow(self, topic: TopicName, after: After, sink: Sink) -> None:
        """Follow ``topic`` for ``sink``.

        Raises:
            ValueError: it is followed already by another subscription of this client.
            Unavailable: the client was closed.
        """
        if self._is_over:
            raise Unavailable(_CLOSED)
        output = self._machine.follow(topic, after)
        self._sinks[topic] = sink
        self._perform(output)
        # Also where there is no connection yet and so nothing to send: the task has to look again.
        self._wake()

    def leave(self, topic: TopicName, sink: Sink) -> None:
        """Stop following for ``sink``; nothing more is put into it."""
        if self._sinks.get(topic) is sink:
            del self._sinks[topic]
            self._perform(self._machine.leave(topic))
            self._wake()

    def pause(self, topic: TopicName) -> None:
        """Let the node stop sending ``topic``: its sink is full. The cursor stays."""
        self._perform(self._machine.pause(topic))

    def resume(self, topic: TopicName) -> None:
        """Let it send again, after the cursor."""
        self._perform(self._machine.resume(topic))

    def counts_of(self, topic: TopicName) -> ApplyCounts:
        """Return the counts of a followed topic; zeros before it was accepted."""
        follow = self._machine.follow_of(topic)
        return (
            attrs.evolve(follow.rule.counts)
            if follow is not None and follow.rule is not None
            else ApplyCounts()
        )

    # -- the task ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until cancelled. Raises nothing else: followers learn of failures by their sinks."""
        try:
            await self._serve()
        finally:
            # Whoever follows on is told, instead of waiting for what nobody sends any more.
            self._is_over = True
            self._perform(self._machine.stop(Unavailable(_CLOSED)))

    async def _serve(self) -> None:
        while True:
            await self._wait_until(self._is_wanted)
            decision = await self._run_connection()
            if isinstance(decision, Stop):
                self._perform(self._machine.stop(decision.error))
                continue
            if decision.code != _NO_FAILURE:
                self._notify(Disconnected(decision.code, decision.delay_s))
            # To its end, whoever leaves and follows meanwhile: the next connection is still the next attempt.
            await anyio.sleep(decision.delay_s)

    def _is_wanted(self) -> bool:
        return bool(self._machine.topics)

    def _is_unwanted(self) -> bool:
        return not self._machine.topics

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        # No deadline: callers have one, or wait for the application to follow something.
        while not condition():
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _run_connection(self) -> Reconnect | Stop:
        topics = self._machine.topics
        try:
            token = await self._mint_in_time(topics)
        except KhalaError as error:
            return self._mint_refused(error, topics)
        async with anyio.create_task_group() as tasks:
            decision = await self._converse(tasks, token, topics)
        return decision  # noqa: RET504 - a return inside the block of a task group is a trap

    async def _mint_in_time(self, topics: tuple[TopicName, ...]) -> str:
        with anyio.move_on_after(_MINT_TIMEOUT_S):
            return await self._mint(topics)
        raise Unavailable("no sync token in time")

    def _mint_refused(self, error: KhalaError, topics: tuple[TopicName, ...]) -> Reconnect | Stop:
        if error.topic is not None and not error.retryable and TopicName(error.topic) in topics:
            # One topic of several may not be read: that one ends, the others go on at once. It may
            # have been left while it was asked for.
            self._perform(self._machine.end_topic(TopicName(error.topic), error))
            return Reconnect(0.0, _NO_FAILURE)
        return self._machine.connect_failed(error)

    async def _converse(
        self, tasks: TaskGroup, token: str, topics: tuple[TopicName, ...]
    ) -> Reconnect | Stop:
        try:
            socket = await self._loop.connect(tasks, self._url, ssl_context=self._ssl_context)
        except KhalaError as error:
            return self._machine.connect_failed(error)
        self._outbound, outbound = anyio.create_memory_object_stream[bytes](_OUTBOUND_MAX)
        self._close_request, self._is_token_due, self._is_hanging_up = None, False, False
        try:
            async with anyio.create_task_group() as speakers:
                self._perform(self._machine.connected(token, topics, anyio.current_time()))
                speakers.start_soon(self._write, socket, outbound)
                speakers.start_soon(self._keep_time, speakers, socket)
                await self._read(socket)
                speakers.cancel_scope.cancel()
        finally:
            self._outbound.close()
            outbound.close()
            self._outbound = None
            with anyio.move_on_after(_LEAVE_TIMEOUT_S, shield=True):
                await self._close(socket)
        if self._is_hanging_up:
            # Also if somebody follows something again by now: we ended it, and it was no failure.
            self._machine.hung_up(anyio.current_time())
            return Reconnect(0.0, _NO_FAILURE)
        return self._machine.disconnected(socket.close_code, anyio.current_time())

    async def _close(self, socket: SyncSocket) -> None:
        request = self._close_request or CloseRequest(1000, "")
        await socket.close(request.code, request.reason)

    async def _read(self, socket: SyncSocket) -> None:
        while self._close_request is None:
            try:
                data = await socket.receive()
            except SocketEnded:
                return
            self._perform(self._machine.receive_untrusted(data, anyio.current_time()))

    async def _write(self, socket: SyncSocket, outbound: MemoryObjectReceiveStream[bytes]) -> None:
        async for data in outbound:
            try:
                await socket.send(data)
            except SocketEnded:
                return  # the reader sees the end, too, and knows its code

    async def _keep_time(self, speakers: TaskGroup, socket: SyncSocket) -> None:
        while True:
            changed = self._changed
            wakeup_s = self._machine.next_wakeup_s()
            with anyio.CancelScope(deadline=wakeup_s if wakeup_s is not None else math.inf):
                await changed.wait()
            output = self._machine.tick(anyio.current_time())
            self._perform(output)
            if output.ping:
                speakers.start_soon(self._ping, socket)
            if self._is_token_due:
                self._is_token_due = False
                speakers.start_soon(self._renew)
            self._is_hanging_up = self._is_unwanted()
            if self._close_request is not None or self._is_hanging_up:
                speakers.cancel_scope.cancel()
                return

    async def _ping(self, socket: SyncSocket) -> None:
        try:
            await socket.ping()
        except SocketEnded:
            return
        self._machine.alive(anyio.current_time())

    async def _renew(self) -> None:
        topics = self._machine.topics
        try:
            token = await self._mint_in_time(topics)
        except KhalaError as error:
            self._perform(self._machine.renew_failed(error, anyio.current_time()))
            self._wake()  # the timer has to wait for another time now
            return
        self._perform(self._machine.renew(token, topics))

    # -- performing what the machine asks for --------------------------------------------------

    def _perform(self, output: Output) -> None:
        for data in output.send:
            self._send_nowait(data)
        for happening in output.happenings:
            self._report(happening)
        if output.close is not None:
            self._close_request = output.close
        # Deliveries move no deadline forward, and are most of what happens: they wake nobody here.
        if output.send or output.close or not all(isinstance(each, Delivered) for each in output.happenings):
            self._wake()

    def _send_nowait(self, data: bytes) -> None:
        if self._outbound is None:
            return
        try:
            self._outbound.send_nowait(data)
        except anyio.WouldBlock:
            self._close_request = CloseRequest(1000, "the socket takes nothing")
        except anyio.BrokenResourceError:
            return  # the writer has ended; the reader reports the end

    def _report(self, happening: Happening) -> None:
        match happening:
            case Welcomed(welcome):
                self._notify(Connected(welcome.connection_id, welcome.node_id))
            case TokenDue():
                self._is_token_due = True
            case TopicEnded(topic):
                sink = self._sinks.pop(topic, None)
                if sink is not None:
                    sink.put_happening(happening)
            case LeaveAsked() | ServerRefused():
                pass  # the machine acts on them when the connection ends
            case _:
                sink = self._sinks.get(happening.topic)
                if sink is not None:
                    sink.put_happening(happening)

    def _notify(self, notice: Notice) -> None:
        for sink in tuple(self._sinks.values()):
            sink.put_notice(notice)
