"""Which service answers a path of the one origin, and how long anybody may take there.

    /sync/...                      a node, which may turn the connection into a WebSocket
    /v1/...                        runtime
    /internal/..., /metrics        nobody: services and operators speak to the services themselves
    anything else                  control

Paths are compared as they were sent, by whole segments: who answers decodes for itself, and nobody decodes twice.
Only what is for nobody is also found under every other spelling that a service would read as that path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["HEAD_MAX_BYTES", "OriginLimits", "Route", "RouteTable", "origin_routes"]

# Request line and headers. The services read 32 KiB (khala_service/http_server.py); the difference is for what
# we add, so that who passes here is not refused there.
HEAD_MAX_BYTES: Final = 31 * 1024


@attrs.frozen
class Route:
    """Who answers paths that begin with ``prefix``: one of these ports; none means 404.

    Attributes:
        prefix: Whole segments, without a slash at the end; ``/`` is every path.
        ports: Services that can each do the work; they take turns.
        is_upgradable: Whether a connection may become a WebSocket here.
    """

    prefix: str
    ports: tuple[int, ...] = ()
    is_upgradable: bool = False
    host: str = "127.0.0.1"

    def covers(self, path: str) -> bool:
        """Return whether this path begins with our prefix."""
        return self.prefix in ("/", path) or path.startswith(f"{self.prefix}/")


@attrs.frozen
class OriginLimits:
    """Bounds of one origin; times in seconds.

    Attributes:
        connections_max: Open connections of clients; one more is answered 503.
        head_timeout_s: From the first byte of a request to the end of its headers.
        idle_timeout_s: Without a request on a kept connection.
        silence_s: Without a byte in either direction while a request is answered. Longer than any pause
            of a streamed body should be: an agent may think for minutes between two events.
        connect_timeout_s: To connect to a service, which is near.
        linger_s: For a peer to read our last bytes before its socket is closed.
    """

    connections_max: int = 1_000
    head_timeout_s: float = 10.0
    idle_timeout_s: float = 75.0
    silence_s: float = 600.0
    connect_timeout_s: float = 5.0
    linger_s: float = 2.0


class RouteTable:
    """The routes of one origin."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Route by the longest prefix; one route must have the prefix ``/``."""
        self._routes = sorted(routes, key=lambda route: len(route.prefix), reverse=True)
        assert self._routes[-1].prefix == "/", "every path has a route"

    def find(self, target: bytes) -> Route:
        """Return the route of a request target that begins with a slash."""
        path = target.partition(b"?")[0].decode("ascii", errors="replace")
        # As the services' framework reads it: escapes once, slashes at the beginning as one.
        read = "/" + unquote(path).lstrip("/")
        closed = (route for route in self._routes[:-1] if not route.ports and route.covers(read))
        return next(closed, None) or next(route for route in self._routes if route.covers(path))

    def __iter__(self) -> Iterator[Route]:
        """Iterate over the routes, longest prefix first."""
        return iter(self._routes)


def origin_routes(*, control: int, runtime: int, nodes: Sequence[int]) -> RouteTable:
    """Return the table above, for these ports."""
    return RouteTable(
        (
            Route("/", (control,)),
            Route("/v1", (runtime,)),
            Route("/sync", tuple(nodes), is_upgradable=True),
            Route("/internal"),
            Route("/metrics"),
        )
    )
