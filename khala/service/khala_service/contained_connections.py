"""Connections of hypercorn whose troubles stay their own.

As hypercorn comes, an exception in the task of one connection ends the nursery of its server, and with it
every service of the process: a single client could stop all of `khala up`. And its HTTP/2 raises such an
exception for data that arrives after the answer was sent, which every refusal before the body provokes.

hypercorn looks both classes up by name in its own modules; `use_contained_connections` puts ours there.
That this works is proven at the socket: tests/integration/khala_service/test_contained_connections.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypercorn.protocol
import hypercorn.trio.run
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.trio.tcp_server import TCPServer

from khala_service.logs import get_logger

if TYPE_CHECKING:
    from hypercorn.protocol.events import Event

__all__ = ["use_contained_connections"]

_log = get_logger(__name__)


class ContainedConnection(TCPServer):
    """One connection. Its owner is the server's nursery, which must outlive it."""

    async def run(self) -> None:
        """Serve the connection. Cancellation: closes it."""
        try:
            await super().run()
        except* Exception as errors:  # noqa: BLE001 - the one place that contains a connection's crash
            _log.exception("connection_failed", exc_info=errors)

    async def _read_data(self) -> None:
        await super()._read_data()
        # The client has closed, or its side of it. As hypercorn comes, whoever leaves between two requests, as every
        # probe does, keeps a descriptor and two tasks until the keep-alive time-out. While a request is being
        # answered that clock stands still, and this changes nothing.
        await self.idle_task.stop()


class _AnsweredStream:
    """Where the rest of a body goes whose request was answered already."""

    async def handle(self, event: Event) -> None:
        """Drop what has arrived."""


class _Streams(dict[int, Any]):
    """The open streams of an HTTP/2 connection by id; whoever looks for another finds one that was answered."""

    def __missing__(self, stream_id: int) -> _AnsweredStream:
        # Race: the route answers without reading; the client, unaware, goes on sending.
        #   client:  HEADERS ................................ DATA
        #   route:             answer -> the stream is removed
        # The caller gives the dropped bytes back to the connection's window, which other streams share.
        return _AnsweredStream()


class PatientH2Protocol(H2Protocol):
    """HTTP/2 that lets a body end in peace after its request was answered."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]  # passed on as hypercorn gives them
        self.streams = _Streams()


def use_contained_connections() -> None:
    """Make hypercorn serve every connection from now on by our classes. Repeating it changes nothing."""
    hypercorn.trio.run.TCPServer = ContainedConnection  # type: ignore[attr-defined]
    hypercorn.protocol.H2Protocol = PatientH2Protocol  # type: ignore[attr-defined, assignment]
