"""The ring around every HTTP application: request id, client address, metrics and one log line per request.

An ASGI middleware, so that it also sees what the framework answers by itself and requests whose
client went away. Says the route's template, never the path or query: those carry ids, and with a
careless client credentials.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from khala_service.client_address import TrustedProxies
from khala_service.http_connection import Event, Receive, Scope, Send
from khala_service.identifiers import SystemIds
from khala_service.logs import bind_log_context, get_logger
from khala_service.metrics import MetricsRegistry
from khala_service.request_context import REQUEST_ID_HEADER, is_request_id, set_request_id

AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

ROUTE_KEY: Final = "khala.route"
UNMATCHED_ROUTE: Final = "unmatched"
# What proxies write when the client left before the answer; never sent.
_CLIENT_LEFT: Final = 499
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SCHEMES: Final = ("http", "https")
_HEADER: Final = REQUEST_ID_HEADER.lower().encode()

_log = get_logger(__name__)


class RequestObserver:
    """Wraps the ASGI callable of one application; made by `make_app`."""

    def __init__(
        self,
        app: AsgiApp,
        *,
        service: str,
        metrics: MetricsRegistry,
        quiet_routes: frozenset[str],
        proxies: TrustedProxies,
    ) -> None:
        self._app = app
        self._proxies = proxies
        self._service = service
        self._quiet_routes = quiet_routes
        self._ids = SystemIds()
        self._requests = metrics.counter(
            "khala_http_requests_total", "Requests answered.", ("route", "method", "status")
        )
        self._durations = metrics.histogram(
            "khala_http_request_duration_seconds",
            "From the request line to the last byte handed to the socket.",
            ("route", "method"),
        )
        self._active = metrics.gauge("khala_http_requests_active", "Requests being served.")

    def put_inside(self, wrap: Callable[[AsgiApp], AsgiApp]) -> None:
        """Let a layer see what this observes before the application does."""
        self._app = wrap(self._app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope. Cancellation: counted as a client that left, and passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = self._seen_through_proxies(scope)
        request_id = self._request_id_of(scope)
        set_request_id(request_id)
        bind_log_context(service=self._service, request_id=request_id)
        status = 0

        async def send_with_id(event: Event) -> None:
            nonlocal status
            if event["type"] == "http.response.start":
                status = int(event["status"])
                kept = [pair for pair in event["headers"] if pair[0].lower() != _HEADER]
                event = {**event, "headers": [*kept, (_HEADER, request_id.encode())]}
            await send(event)

        started = time.monotonic()
        with self._active.track_inprogress():
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                self._record(scope, status or _CLIENT_LEFT, time.monotonic() - started)

    def _record(self, scope: Scope, status: int, duration_s: float) -> None:
        route = str(scope.get(ROUTE_KEY, UNMATCHED_ROUTE))
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._durations.labels(route, method).observe(duration_s)
        say = _log.debug if route in self._quiet_routes and status < 500 else _log.info
        say(
            "request",
            route=route,
            method=method,
            status=status,
            duration_ms=round(duration_s * 1000, 2),
            client=_peer_of(scope),
        )

    def _seen_through_proxies(self, scope: Scope) -> Scope:
        """Return the scope as the client's own connection would have made it."""
        peer = _peer_of(scope)
        if not self._proxies.believe(peer):
            return scope
        address = self._proxies.client_address(peer, _values(scope, b"x-forwarded-for"))
        said = _values(scope, b"x-forwarded-proto")
        scheme = said[-1] if said and said[-1] in _SCHEMES else scope["scheme"]
        return {**scope, "client": (address, 0), "scheme": scheme}

    def _request_id_of(self, scope: Scope) -> str:
        given = [value for name, value in scope["headers"] if name.lower() == _HEADER]
        if len(given) == 1:
            text = given[0].decode("latin-1")
            if is_request_id(text):
                return str(text)
        return self._ids.new("req")


def _peer_of(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for found, value in scope["headers"] if found.lower() == name]
