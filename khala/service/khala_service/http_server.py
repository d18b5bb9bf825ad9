"""Runs an application under hypercorn inside the caller's nursery."""

import logging
import socket
import ssl
from functools import partial
from typing import Final

import hypercorn.trio
import trio
from hypercorn.config import Config
from quart_trio import QuartTrio

from khala_service.contained_connections import use_contained_connections
from khala_service.tls import HANDSHAKE_TIMEOUT_S, ServerTls, TlsFiles, open_tls

# Longer than any load balancer's idle limit would be useless, shorter costs handshakes.
KEEP_ALIVE_TIMEOUT_S: Final = 75
# Request line and headers; a sync token is about 4 KiB.
HEADERS_MAX_BYTES: Final = 32 * 1024
# In-flight requests may finish for this long after `shutdown`.
GRACEFUL_TIMEOUT_S: Final = 5.0
BACKLOG: Final = 512


class _Config(Config):
    """hypercorn's configuration with a certificate that can be replaced while it serves."""

    tls: ServerTls | None = None

    @property
    def ssl_enabled(self) -> bool:
        return self.tls is not None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        return None if self.tls is None else self.tls.context


async def serve(
    app: QuartTrio,
    *,
    host: str,
    port: int,
    shutdown: trio.Event,
    graceful_timeout_s: float = GRACEFUL_TIMEOUT_S,
    notice_s: float = 0.0,
    tls: TlsFiles | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1.1 until `shutdown` and `notice_s` more, then let requests finish for `graceful_timeout_s`.

    The notice is for whoever sends traffic here: `/readyz` says no, and nobody is turned away yet.

    Start it with `nursery.start`: the value is the bound port, which matters for `port` 0. What goes
    wrong in one connection ends that connection only. HTTP/2 is answered to clients that insist on it.

    Raises:
        OSError: the address is taken or not ours.
        ConfigRefused: the files of `tls` hold no certificate with its key.
    Cancellation: closes everything at once.
    """
    # Bound here: hypercorn leaves the socket open if binding fails, and wraps the error.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    bound_port: int = listener.getsockname()[1]
    use_contained_connections()
    config = _Config()
    config.ssl_handshake_timeout = HANDSHAKE_TIMEOUT_S
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.graceful_timeout = graceful_timeout_s
    config.keep_alive_timeout = KEEP_ALIVE_TIMEOUT_S
    config.h11_max_incomplete_size = HEADERS_MAX_BYTES
    config.backlog = BACKLOG
    config.alpn_protocols = ["http/1.1"]

    async def wait_closing() -> None:
        await shutdown.wait()
        await trio.sleep(notice_s)

    serve_hypercorn = partial(hypercorn.trio.serve, app, config, shutdown_trigger=wait_closing, mode="asgi")
    with open_tls(tls) as config.tls:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_hypercorn)
            task_status.started(bound_port)
