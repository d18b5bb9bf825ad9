"""A runtime in a process of its own, which a test may kill and start again on the same port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from tests.integration.runtime.rig import CONTROL_CREDENTIAL, FANOUT_KEY, RUNTIME_CREDENTIAL
from tests.postgres_cluster import ROOT

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.postgres_cluster import Database

BASE = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
ADMIN_TOKEN = "operator-" + "o" * 32
# Importing everything on a busy machine, then the database.
START_TIMEOUT_S = 60.0


def command(*arguments: str) -> list[str]:
    """Return the command line of `python -m runtime`."""
    return [sys.executable, "-m", "runtime", *arguments]


def environ_of(database: Database, *, control_port: int = 1, port: int = 0, **more: str) -> dict[str, str]:
    """Return the whole environment of a runtime on this database."""
    return BASE | {
        "KHALA_RUNTIME_DATABASE_DSN": database.dsn("khala_runtime"),
        "KHALA_RUNTIME_CONTROL_URL": f"http://127.0.0.1:{control_port}",
        "KHALA_RUNTIME_SERVICE_CREDENTIAL": RUNTIME_CREDENTIAL.reveal(),
        "KHALA_RUNTIME_CONTROL_CREDENTIAL": CONTROL_CREDENTIAL.reveal(),
        "KHALA_RUNTIME_FANOUT_KEY": FANOUT_KEY.hex(),
        "KHALA_RUNTIME_PORT": str(port),
        **more,
    }


@attrs.define(eq=False)
class RuntimeProcess:
    """One life after the other of one runtime.

    Attributes:
        environ: What every life is started with.
        log_file: Where all of them write.
        port: Where all of them listen.
    """

    environ: dict[str, str] = attrs.field(repr=False)
    log_file: Path
    port: int
    _process: subprocess.Popen[str] | None = None

    async def start(self) -> None:
        """Start it and return once it accepts commands."""
        process = self._process = self._launch()
        assert process.stdout is not None
        with trio.fail_after(START_TIMEOUT_S):
            said = await trio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)
        assert said == f"{self.port}\n", self.log_file.read_text(encoding="utf-8")

    def _launch(self) -> subprocess.Popen[str]:
        with self.log_file.open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                command("serve"), env=self.environ, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
            )

    async def wait(self, *, within_s: float = 30.0) -> int:
        """Wait for its end; return the exit status, -9 for SIGKILL."""
        assert self._process is not None
        with trio.fail_after(within_s):
            status = await trio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return status

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to this process, by its pid."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self) -> None:
        """End it whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()


@asynccontextmanager
async def runtime_process(
    database: Database, directory: Path, *, control_port: int, **more: str
) -> AsyncIterator[RuntimeProcess]:
    """Yield a runtime that is not started yet; end it with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = environ_of(database, control_port=control_port, port=port, **more)
    process = RuntimeProcess(environ, directory / "runtime.log", port)
    try:
        yield process
    finally:
        process.end()
