"""NATS servers that tests may kill, alone or in a cluster, and drivers that are connected to them."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from fanout_drivers.background import open_background
from fanout_drivers.nats import NatsDriver, NatsLimits
from fanout_drivers.nats_login import NatsLogin
from khala.adapters.embedded_nats import HOST, open_embedded_nats
from khala.adapters.embedded_nats_config import ROLES, NatsClusterPlace, NatsRole
from khala_service.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from khala.adapters.embedded_nats import NatsCommand, NatsServer
    from khala.adapters.embedded_nats_config import NatsServerTls

__all__ = ["PREFIX", "TESTER", "Broker", "Cluster", "free_port", "login_of", "running_driver"]

PREFIX = "khalatest"
# For tests of one driver object that publishes and subscribes.
TESTER = NatsRole(name="tester", may_publish=(">",), may_subscribe=(">",))
ALL_ROLES = (*ROLES, TESTER)
SERVERS = 3


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def login_of(command: NatsCommand, role: str = "tester") -> NatsLogin:
    """Return the login of a role at an embedded server."""
    user, password = command.login(role)
    return NatsLogin(f"khala-{role}", user, Secret(password))


class Broker:
    """One place for a server, which is there between ``start`` and ``kill``."""

    def __init__(
        self,
        data_dir: Path,
        nursery: trio.Nursery,
        *,
        roles: Sequence[NatsRole] = ALL_ROLES,
        cluster: NatsClusterPlace | None = None,
        tls: NatsServerTls | None = None,
    ) -> None:
        """Choose a port; start nothing."""
        self.port = free_port()
        self.password = ""
        self._data_dir = data_dir
        self._nursery = nursery
        self._roles, self._cluster, self._tls = roles, cluster, tls
        self._server: NatsServer | None = None
        self._ended = trio.Event()

    async def start(self) -> None:
        """Start the server; it answers."""
        self._server = await self._nursery.start(self._serve)
        assert self._server is not None
        self.password = self._server.command.passwords["tester"]

    @property
    def command(self) -> NatsCommand:
        """How the present server was started."""
        assert self._server is not None
        return self._server.command

    @property
    def is_running(self) -> bool:
        """Whether there is a server."""
        return self._server is not None and not self._ended.is_set()

    async def _serve(self, task_status: trio.TaskStatus[NatsServer]) -> None:
        self._ended = trio.Event()
        async with open_embedded_nats(
            self._data_dir, self.port, roles=self._roles, cluster=self._cluster, tls=self._tls
        ) as server:
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
        login = NatsLogin("khala-test", TESTER.user, Secret(password or self.password or "not yet known"))
        return NatsDriver((f"nats://{HOST}:{self.port}",), login, PREFIX, limits or NatsLimits())


class Cluster:
    """Three servers on one machine, each of which may be killed and started again."""

    def __init__(self, data_dir: Path, nursery: trio.Nursery) -> None:
        """Choose places; start nothing."""
        ports = [free_port() for _ in range(SERVERS)]
        self.brokers = []
        for number, port in enumerate(ports):
            folder = data_dir / f"server-{number}"
            (folder / "secrets").mkdir(parents=True, mode=0o700)
            for role in ALL_ROLES:
                (folder / "secrets" / f"nats_{role.name}").write_text(f"password-of-{role.name}")
            others = tuple(other for other in ports if other != port)
            place = NatsClusterPlace(port=port, others=others, password="password-of-routes")
            self.brokers.append(Broker(folder, nursery, cluster=place))

    async def start(self) -> None:
        """Start every server that is not there, and return when each has the others' routes."""
        for broker in self.brokers:
            if not broker.is_running:
                await broker.start()
        for broker in self.brokers:
            while await count_members(broker.port) < SERVERS:
                await trio.sleep(0.02)

    @property
    def urls(self) -> tuple[str, ...]:
        """Where clients connect."""
        return tuple(f"nats://{HOST}:{broker.port}" for broker in self.brokers)

    def broker_of(self, driver: NatsDriver) -> Broker:
        """Return the server that a driver is connected to."""
        assert driver._session is not None
        server = driver._session._client.connected_url
        assert server is not None
        return next(broker for broker in self.brokers if broker.port == server.port)

    def driver(self, role: str = "tester", limits: NatsLimits | None = None) -> NatsDriver:
        """Return a driver with the login of a role, for all servers; not started."""
        login = login_of(self.brokers[0].command, role)
        return NatsDriver(self.urls, login, PREFIX, limits or NatsLimits())


async def count_members(port: int) -> int:
    """Return how many servers of its cluster a server names to its clients."""
    line = b""
    async with await trio.open_tcp_stream(HOST, port) as stream:
        while not line.endswith(b"\r\n"):
            line += await stream.receive_some(4_096)
    return len(json.loads(line.removeprefix(b"INFO ")).get("connect_urls", ()))


@asynccontextmanager
async def running_driver(driver: NatsDriver) -> AsyncIterator[NatsDriver]:
    """Keep a driver connected for the length of the block."""
    async with open_background(driver.serve):
        yield driver
