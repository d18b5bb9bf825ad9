"""Lets pages of listed origins call a service (CORS), and nobody else's.

An answer to a listed origin names that origin, never ``*``, and says ``Vary: Origin`` always, so that no
cache gives one page's answer to another. A preflight is answered here, for every path alike: whether a
path exists is not its business. The check protects people with a browser; what a caller may do is decided
by its credential alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from quart import Response, request

from khala_service.request_context import REQUEST_ID_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quart_trio import QuartTrio

__all__ = ["add_cors"]

ALLOWED_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"
ALLOWED_HEADERS: Final = (
    f"Authorization, Content-Type, Accept, If-None-Match, Idempotency-Key, {REQUEST_ID_HEADER}"
)
# What a page may read besides the body.
EXPOSED_HEADERS: Final = f"ETag, Retry-After, {REQUEST_ID_HEADER}"
# Chrome keeps no preflight longer than 2 h. Longer: a changed list takes that long to be felt.
PREFLIGHT_MAX_AGE_S: Final = 600


def add_cors(app: QuartTrio, origins: Iterable[str], *, with_credentials: bool) -> None:
    """Let pages of these origins call the application.

    Args:
        app: Gets hooks before and after its requests.
        origins: Exact, as judged by `origins.check_origins`.
        with_credentials: Whether cookies are for them, too.
    """
    allowed = frozenset(origins)

    @app.before_request
    async def answer_preflight() -> Response | None:
        is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not is_preflight or request.headers.get("Origin") not in allowed:
            return None
        response = Response("", status=204)
        response.headers["Access-Control-Allow-Methods"] = ALLOWED_METHODS
        response.headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
        response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_MAX_AGE_S)
        return response

    @app.after_request
    async def name_origin(response: Response) -> Response:
        # What a route offers to every page (a public file) it says itself.
        if "Access-Control-Allow-Origin" in response.headers:
            return response
        response.vary.add("Origin")
        origin = request.headers.get("Origin")
        if origin in allowed:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
            if with_credentials:
                response.headers["Access-Control-Allow-Credentials"] = "true"
        return response
