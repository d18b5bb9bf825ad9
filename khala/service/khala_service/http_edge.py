"""Makes the HTTP application of a service: what all routes of all services have in common.

Request ids, bounded bodies, Error bodies for every refusal (the framework's own included), health,
readiness, metrics, CORS, the client's address behind proxies, and the refusal of event streams (live data
has one lane, the WebSocket). Routes and authentication belong to the services.
"""

from collections.abc import Callable, Mapping
from typing import Final

import attrs
from quart import Response, g, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from khala_contracts import reason_codes
from khala_contracts.errors import WireError
from khala_contracts.reason_codes import ReasonCode
from khala_service.client_address import TrustedProxies
from khala_service.code_pages import add_code_pages
from khala_service.errors import SerializationTrouble, Unavailable
from khala_service.http_bodies import (
    JSON,
    PROTOBUF,
    read_body,
    read_bytes,
    respond,
)
from khala_service.http_connection import BoundedConnection, BoundedRequest
from khala_service.http_cors import add_cors
from khala_service.http_observer import ROUTE_KEY, RequestObserver
from khala_service.http_problems import HttpProblem, error_message
from khala_service.http_server import serve
from khala_service.logs import get_logger
from khala_service.metrics import METRICS_CONTENT_TYPE, MetricsRegistry
from khala_service.readiness import OK, Readiness, ReadyCheck, ReadyReport

__all__ = [
    "EdgePolicy",
    "HttpProblem",
    "ReadyCheck",
    "make_app",
    "read_body",
    "read_bytes",
    "respond",
    "serve",
]

# SPEC section 6: an append request is 4 MiB; base64 and field names make it larger in JSON.
BODY_MAX_BYTES: Final = 6 * 1024 * 1024
# What our routes can answer with. A client that accepts none of it (an event stream) gets 406
# before anything is done, not after.
OFFERED_TYPES: Final = (
    JSON,
    PROTOBUF,
    "application/x-ndjson",
    "application/x-protobuf-stream",
    "text/html",
    "text/plain",
    "text/css",
    "text/javascript",
    "image/svg+xml",
    "image/png",
)
# Time for the client to take a response; a streaming route sets `response.timeout = None`.
RESPONSE_TIMEOUT_S: Final = 60
QUIET_ROUTES: Final = frozenset({"/healthz", "/readyz", "/metrics"})

_log = get_logger(__name__)


@attrs.frozen
class EdgePolicy:
    """Who is on the other side of an application; the default: no pages of others, no proxies.

    Attributes:
        cors_origins: Origins whose pages may call it, besides its own.
        has_cookies: Whether their cookies count, too.
        proxies: Whose word about the client's address is believed.
    """

    cors_origins: tuple[str, ...] = ()
    has_cookies: bool = False
    proxies: TrustedProxies = attrs.field(factory=TrustedProxies)


class _App(QuartTrio):
    request_class = BoundedRequest
    asgi_http_class = BoundedConnection


