"""One connection to one NATS server, from login to loss: the only module that knows nats-py.

Made by ``open_nats_session`` for the driver, which owns the retries: everything in the library that
reconnects by itself is switched off, so a session is never silently another connection.
Inputs: subjects, payloads. Outputs: messages and trouble, by calls that must not wait. Errors of the
library become ``Unavailable`` here; their texts, which may name subjects, go nowhere.

What the library needs (nats-py 2.16):
* ``error_cb``; otherwise it prints a traceback for each failed attempt. While connecting the callback
  raises, because ``connect`` would go on to try again by itself.
* A watch on what it sends first: asked for ``tls://`` it gives user and password to a server without TLS.
* Suspicion of the first lines of a server, which it hardly checks.
* A ``flush`` whose wait was cancelled leaves a cancelled future behind, and the pong for it ends the
  reading task without a word. So a session is over as soon as one of its flushes was cancelled.
* ``close`` waits for what a server that is stuck will never take: it gets a time limit, then the socket
  is cut and the tasks that the library left behind are ended.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import nats.errors
import trio
from nats.aio.client import Client

from khala_service.adapters.asyncio_bridge import run_in_asyncio
from khala_service.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from nats.aio.subscription import Subscription

    from khala_service.secret import Secret

__all__ = ["NatsHandler", "NatsLogin", "NatsSession", "open_nats_session"]

CONNECT_TIMEOUT_S: Final = 5.0
# The library says that a connection ended when it has closed it, which may take for ever; its state
# changes at once.
LOOK_S: Final = 0.2
# A round trip. Longer: a stuck server is noticed later. Shorter: a busy one loses its connections.
FLUSH_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 1.0
# The library's own pings find a reading task that died; two may stay unanswered.
PING_INTERVAL_S: Final = 5
PINGS_OUTSTANDING_MAX: Final = 2
# Written to the socket at the latest when this waits; a publisher then waits for the server.
PENDING_MAX_BYTES: Final = 2 * 1024 * 1024


@attrs.frozen
class NatsLogin:
    """Who connects."""

    client_name: str
    user: str = ""
    password: Secret | None = None


@attrs.frozen
class NatsHandler:
    """What a session tells; none of the calls may wait.

    Attributes:
        message: A message arrived: the subject it was subscribed by, the subject it names, its data.
    """

    message: Callable[[str, str, bytes], None]


@attrs.define(eq=False)
class NatsSession:
    """A live connection, until ``wait_lost`` returns; ``reason`` says why."""

    _client: Client
    _lost: trio.Event = attrs.field(factory=trio.Event, init=False)
    reason: str = attrs.field(default="broker_connection_lost", init=False)
    _subscriptions: dict[str, Subscription] = attrs.field(factory=dict, init=False)
    _is_connecting: bool = attrs.field(default=True, init=False)

    @property
    def payload_max_bytes(self) -> int:
        """The largest message that the server takes."""
        return self._client.max_payload

    def fail(self, reason: str) -> None:
        """Say that the connection is of no use any more."""
        if not self._lost.is_set():
            self.reason = reason
            self._lost.set()

    async def wait_lost(self) -> None:
        """Return when the connection is of no use any more."""
        while not self._lost.is_set():
            with trio.move_on_after(LOOK_S):
                await self._lost.wait()
            reading = getattr(self._client, "_reading_task", None)
            # Whatever is raised in the step that hands a message over ends that task, and nothing else.
            if self._client.is_closed or (reading is not None and reading.done()):
                self.fail("broker_connection_lost")

    async def publish_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Send messages in this order. Waits only while the server takes nothing.

        Raises:
            Unavailable: the connection was lost; some of them may have been sent.
        Cancellation: safe; some of them may have been sent.
        """

        async def steps() -> None:
            for subject, data in messages:
                await self._client.publish(subject, data)

        await self._run(steps)

    def publish_nowait(self, subject: str, data: bytes) -> bool:
        """Write one message to the socket now, if nothing waits before it and the server takes what we send.

        The library has no public way: it queues, and its task writes some turns later.
        """
        client = self._client
        writer = getattr(client._transport, "_io_writer", None)
        if writer is None or self._lost.is_set() or not client.is_connected or client.pending_data_size:
            return False
        transport = writer.transport
        if transport.is_closing() or transport.get_write_buffer_size():
            return False
        writer.write(b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(data), data))
        return True

    async def settle(self, subjects: Iterable[str], is_wanted: Callable[[str], bool]) -> None:
        """Subscribe those of the subjects that are wanted, leave the others, and ask for a round trip.

        When it returns the server delivers every message published from now on to a subject that was
        wanted: it answers in the order of what it is sent. (In a cluster, for publishers at the same
        server; the others follow within milliseconds.)

        Raises:
            Unavailable: the connection was lost, or no answer in FLUSH_TIMEOUT_S.
        Cancellation: ends the session.
        """

        async def steps() -> None:
            for subject in subjects:
                await self._settle_one(subject, is_wanted=is_wanted(subject))
            await self._client.flush(timeout=int(FLUSH_TIMEOUT_S))

        try:
            await self._run(steps)
        except BaseException:
            self.fail("broker_no_answer")
            raise

    async def _settle_one(self, subject: str, *, is_wanted: bool) -> None:
        if is_wanted and subject not in self._subscriptions:
            self._subscriptions[subject] = await self._client.subscribe(subject)
        elif not is_wanted and subject in self._subscriptions:
            await self._subscriptions.pop(subject).unsubscribe()

    async def _run(self, steps: Callable[[], Awaitable[None]]) -> None:
        try:
            await run_in_asyncio(steps)
        except _LIBRARY_ERRORS as error:
            reason = _reason(error)
            self.fail(reason)
            raise Unavailable(reason) from error

    # -- what the library calls, inside the event loop's own task --------------------------------

    async def on_error(self, error: Exception) -> None:
        """Take what the library reports; see the head of this module."""
        # The reading task would only print what is raised; its end is noticed.
        if self._is_connecting and getattr(self._client, "_reading_task", None) is None:
            raise error
        if isinstance(error, nats.errors.FlushTimeoutError):
            self.fail("broker_takes_nothing")
        elif "permissions violation" in str(error).lower():
            # What the server forbids would be lost in silence.
            self.fail("broker_permission_refused")

    async def on_end(self) -> None:
        """The connection is gone."""
        self.fail("broker_connection_lost")


