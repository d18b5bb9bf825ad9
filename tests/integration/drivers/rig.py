"""A NATS server that tests may kill, and drivers that are connected to it."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from fanout_drivers.background import open_background
from fanout_drivers.nats import NatsDriver, NatsLimits
from fanout_drivers.nats_connection import NatsLogin
from khala.adapters.embedded_nats import HOST, open_embedded_nats
from khala_service.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from khala.adapters.embedded_nats import NatsServer

__all__ = ["PREFIX", "Broker", "free_port", "running_driver"]

PREFIX = "khalatest"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class Broker:
    """One place for a server, which is there between ``start`` and ``kill``."""

    def __init__(self, data_dir: Path, nursery: trio.Nursery) -> None:
        """Choose a port; start nothing."""
        self.port = free_port()
        self.password = ""
        self._data_dir = data_dir
        self._nursery = nursery
        self._server: NatsServer | None = None
        self._ended = trio.Event()

    async def start(self) -> None:
        """Start the server; it answers."""
        self._server = await self._nursery.start(self._serve)
        assert self._server is not None
        self.password = self._server.password

    async def _serve(self, task_status: trio.TaskStatus[NatsServer]) -> None:
        self._ended = trio.Event()
        async with open_embedded_nats(self._data_dir, self.port) as server:
            task_status.started(server)
            await server.process.wait()
        self._ended.set()

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it by its pid, and wait until it is gone."""
        assert self._server is not None
        os.kill(self._server.pid, number)
        await self._ended.wait()
        assert self._server.process.returncode == -number

    def freeze(self) -> None:
        """Stop it where it is: its sockets stay open, nothing answers."""
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGSTOP)
        # The signal is on its way when kill returns: the server could still answer.
        os.waitid(os.P_PID, self._server.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGCONT)

    def driver(self, *, limits: NatsLimits | None = None, password: str | None = None) -> NatsDriver:
        """Return a driver for this place; not started."""
        login = NatsLogin("khala-test", "khala", Secret(password or self.password or "not yet known"))
        return NatsDriver((f"nats://{HOST}:{self.port}",), login, PREFIX, limits or NatsLimits())


@asynccontextmanager
async def running_driver(driver: NatsDriver) -> AsyncIterator[NatsDriver]:
    """Keep a driver connected for the length of the block."""
    async with open_background(driver.serve):
        yield driver
