"""A small application with every kind of route, for the tests of the HTTP edge."""

import attrs
from quart import Response, g, request
from quart_trio import QuartTrio

from khala_contracts import http_messages as m
from khala_contracts import reason_codes
from khala_service.errors import PeerRefused, SerializationTrouble, Unavailable
from khala_service.http_edge import HttpProblem, ReadyCheck, make_app, read_body, read_bytes, respond
from khala_service.metrics import MetricsRegistry
from khala_service.request_context import current_request_id


@attrs.define
class Edge:
    """The application with the things a test looks at."""

    app: QuartTrio
    metrics: MetricsRegistry
    ready_checks: dict[str, ReadyCheck]

    def requests(self, route: str, method: str, status: int) -> float:
        """Return the counter of one series."""
        labels = {"route": route, "method": method, "status": str(status)}
        return self.metrics.sample("khala_http_requests_total", labels) or 0.0


def make_edge(*, body_max_bytes: int = 1000) -> Edge:
    """Return a fresh application."""
    metrics = MetricsRegistry("edge", process_metrics=False)
    checks: dict[str, ReadyCheck] = {}
    app = make_app("edge", metrics=metrics, ready_checks=checks, body_max_bytes=body_max_bytes)
    _add_routes(app)
    return Edge(app, metrics, checks)


def _add_routes(app: QuartTrio) -> None:
    failures: dict[str, Exception] = {
        "problem": HttpProblem(reason_codes.RATE_LIMITED, {"field": "events"}, retry_after_ms=1_001),
        "unauthenticated": HttpProblem(reason_codes.UNAUTHENTICATED),
        "unavailable": Unavailable("database_busy", 0.25, outcome_unknown=True),
        "contention": SerializationTrouble("40P01"),
        "peer": PeerRefused("control", "not_found", 404, {}),
        "bug": RuntimeError("canary-stack"),
        "group": ExceptionGroup("two", [HttpProblem(reason_codes.NOT_FOUND)]),
    }

    @app.post("/v1/echo/<name>")
    async def echo(name: str) -> Response:
        message = await read_body(m.DevSignInRequest)
        message.device_id = name
        return respond(message, 201, {"Location": "/v1/echo"})

    @app.post("/v1/small")
    async def small() -> Response:
        content = await read_bytes(max_bytes=10)
        return Response(str(len(content)))

    @app.get("/v1/id")
    async def request_id() -> Response:
        g.seen = True
        return respond(m.DevSignInRequest(login=current_request_id()))

    @app.get("/v1/fail/<how>")
    async def fail(how: str) -> Response:
        raise failures[how]

    @app.post("/v1/whole")
    async def whole() -> Response:
        return Response(await request.get_data())