class _WithoutTls(nats.errors.Error):
    """TLS was asked for, and the server does not require it."""


class _Client(Client):
    """The library's client, with two things that it has no public way for.

    It never logs in in clear where TLS was asked for. And a message goes to us in the step that has read it:
    otherwise it waits in a queue of its topic for a task of its topic, which is two more turns of the event
    loop for each record, a task for each of thousands of topics, and a second place where messages wait.
    """

    def __init__(self, handler: NatsHandler) -> None:
        super().__init__()
        self._handler = handler

    async def _process_msg(
        self,
        sid: int,
        subject: bytes,
        reply: bytes,
        data: bytes,
        headers: bytes,
    ) -> None:
        subscription = self._subs.get(sid)
        if subscription is not None:
            # What is no text is no subject of ours, and counted as such.
            self._handler.message(subscription.subject, subject.decode(errors="replace"), bytes(data))

    def _connect_command(self) -> bytes:
        server, transport = self._current_server, self._transport
        writer = getattr(transport, "_io_writer", None)
        has_tls = writer is not None and writer.get_extra_info("ssl_object") is not None
        if server is not None and server.uri.scheme == "tls" and not has_tls:
            raise _WithoutTls
        return super()._connect_command()


@asynccontextmanager
async def open_nats_session(
    server: str, login: NatsLogin, handler: NatsHandler
) -> AsyncIterator[NatsSession]:
    """Connect to one server, once; disconnect when the block is left. Run inside `open_asyncio_loop`.

    Raises:
        Unavailable: no connection in CONNECT_TIMEOUT_S, the login was refused, what answers is no NATS
            server, or has no TLS although it was asked for by ``tls://``.
    """
    client = _Client(handler)
    session = NatsSession(client)
    is_begun = False

    async def connect() -> None:
        nonlocal is_begun
        is_begun = True
        password = login.password.reveal() if login.password is not None else None
        await client.connect(
            [server],
            error_cb=session.on_error,
            disconnected_cb=session.on_end,
            closed_cb=session.on_end,
            name=login.client_name,
            user=login.user or None,
            password=password,
            allow_reconnect=False,
            connect_timeout=int(CONNECT_TIMEOUT_S),
            ping_interval=PING_INTERVAL_S,
            max_outstanding_pings=PINGS_OUTSTANDING_MAX,
            flush_timeout=FLUSH_TIMEOUT_S,
            pending_size=PENDING_MAX_BYTES,
        )

    try:
        with trio.move_on_after(CONNECT_TIMEOUT_S) as limit:
            try:
                await run_in_asyncio(connect)
            except _LIBRARY_ERRORS as error:
                raise Unavailable(_reason(error)) from error
            except _GARBLED_ERRORS as error:
                raise Unavailable("broker_protocol_error") from error
        if limit.cancelled_caught:
            raise Unavailable("broker_timeout")
        if not client.is_connected:
            raise Unavailable("broker_connection_lost")
        payload_max_bytes: object = client.max_payload
        if not isinstance(payload_max_bytes, int) or payload_max_bytes < 1:
            raise Unavailable("broker_protocol_error")
        session._is_connecting = False
        yield session
    finally:
        session._is_connecting = False
        session.fail("closed")
        if is_begun:
            with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await _close(client)
            _cut(client)
            with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await run_in_asyncio(_end_tasks, client)


