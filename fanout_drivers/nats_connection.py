"""One connection to one NATS server, from login to loss.

Made by ``open_nats_session`` for the driver, which owns the retries: everything in the library that
reconnects by itself is switched off, so a session is never silently another connection.
Inputs: subjects, payloads. Outputs: messages and trouble, by calls that must not wait. Errors of the
library become ``Unavailable`` here; their texts, which may name subjects, go nowhere. What the library
needs to behave is in ``nats_client.py``.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs
import nats.errors
import trio

from fanout_drivers.nats_client import (
    GARBLED_ERRORS,
    LIBRARY_ERRORS,
    NatsClient,
    NatsHandler,
    end_client,
    reason_of,
)
from khala_service.adapters.asyncio_bridge import run_in_asyncio
from khala_service.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from nats.aio.subscription import Subscription

    from fanout_drivers.nats_login import NatsLogin

__all__ = ["NatsHandler", "NatsSession", "open_nats_session"]

CONNECT_TIMEOUT_S: Final = 5.0
# The client bounds its own end; past this a library hangs.
END_TIMEOUT_S: Final = 3.0
# The library says that a connection ended when it has closed it, which may take for ever; its state
# changes at once.
LOOK_S: Final = 0.2
# A round trip. Longer: a stuck server is noticed later. Shorter: a busy one loses its connections.
FLUSH_TIMEOUT_S: Final = 5.0
# The library's own pings find a reading task that died; two may stay unanswered.
PING_INTERVAL_S: Final = 5
PINGS_OUTSTANDING_MAX: Final = 2
# Written to the socket at the latest when this waits; a publisher then waits for the server.
PENDING_MAX_BYTES: Final = 2 * 1024 * 1024


@attrs.define(eq=False)
class NatsSession:
    """A live connection, until ``wait_lost`` returns; ``reason`` says why."""

    _client: NatsClient
    _handler: NatsHandler
    _lost: trio.Event = attrs.field(factory=trio.Event, init=False)
    reason: str = attrs.field(default="broker_connection_lost", init=False)
    _subscriptions: dict[str, Subscription] = attrs.field(factory=dict, init=False)
    _is_connecting: bool = attrs.field(default=True, init=False)

    @property
    def payload_max_bytes(self) -> int:
        """The largest message that the server takes."""
        return self._client.max_payload

    @property
    def is_clustered(self) -> bool:
        """Whether other servers stand behind this one."""
        return self._client.is_clustered

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
        wanted: it answers in the order of what it is sent. In a cluster, for publishers at the same
        server; the others follow within milliseconds.

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
        except LIBRARY_ERRORS as error:
            reason = reason_of(error)
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
        elif "permissions violation for publish" in str(error).lower():
            # The connection is good for everything else.
            self._handler.publish_forbidden()
        elif "permissions violation" in str(error).lower():
            # What is not subscribed would be lost in silence.
            self.fail("broker_permission_refused")

    async def on_end(self) -> None:
        """The connection is gone."""
        self.fail("broker_connection_lost")


@asynccontextmanager
async def open_nats_session(
    server: str, login: NatsLogin, handler: NatsHandler
) -> AsyncIterator[NatsSession]:
    """Connect to one server, once; disconnect when the block is left. Run inside `open_asyncio_loop`.

    Raises:
        Unavailable: no connection in CONNECT_TIMEOUT_S, the login was refused, what answers is no NATS
            server, or has no TLS although it was asked for by ``tls://``.
    """
    client = NatsClient(handler, login.key)
    session = NatsSession(client, handler)
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
            nkeys_seed_str=client.key_option,
            tls=login.tls,
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
            except LIBRARY_ERRORS as error:
                raise Unavailable(reason_of(error)) from error
            except GARBLED_ERRORS as error:
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
            with trio.move_on_after(END_TIMEOUT_S, shield=True):
                await end_client(client)
