"""The one origin of ``khala up``: one port in front of control, runtime and nodes, in the process of ``khala up``."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from khala.adapters.one_origin import OneOrigin
from khala.adapters.origin_routes import origin_routes
from khala.cli.up_ports import HOST
from khala_service.logs import get_logger
from khala_service.supervision import supervise

if TYPE_CHECKING:
    from khala.cli.up_ports import UpPorts

__all__ = ["serve_origin"]

# A WebSocket through here is a descriptor of the client's, one to the node and, in one process, the node's own:
# three of them for each of OriginLimits.connections_max, and the rest of the system.
DESCRIPTORS: Final = 4_096

_log = get_logger(__name__)


async def serve_origin(
    ports: UpPorts, leaving: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve the one origin for ever; started once it listens. A crash ends its connections and nothing else.

    It says that it is not ready from the moment at which ``leaving`` is set.

    Raises:
        OSError: The port was taken since it was chosen.
    Cancellation: every connection breaks off.
    """
    table = origin_routes(
        control=ports.control,
        runtime=ports.runtime,
        # Each once: where nodes share a port, the kernel takes turns.
        nodes=list(dict.fromkeys(ports.node(number) for number in range(1, ports.nodes + 1))),
    )
    _make_room()
    # The first time outside the supervised task, which would try a taken port for ever.
    opened = [await trio.open_tcp_listeners(ports.origin, host=HOST)]

    async def serve_once(*, task_status: trio.TaskStatus[None]) -> None:
        listeners = opened.pop() if opened else await trio.open_tcp_listeners(ports.origin, host=HOST)
        await OneOrigin(table, leaving=leaving).serve(listeners, task_status=task_status)

    await supervise("origin", serve_once, restarted=_note_restart, task_status=task_status)


def _make_room() -> None:
    """Let this process open as many descriptors as it may need, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _note_restart(kind: str) -> None:
    _log.warning("task_restarts", kind=kind)
