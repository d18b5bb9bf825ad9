"""Connections of the one origin to the services behind it: opened in turn, kept while idle, closed when doubtful.

A connection is used again only if both ends have finished one exchange on it and nothing has arrived since.
Invariant: at most IDLE_MAX connections per route are kept, none longer than IDLE_MAX_S.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

import h11
import trio

from khala.adapters.origin_routes import HEAD_MAX_BYTES

if TYPE_CHECKING:
    from khala.adapters.origin_routes import OriginLimits, Route

__all__ = ["PIECE_MAX_BYTES", "Upstream", "UpstreamFailed", "Upstreams"]

# One read of a body takes at most this, in each direction, and the next one waits until it is passed on.
PIECE_MAX_BYTES: Final = 64 * 1024
IDLE_MAX: Final = 32
# Below the 75 s after which a service closes: who closes first must be the one who knows of the next request.
IDLE_MAX_S: Final = 30.0
# Of the kernel's memory for one WebSocket, in each direction. A node judges its clients by what its own
# socket takes (SPEC section 6); megabytes of buffers here would hide a stalled client from it.
WIRE_BUFFER_BYTES: Final = 128 * 1024


class UpstreamFailed(Exception):
    """A service does not answer, or broke off; the client has seen nothing of it.

    Attributes:
        may_be_repeated: What broke was a kept connection, which the service may have closed just before it was
            used, or one for a WebSocket, which a node that leaves may never have accepted.
    """

    def __init__(self, cause: str, *, may_be_repeated: bool = False) -> None:
        super().__init__(cause)
        self.may_be_repeated = may_be_repeated


class Upstream:
    """One connection to a service.

    Attributes:
        is_kept: Whether it served a request before this one.
    """

    def __init__(self, stream: trio.SocketStream, *, is_wire: bool = False) -> None:
        """Speak HTTP on ``stream``, which ``is_wire`` if it was opened for a WebSocket and nothing else."""
        self.stream = stream
        self._is_wire = is_wire
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX_BYTES)
        self.is_kept = False
        self.idle_since_s = 0.0

    async def send(self, *events: h11.Request | h11.EndOfMessage) -> None:
        """Send the next parts of a request; raises as `send_wire`."""
        await self.send_wire(b"".join(self.http.send(event) or b"" for event in events))

    async def send_wire(self, wire: bytes) -> None:
        """Send what ``http`` has made of the next parts.

        Raises:
            UpstreamFailed: The connection is broken.
        """
        try:
            await self.stream.send_all(wire)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise UpstreamFailed("broke while sending", may_be_repeated=self.may_be_repeated) from error

    async def next_event(self) -> h11.Event | type[h11.PAUSED]:
        """Return what the service says next.

        Raises:
            UpstreamFailed: The connection is broken, or what arrives is no HTTP.
        Cancellation: safe; the connection must not be used again.
        """
        while True:
            try:
                event = self.http.next_event()
                if event is not h11.NEED_DATA:
                    return event  # type: ignore[return-value]  # NEED_DATA is the one excluded
                self.http.receive_data(await self.stream.receive_some(PIECE_MAX_BYTES))
            except (h11.RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise UpstreamFailed(type(error).__name__, may_be_repeated=self.may_be_repeated) from error

    @property
    def may_be_repeated(self) -> bool:
        """See UpstreamFailed."""
        return self.is_kept or self._is_wire

    def close(self) -> None:
        """Close the connection; bytes that the kernel has are still sent."""
        self.stream.socket.close()

    @property
    def is_reusable(self) -> bool:
        """Whether both ends have finished, and the service keeps the connection."""
        both_done = self.http.our_state is h11.DONE and self.http.their_state is h11.DONE
        return both_done and not self._is_wire and not self.http.trailing_data[0]

    @property
    def has_news(self) -> bool:
        """Whether something arrived that nobody asked for: bytes, or the end."""
        poll = select.poll()
        poll.register(self.stream.socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))


class Upstreams:
    """The services of one route."""

    def __init__(self, route: Route, limits: OriginLimits) -> None:
        self._route = route
        self._limits = limits
        self._turn = 0
        self._idle: deque[Upstream] = deque()

    async def take(self, *, is_upgrade: bool, is_fresh: bool = False) -> Upstream:
        """Return a connection: a kept one if there is one and it will do, else a new one.

        Services take turns; one that cannot be connected to is passed over.

        Raises:
            UpstreamFailed: None of them can be connected to.
        Cancellation: safe; nothing stays open.
        """
        if is_upgrade:
            return await self._connect(is_wire=True)
        while self._idle and not is_fresh:
            upstream = self._idle.pop()
            is_fine = trio.current_time() - upstream.idle_since_s < IDLE_MAX_S and not upstream.has_news
            if is_fine:
                upstream.http.start_next_cycle()
                upstream.is_kept = True
                return upstream
            upstream.close()
        return await self._connect()

    def give_back(self, upstream: Upstream) -> None:
        """Keep a connection for the next request, or close it."""
        if not upstream.is_reusable:
            upstream.close()
            return
        upstream.idle_since_s = trio.current_time()
        self._idle.append(upstream)
        if len(self._idle) > IDLE_MAX:
            self._idle.popleft().close()

    def close(self) -> None:
        """Close what is kept."""
        while self._idle:
            self._idle.pop().close()

    async def _connect(self, *, is_wire: bool = False) -> Upstream:
        ports = self._route.ports
        first, self._turn = self._turn, self._turn + 1
        causes: list[str] = []
        for offset in range(len(ports)):
            port = ports[(first + offset) % len(ports)]
            try:
                with trio.fail_after(self._limits.connect_timeout_s):
                    stream = await _open_stream(self._route.host, port, is_wire=is_wire)
                return Upstream(stream, is_wire=is_wire)
            except (OSError, trio.TooSlowError) as error:
                causes.append(f"{port}: {type(error).__name__}")
        raise UpstreamFailed(", ".join(causes))


async def _open_stream(host: str, port: int, *, is_wire: bool) -> trio.SocketStream:
    connecting = trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if is_wire:
            # Before it is connected: the window is agreed on in the handshake.
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                connecting.setsockopt(socket.SOL_SOCKET, option, WIRE_BUFFER_BYTES)
        await connecting.connect((host, port))
    except BaseException:
        connecting.close()
        raise
    return trio.SocketStream(connecting)
