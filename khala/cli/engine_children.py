"""PostgreSQL and NATS as children of ``khala up --split``; see children.py for what a child is."""

from __future__ import annotations

import signal
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio

from khala.adapters.embedded_nats import nats_command, wait_nats
from khala.adapters.embedded_postgres import PostgresServer, open_embedded_postgres
from khala.cli.children import end_process, open_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from khala.cli.child_logs import ChildLog
    from khala.cli.children import Ending, Running

__all__ = ["NatsChild", "PostgresChild"]

END_POLL_S: Final = 0.05
# A fast stop cuts connections and writes a checkpoint: 0.04 s. SIGQUIT leaves that to the next start.
POSTGRES_ENDING: Final[Ending] = ((signal.SIGINT, 1.2), (signal.SIGQUIT, 0.3))
NATS_ENDING: Final[Ending] = ((signal.SIGTERM, 0.3),)


@attrs.define(eq=False)
class NatsChild:
    """The embedded NATS server."""

    name: str
    data_dir: Path
    port: int
    log: ChildLog

    @asynccontextmanager
    async def open(self, launched: Callable[[int], None]) -> AsyncIterator[Running]:
        """See Child."""
        command = nats_command(self.data_dir, self.port)

        async def wait_ready() -> None:
            await wait_nats(command)

        async with open_process(
            command.argv,
            environ=command.env,
            log=self.log,
            is_ready=wait_ready,
            ending=NATS_ENDING,
            stdin=subprocess.DEVNULL,
            launched=launched,
        ) as running:
            yield running

    def last_words(self) -> str:
        """See Child."""
        return self.log.last_words()


@attrs.frozen(eq=False)
class RunningPostgres:
    """A postmaster; ``open_embedded_postgres`` returned it when it was ready."""

    server: PostgresServer

    @property
    def pid(self) -> int:
        """See Running."""
        return self.server.process.pid

    async def wait_ready(self) -> None:
        """See Running."""
        await trio.lowlevel.checkpoint()

    async def wait_ended(self) -> int:
        """See Running."""
        while (status := self.server.process.poll()) is None:  # noqa: ASYNC110 - it sets no trio.Event
            await trio.sleep(END_POLL_S)
        return status

    async def end(self) -> None:
        """See Running. Backends that a kill leaves behind are ended with the block."""
        await end_process(self.server.process, self.wait_ended, POSTGRES_ENDING)


@attrs.define(eq=False)
class PostgresChild:
    """The embedded PostgreSQL. It keeps the port of its first start: the services know it by that.

    Attributes:
        server: The present one; None until the first start.
    """

    name: str
    data_dir: Path
    server: PostgresServer | None = None

    @asynccontextmanager
    async def open(self, launched: Callable[[int], None]) -> AsyncIterator[Running]:
        """See Child. Backends that outlived a killed postmaster are ended first."""
        port = 0 if self.server is None else self.server.port
        async with open_embedded_postgres(self.data_dir, port=port, launched=launched) as server:
            self.server = server
            yield RunningPostgres(server)

    def last_words(self) -> str:
        """Return the last thing of consequence in its log."""
        words = [] if self.server is None else self.server.last_words()
        grave = [line for line in words if "FATAL:" in line or "PANIC:" in line]
        return grave[-1] if grave else ""