async def _close(client: Client) -> None:
    try:
        await run_in_asyncio(client.close)
    except _LIBRARY_ERRORS:
        # It is closed as far as it can be; the socket is cut next.
        return


def _cut(client: Client) -> None:
    """Close the socket of a client that could not be closed. The library has no public way."""
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    if writer is not None:
        writer.transport.abort()


async def _end_tasks(client: Client) -> None:
    """End what the library still runs for a client; an asyncio coroutine.

    A task that is forgotten while it waits, or fails unheard, is an error of the event loop, which ends
    the process: rightly so for ours, wrongly for a broker that went away in the middle of something.
    """
    tasks = {task for task in asyncio.all_tasks() if _works_for(task, client)}
    _ENDING.update(tasks)
    for task in tasks:
        task.add_done_callback(_take_leave)
        task.cancel()
    for name in ("_reading_task", "_ping_interval_task", "_flusher_task"):
        ended = getattr(client, name, None)
        if ended is not None and ended.done():
            _take_leave(ended)
    if tasks:
        await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S / 2)


def _works_for(task: asyncio.Task[Any], client: Client) -> bool:
    """Whether this is a task of the client or of one of its subscriptions."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    owner = frame.f_locals.get("self") if frame is not None else None
    return owner is client or getattr(owner, "_conn", None) is client


def _take_leave(task: asyncio.Task[Any]) -> None:
    """Hear the last words of a task, which concern nobody any more."""
    _ENDING.discard(task)
    if not task.cancelled():
        task.exception()


# Tasks that were told to end; the event loop itself keeps none alive.
_ENDING: Final[set[asyncio.Task[Any]]] = set()
_LIBRARY_ERRORS: Final = (nats.errors.Error, OSError, TimeoutError)
# What else `connect` raises when what it reads is not what a NATS server says.
_GARBLED_ERRORS: Final = (ValueError, TypeError, AttributeError, LookupError)


def _reason(error: Exception) -> str:
    """Return the word of ours for an error of the library."""
    if isinstance(error, _WithoutTls):
        return "broker_without_tls"
    if isinstance(error, nats.errors.AuthorizationError) or "authorization" in str(error).lower():
        return "broker_login_refused"
    if isinstance(error, TimeoutError | nats.errors.TimeoutError):
        return "broker_timeout"
    if isinstance(error, OSError):
        return "broker_unreachable"
    if isinstance(error, nats.errors.ConnectionClosedError):
        return "broker_connection_lost"
    return "broker_protocol_error"
