"""Child process of the origin benchmark: the one origin alone, before ports that it is told.

    python -m chaos.load.origin_router PORT HTTP_PORT NODE_PORT

HTTP goes to HTTP_PORT, WebSockets to NODE_PORT. Runs until it is ended.
"""

from __future__ import annotations

import sys

import trio

from khala.adapters.one_origin import OneOrigin
from khala.adapters.origin_routes import origin_routes


async def run(port: int, http_port: int, node_port: int) -> None:
    """Serve until cancelled."""
    table = origin_routes(control=http_port, runtime=http_port, nodes=[node_port])
    await OneOrigin(table).serve(await trio.open_tcp_listeners(port, host="127.0.0.1"))


if __name__ == "__main__":
    port_, http_port_, node_port_ = map(int, sys.argv[1:4])
    trio.run(run, port_, http_port_, node_port_)
