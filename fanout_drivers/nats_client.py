"""nats-py, tamed: the only module that knows the library's insides, and the one that needs asyncio.

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
import ssl
from typing import TYPE_CHECKING, Any, Final

import attrs
import nats.errors
import trio
from nats.aio.client import Client

from khala_service.adapters.asyncio_bridge import run_in_asyncio

if TYPE_CHECKING:
    from collections.abc import Callable

    from fanout_drivers.nats_credentials import NatsKey

__all__ = ["GARBLED_ERRORS", "LIBRARY_ERRORS", "NatsClient", "NatsHandler", "end_client", "reason_of"]

CLOSE_TIMEOUT_S: Final = 1.0
# What the library is given where it wants a seed: it never needs the key, only somebody who signs.
_SIGNED_BY_US: Final = "signed by NatsClient"

LIBRARY_ERRORS: Final = (nats.errors.Error, OSError, TimeoutError)
# What else `connect` raises when what it reads is not what a NATS server says.
GARBLED_ERRORS: Final = (ValueError, TypeError, AttributeError, LookupError)


@attrs.frozen
class NatsHandler:
    """What a session tells; none of the calls may wait.

    Attributes:
        message: A message arrived: the subject it was subscribed by, the subject it names, its data.
        publish_forbidden: The server threw away a message that we published: this login may not.
        cluster_changed: A server joined or left the cluster of ours; what crossed it may be lost.
    """

    message: Callable[[str, str, bytes], None]
    publish_forbidden: Callable[[], None] = lambda: None
    cluster_changed: Callable[[], None] = lambda: None


class _WithoutTls(nats.errors.Error):
    """The server was asked for by ``tls://`` and has none."""


class NatsClient(Client):
    """The library's client, which hands a message over in the step that has read it.

    Otherwise it waits in a queue of its topic for a task of its topic, which is two more turns of the event
    loop for each record, a task for each of thousands of topics, and a second place where messages wait.
    """

    def __init__(self, handler: NatsHandler, key: NatsKey | None = None) -> None:
        super().__init__()
        self._handler = handler
        self._key = key
        self._cluster: frozenset[str] = frozenset()

    @property
    def key_option(self) -> str | None:
        """What ``connect`` is given as ``nkeys_seed_str``."""
        return None if self._key is None else _SIGNED_BY_US

    @property
    def is_clustered(self) -> bool:
        """Whether the server is one of a cluster."""
        return bool(self._server_info.get("cluster"))

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

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        await super()._process_info(info, initial_connection)
        names = info.get("connect_urls")
        cluster = frozenset(map(str, names)) if isinstance(names, list) else frozenset()
        before, self._cluster = self._cluster, cluster
        if not initial_connection and cluster != before:
            self._handler.cluster_changed()

    def _setup_nkeys_connect(self) -> None:
        key = self._key
        assert key is not None, "connect was given key_option"
        self._signature_cb = lambda nonce: key.sign(nonce).encode()
        jwt = key.jwt
        if jwt is None:
            self._public_nkey = key.public
        else:
            self._user_jwt_cb = lambda: bytearray(jwt.encode())

    def _connect_command(self) -> bytes:
        server, transport = self._current_server, self._transport
        writer = getattr(transport, "_io_writer", None)
        has_tls = writer is not None and writer.get_extra_info("ssl_object") is not None
        if server is not None and server.uri.scheme == "tls" and not has_tls:
            raise _WithoutTls
        return super()._connect_command()


async def end_client(client: Client) -> None:
    """Disconnect, whatever state the client is in; takes at most ``2 * CLOSE_TIMEOUT_S``.

    Cancellation: shielded.
    """
    with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
        await _close(client)
    _cut(client)
    with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
        await run_in_asyncio(_end_tasks, client)


async def _close(client: Client) -> None:
    try:
        await run_in_asyncio(client.close)
    except LIBRARY_ERRORS:
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


def reason_of(error: Exception) -> str:
    """Return the word of ours for an error of the library."""
    if isinstance(error, _WithoutTls):
        return "broker_without_tls"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "broker_certificate_refused"
    if isinstance(error, nats.errors.AuthorizationError) or "authorization" in str(error).lower():
        return "broker_login_refused"
    if isinstance(error, TimeoutError | nats.errors.TimeoutError):
        return "broker_timeout"
    if isinstance(error, nats.errors.ConnectionClosedError | ConnectionResetError | BrokenPipeError):
        return "broker_connection_lost"
    if isinstance(error, OSError):
        return "broker_unreachable"
    return "broker_protocol_error"
