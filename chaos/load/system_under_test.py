"""A real ``khala up`` as a child process on a temporary data directory, as a benchmark finds it.

Ports are any free ones. The only configuration that differs from the defaults is what the caller
names; a report names it too. Database programs connect with the roles and passwords of that
directory, past every service.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs

from chaos.load.cpu_time import cpu_time_of_tree
from khala.adapters.embedded_postgres_binaries import clean_environment, find_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 15.0
DATABASE: Final = "khala"
_NO_VARIABLES: Final[Mapping[str, str]] = MappingProxyType({})
_POLL_S: Final = 0.02


class SystemFailedError(Exception):
    """``khala up`` did not start, or a program beside it failed; the message carries its last words."""


@attrs.frozen
class CpuTimes:
    """CPU seconds of the Python process and of PostgreSQL below it."""

    up_s: float
    postgres_s: float

    def since(self, earlier: CpuTimes) -> CpuTimes:
        """Return what was used after ``earlier``."""
        return CpuTimes(self.up_s - earlier.up_s, self.postgres_s - earlier.postgres_s)


@attrs.frozen
class SystemUnderTest:
    """A running system. Made by ``running_system_under_test``."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    runtime_url: str
    profile: Path
    postgres_port: int

    def cpu_times(self) -> CpuTimes:
        """Return what it has used so far."""
        seconds = cpu_time_of_tree(self.process.pid)
        return CpuTimes(seconds["self"], seconds["children"])

    def run_database_program(
        self, name: str, role: str, *arguments: str, script: str = "", timeout_s: float
    ) -> str:
        """Run ``psql`` or ``pgbench`` as a role of the database; return its output.

        Raises:
            SystemFailedError: It failed.
        """
        password = (self.data_dir / "secrets" / f"postgres_{role}").read_text(encoding="ascii").strip()
        done = subprocess.run(
            [find_binaries().program(name), *arguments],
            env={
                **clean_environment(),
                "PGHOST": "127.0.0.1",
                "PGPORT": str(self.postgres_port),
                "PGUSER": role,
                "PGPASSWORD": password,
                "PGDATABASE": DATABASE,
            },
            input=script,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise SystemFailedError(f"{name} failed: {done.stderr.strip()}")
        return done.stdout

    def query(self, sql: str, *, role: str = "khala_reader", timeout_s: float = 60.0) -> list[list[str]]:
        """Return the rows of a query; nothing in them may contain a tab or a line break."""
        output = self.run_database_program(
            "psql", role, "-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", script=sql, timeout_s=timeout_s
        )
        return [line.split("\t") for line in output.splitlines()]


@contextmanager
def running_system_under_test(
    folder: Path,
    *,
    config: str,
    options: Sequence[str] = (),
    environ: Mapping[str, str] = _NO_VARIABLES,
    program: Sequence[str] = ("khala.cli",),
) -> Iterator[SystemUnderTest]:
    """Start ``khala up`` in ``folder`` with a TOML configuration and further options; end it with the block.

    ``environ`` is over this process's variables, of which those of Khala are left out; ``program`` is the module
    that runs ``khala``, and its first arguments.

    Raises:
        SystemFailedError: It was not ready within ``START_TIMEOUT_S``.
    """
    config_file, ready_file, data_dir = folder / "khala.toml", folder / "ready.json", folder / "data"
    config_file.write_text(config, encoding="utf-8")
    own = {"--data-dir": data_dir, "--port-base": 0, "--ready-file": ready_file, "--config": config_file}
    words = [*(str(word) for option in own.items() for word in option), *options]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *program, "up", *words],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("KHALA_")},
                **environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_ready(process, ready_file, folder / "up.log")
        urls: Mapping[str, str] = json.loads(ready_file.read_text(encoding="utf-8"))
        record = json.loads((data_dir / "up.json").read_text(encoding="utf-8"))
        yield SystemUnderTest(
            process, data_dir, urls["runtime_url"], Path(urls["profile"]), record["postgres_port"]
        )
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], ready_file: Path, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready_file.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemFailedError(f"khala up did not start: {log.read_text(errors='replace').strip()}")
        time.sleep(_POLL_S)  # noqa: TID251 - waits for a file, outside of any event loop
