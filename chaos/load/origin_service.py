"""Child process of the origin benchmark: an HTTP service like ours, whose one route does nothing.

    python -m chaos.load.origin_service

Prints its port, answers POST /v1/echo with the body that it got, and leaves when its input ends.
"""

from __future__ import annotations

import sys
from functools import partial

import trio
from quart import Response

from khala_service.http_edge import make_app, read_bytes, serve
from khala_service.logs import configure_logging
from khala_service.metrics import MetricsRegistry


async def run() -> None:
    """Serve one measurement."""
    # A line per request is the service's cost, not the router's.
    configure_logging("benchmark", level="warning")
    app = make_app("benchmark", metrics=MetricsRegistry("benchmark"), ready_checks={})

    @app.post("/v1/echo")
    async def echo() -> Response:
        return Response(await read_bytes(max_bytes=1 << 20))

    async with trio.open_nursery() as nursery:
        port = await nursery.start(partial(serve, app, host="127.0.0.1", port=0, shutdown=trio.Event()))
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(run)