def make_app(
    name: str,
    *,
    metrics: MetricsRegistry,
    ready_checks: Mapping[str, ReadyCheck],
    body_max_bytes: int = BODY_MAX_BYTES,
    edge: EdgePolicy | None = None,
    refused: Callable[[HttpProblem], None] | None = None,
) -> QuartTrio:
    """Return an application with /healthz, /readyz and /metrics, ready for routes.

    Args:
        name: The service; field `service` of its log lines.
        metrics: Rendered at /metrics; gets the request metrics.
        ready_checks: By name; looked at on every probe, so a service may add to it later.
        body_max_bytes: Limit of a body read whole; a route may set its own.
        edge: Pages and proxies on the other side.
        refused: Told of every refusal inside its request, before it is answered; must not wait or raise.
    """
    edge = edge or EdgePolicy()
    app = _App(name, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = None  # http_bodies.py limits, piece by piece
    app.config["RESPONSE_TIMEOUT"] = RESPONSE_TIMEOUT_S
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    unknown_fields = metrics.counter(
        "khala_http_unknown_fields_total", "Unknown fields in binary request bodies.", ("route",)
    )

    add_cors(app, edge.cors_origins, with_credentials=edge.has_cookies)

    @app.before_request
    async def begin() -> None:
        g.body_max_bytes = body_max_bytes
        if request.url_rule is not None:
            request.scope[ROUTE_KEY] = request.url_rule.rule  # type: ignore[typeddict-unknown-key]
        accepted = request.accept_mimetypes
        if accepted and not any(accepted.quality(offered) for offered in OFFERED_TYPES):
            raise HttpProblem(reason_codes.NOT_ACCEPTABLE, {"supported": f"{PROTOBUF}, {JSON}"})

    @app.after_request
    async def count_unknown_fields(response: Response) -> Response:
        count = g.get("unknown_fields", 0)
        if count and request.url_rule is not None:
            unknown_fields.labels(request.url_rule.rule).inc(count)
        return response

    _add_error_handlers(app, refused)
    add_code_pages(app)
    _add_probes(app, metrics, Readiness(ready_checks))
    app.asgi_app = RequestObserver(  # type: ignore[method-assign]  # as ASGI middleware does
        app.asgi_app,
        service=name,
        metrics=metrics,
        quiet_routes=QUIET_ROUTES,
        proxies=edge.proxies,
    )
    return app


def _add_probes(app: QuartTrio, metrics: MetricsRegistry, readiness: Readiness) -> None:
    ready = metrics.gauge("khala_ready", "1 if every readiness check says ok, else 0.")
    checks = metrics.gauge("khala_ready_check", "1 if this readiness check says ok, else 0.", ("check",))

    async def read_report() -> ReadyReport:
        report = await readiness.report()
        ready.set(report.is_ready)
        for name, answer in report.checks.items():
            checks.labels(name).set(answer == OK)
        return report

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> tuple[dict[str, object], int]:
        report = await read_report()
        status = 200 if report.is_ready else 503
        return {"ready": report.is_ready, "checks": dict(report.checks)}, status

    @app.get("/metrics")
    async def render_metrics() -> Response:
        # Also measures the clock; whoever scrapes needs no probe beside it to see the truth.
        await read_report()
        return Response(metrics.render(), content_type=METRICS_CONTENT_TYPE)


def _add_error_handlers(app: QuartTrio, refused: Callable[[HttpProblem], None] | None) -> None:
    @app.errorhandler(HttpProblem)
    async def refuse(problem: HttpProblem) -> Response:
        if refused is not None:
            refused(problem)
        headers: dict[str, str] = {}
        if problem.retry_after_ms:
            headers["Retry-After"] = str(-(-problem.retry_after_ms // 1000))
        if problem.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return respond(error_message(problem), problem.status, headers)

    @app.errorhandler(WireError)
    async def refuse_message(error: WireError) -> Response:
        return await refuse(HttpProblem(error.reason, error.details))

    @app.errorhandler(Unavailable)
    async def say_unavailable(error: Unavailable) -> Response:
        _log.warning("unavailable", reason=error.reason, outcome_unknown=error.outcome_unknown)
        retry_after_ms = max(1, round(error.retry_after_s * 1000))
        return await refuse(
            HttpProblem(reason_codes.UNAVAILABLE, error.details, retry_after_ms=retry_after_ms)
        )

    @app.errorhandler(SerializationTrouble)
    async def say_try_again(error: SerializationTrouble) -> Response:
        # Rolled back because of another transaction: nothing was done.
        return await say_unavailable(Unavailable(f"database_contention_{error.sqlstate}"))

    @app.errorhandler(HTTPException)
    async def translate(error: HTTPException) -> Response:
        response = await refuse(HttpProblem(_reason_of(error.code or 500)))
        for allowed in getattr(error, "valid_methods", None) or ():
            response.headers.add("Allow", allowed)
        return response

    @app.errorhandler(Exception)
    async def fail(error: Exception) -> Response:
        _log.error("request_failed", exc_info=error)
        return await refuse(HttpProblem(reason_codes.INTERNAL))


def _reason_of(status: int) -> ReasonCode:
    """Return the registered reason for a refusal of the framework itself."""
    known = {
        404: reason_codes.NOT_FOUND,
        405: reason_codes.METHOD_NOT_ALLOWED,
        406: reason_codes.NOT_ACCEPTABLE,
        413: reason_codes.PAYLOAD_TOO_LARGE,
        415: reason_codes.UNSUPPORTED_MEDIA_TYPE,
    }
    if status in known:
        return known[status]
    return reason_codes.INVALID_ARGUMENT if status < 500 else reason_codes.INTERNAL
