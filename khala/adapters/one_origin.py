"""One origin for everything: a browser and a curl command need to know one port.

For `khala up`. A deployment puts its load balancer there, with the same table of paths (runbooks/deploy.md).
Which path goes where is in origin_routes.py, what happens on a connection in origin_requests.py. Here:
accepting, the bound on connections, and that the trouble of one connection stays its own.

Invariant: connections_open <= connections_max + REFUSALS_MAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import h11
import trio

from khala.adapters.origin_messages import Refused, refusal_events
from khala.adapters.origin_requests import RETRY_AFTER_MS, ClientConnection
from khala.adapters.origin_routes import OriginLimits
from khala.adapters.origin_upstreams import Upstreams
from khala.adapters.origin_wire import linger, wire_of
from khala_contracts import reason_codes
from khala_service.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khala.adapters.origin_routes import RouteTable
    from khala.adapters.origin_wire import AnyStream

__all__ = ["OneOrigin"]

# Clients that are being told that there is no room; beyond that nobody is told.
REFUSALS_MAX: Final = 64

_log = get_logger(__name__)


class OneOrigin:
    """The router.

    Attributes:
        connections_open: Of clients, those that are being refused included.
    """

    def __init__(
        self,
        table: RouteTable,
        *,
        scheme: str = "http",
        limits: OriginLimits | None = None,
        leaving: trio.Event | None = None,
    ) -> None:
        """Route by ``table``; ``scheme`` is what clients speak to us, ``leaving`` is set when the system ends."""
        self._table = table
        self._scheme = scheme
        self._limits = limits or OriginLimits()
        self._leaving = trio.Event() if leaving is None else leaving
        self._upstreams = {route.prefix: Upstreams(route, self._limits) for route in table}
        self.connections_open = 0

    async def serve(
        self,
        listeners: Sequence[trio.abc.Listener[AnyStream]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve for ever; the listeners are closed at the end.

        Cancellation: every connection breaks off. Cancel it last: who drains behind it has clients here.
        """
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(trio.serve_listeners, self._serve_client, listeners)
                task_status.started()
        finally:
            for upstreams in self._upstreams.values():
                upstreams.close()

    async def _serve_client(self, stream: AnyStream) -> None:
        self.connections_open += 1
        try:
            async with stream:
                excess = self.connections_open - self._limits.connections_max
                if excess <= 0:
                    await self._serve_requests(stream)
                elif excess <= REFUSALS_MAX:
                    await self._refuse(stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except* Exception as group:  # noqa: BLE001 - the one place that contains a connection's crash
            _log.error("origin_connection_crashed", exc_info=group)
        finally:
            self.connections_open -= 1

    async def _serve_requests(self, stream: AnyStream) -> None:
        try:
            address = str(wire_of(stream).socket.getpeername()[0])
        except OSError:
            return  # gone again
        connection = ClientConnection(
            stream,
            address=address,
            scheme=self._scheme,
            table=self._table,
            upstreams=self._upstreams,
            limits=self._limits,
            leaving=self._leaving,
        )
        await connection.serve()

    async def _refuse(self, stream: AnyStream) -> None:
        http = h11.Connection(h11.SERVER)
        refused = Refused(503, reason_codes.UNAVAILABLE, retry_after_ms=RETRY_AFTER_MS)
        await stream.send_all(b"".join(http.send(event) or b"" for event in refusal_events(refused)))
        await linger(stream, linger_s=self._limits.linger_s)
