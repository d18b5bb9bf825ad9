"""Real PostgreSQL inside ``khala up`` and the tests, run from the programs of a Python package.

``open_embedded_postgres`` is the whole life of one server: end an orphan of an earlier life,
create the cluster if there is none, serve on 127.0.0.1, stop. For fixtures without an event loop:
``init_cluster``, ``start_server``, ``stop_server``. Invariants:

1. At most one postmaster per cluster: the caller holds the data directory's lock
   (``hold_data_dir``) for life, and what an earlier holder left behind is ended first.
2. Nothing listens beyond 127.0.0.1 and a private Unix socket; every connection needs a password.
3. Durability settings are PostgreSQL's own (fsync on).

Roles and their passwords: embedded_postgres_roles.py. Who runs it: embedded_postgres_binaries.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import attrs
import trio

from khala.adapters.embedded_postgres_cluster import (
    SOCKET_FOLDER_PREFIX,
    SUPERUSER,
    PostgresCluster,
    create_cluster,
    init_cluster,
    prepare_cluster,
)
from khala.adapters.embedded_postgres_errors import EmbeddedPostgresFailed
from khala.adapters.embedded_postgres_processes import (
    FAST_STOP_S,
    POLL_S,
    QUIT_STOP_S,
    read_pid_file,
    send_signal,
    stop_processes,
)
from khala.adapters.free_ports import HOST, draw_port, is_free

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = [
    "EmbeddedPostgresFailed",
    "PostgresCluster",
    "PostgresServer",
    "init_cluster",
    "open_embedded_postgres",
    "prepare_cluster",
    "start_server",
    "stop_server",
]

# sun_path holds 108 bytes on Linux, 104 on macOS, with the final NUL; PostgreSQL refuses more.
SOCKET_PATH_MAX_BYTES: Final = 103
# Recovery after kill -9 took 0.3 s; a long log on a slow disk may take a minute.
START_TIMEOUT_S: Final = 60.0
# Between our choice of a free port and PostgreSQL's bind, somebody else may take it.
PORT_TRIES: Final = 5
# `khala up` must end within 5 s of Ctrl-C, and 2 s of that belong to the services.
UP_FAST_STOP_S: Final = 1.5
UP_QUIT_STOP_S: Final = 0.5
# A killed process ends as soon as the kernel gets to it; only then may its directory be used again.
KILL_WAIT_S: Final = 10.0
# Rotated at start only; PostgreSQL logs warnings and errors, about nothing on a healthy system.
LOG_MAX_BYTES: Final = 16 * 1024 * 1024
WATCH_S: Final = 0.5


@attrs.define(eq=False)
class PostgresServer:
    """A running server. Whoever got it from ``start_server`` must call ``stop_server``."""

    cluster: PostgresCluster
    port: int
    process: subprocess.Popen[bytes] = attrs.field(repr=False)
    socket_folder: Path = attrs.field(repr=False)
    _log_offset: int = attrs.field(repr=False)
    host: str = HOST

    def dsn(self, *, user: str, password: str, database: str) -> str:
        """Return the connection URL of one user."""
        return (
            f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}"
            f"@{HOST}:{self.port}/{quote(database, safe='')}"
        )

    def superuser_dsn(self, database: str = "postgres") -> str:
        """Return the superuser's connection URL."""
        return self.dsn(user=SUPERUSER, password=self.cluster.password, database=database)

    @property
    def is_ready(self) -> bool:
        """Whether PostgreSQL says that it accepts connections."""
        lines = read_pid_file(self.cluster.home.cluster)
        return len(lines) >= 8 and lines[0] == str(self.process.pid) and lines[7] == "ready"

    def last_words(self) -> list[str]:
        """Return what this server wrote to its log since it was started."""
        with self.cluster.log_file.open(encoding="utf-8", errors="replace") as log:
            log.seek(self._log_offset)
            return log.read(64 * 1024).splitlines()

    async def wait_ended(self) -> None:
        """Return when the server has ended without having been asked; for a supervisor."""
        while self.process.poll() is None:  # noqa: ASYNC110 - a process sets no trio.Event
            await trio.sleep(WATCH_S)


@asynccontextmanager
async def open_embedded_postgres(
    data_dir: Path, *, port: int = 0, launched: Callable[[int], None] = lambda pid: None
) -> AsyncIterator[PostgresServer]:
    """Serve PostgreSQL from ``data_dir`` for the length of the block.

    Args:
        data_dir: Held by the caller through ``hold_data_dir``.
        port: On 127.0.0.1; 0 means any free one.
        launched: Told the pid as soon as there is a process; recovery may take long after that.

    Raises:
        EmbeddedPostgresRefused: Wrong owner, wrong version, or no way to run; exit status 78.
        EmbeddedPostgresFailed: It could not be made or started; the reason is in the message.
    Leaving takes at most ``UP_FAST_STOP_S + 2 * UP_QUIT_STOP_S``. Cancellation: safe, and in a hurry: PostgreSQL
    writes no checkpoint, and the next start recovers what was committed.
    """
    # Abandoned on cancellation: the thread only ends an orphan and makes folders, both of which
    # the next start repeats.
    cluster = await trio.to_thread.run_sync(partial(prepare_cluster, data_dir), abandon_on_cancel=True)
    await create_cluster(cluster)
    start, fast_stop_s = _Start(cluster, port), UP_FAST_STOP_S
    try:
        launched(start.server.process.pid)
        while not start.advance():  # noqa: ASYNC110 - PostgreSQL tells by a file
            await trio.sleep(POLL_S)
        yield start.server
    except trio.Cancelled:
        fast_stop_s = 0.0
        raise
    finally:
        stop = partial(stop_server, start.server, fast_stop_s=fast_stop_s, quit_stop_s=UP_QUIT_STOP_S)
        with trio.move_on_after(UP_FAST_STOP_S + 4 * UP_QUIT_STOP_S, shield=True):
            await trio.to_thread.run_sync(stop)


def start_server(cluster: PostgresCluster, *, port: int = 0) -> PostgresServer:
    """Start the server of a cluster and return once it accepts connections (about 0.1 s).

    Args:
        cluster: From ``init_cluster``.
        port: On 127.0.0.1; 0 means any free one.

    Raises:
        EmbeddedPostgresFailed: It ended or was not ready within ``START_TIMEOUT_S``.
    """
    start = _Start(cluster, port)
    try:
        while not start.advance():
            time.sleep(POLL_S)  # noqa: TID251 - for callers without an event loop
    except BaseException:
        stop_server(start.server)
        raise
    return start.server


def stop_server(
    server: PostgresServer, *, fast_stop_s: float = FAST_STOP_S, quit_stop_s: float = QUIT_STOP_S
) -> None:
    """Stop a server: SIGINT, SIGQUIT after ``fast_stop_s``, SIGKILL after ``quit_stop_s`` more.

    Idempotent. A fast stop takes 0.04 s.
    """
    for stop_signal, patience_s in (
        (signal.SIGINT, fast_stop_s),
        (signal.SIGQUIT, quit_stop_s),
        (signal.SIGKILL, KILL_WAIT_S),
    ):
        if server.process.poll() is not None:
            break
        # Not through its group: the pid is our unreaped child's, so it cannot be a stranger's.
        send_signal(server.process.pid, stop_signal)
        try:
            server.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
    # Only finds something if the postmaster was killed and its children are still leaving.
    stop_processes(server.cluster.home.cluster, fast_stop_s=quit_stop_s, quit_stop_s=quit_stop_s)
    if server.socket_folder != server.cluster.home.socket:
        _remove_folder(server.socket_folder)


class _Start:
    """The start of one server, advanced by a caller that knows how to wait."""

    def __init__(self, cluster: PostgresCluster, port: int) -> None:
        self._is_port_free_choice = port == 0
        self._tries_left = PORT_TRIES
        self._deadline = time.monotonic() + START_TIMEOUT_S
        self.server = _launch(cluster, port or _find_free_port(), _open_socket_folder(cluster))

    def advance(self) -> bool:
        """Return whether the server is ready; raise if it never will be."""
        server = self.server
        status = server.process.poll()
        if status is None and server.is_ready:
            return True
        if status is not None:
            words = server.last_words()
            lost_its_port = any("could not bind" in line for line in words)
            if not (lost_its_port and self._is_port_free_choice and self._tries_left > 1):
                raise EmbeddedPostgresFailed(
                    f"PostgreSQL ended at once (status {status}): {_reason_in(words)}", status=status
                )
            self._tries_left -= 1
            self.server = _launch(server.cluster, _find_free_port(), server.socket_folder)
        elif time.monotonic() > self._deadline:
            raise EmbeddedPostgresFailed(
                f"PostgreSQL was not ready after {START_TIMEOUT_S:.0f} s; "
                f"its log is {server.cluster.log_file}"
            )
        return False


def _launch(cluster: PostgresCluster, port: int, socket_folder: Path) -> PostgresServer:
    log_file = cluster.log_file
    if log_file.exists() and log_file.stat().st_size > LOG_MAX_BYTES:
        log_file.replace(log_file.with_suffix(".log.1"))
    # In a list of folders a comma separates and double quotes protect.
    quoted_folder = '"{}"'.format(str(socket_folder).replace('"', '""'))
    settings = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": quoted_folder,
        "unix_socket_permissions": "0700",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # A connection that hangs about in a transaction would hold topic heads locked.
        "idle_in_transaction_session_timeout": "60s",
    }
    arguments = [part for item in settings.items() for part in ("-c", "=".join(item))]
    with log_file.open("ab") as log:
        offset = log.tell()
        process = subprocess.Popen(
            cluster.launch.command("postgres", "-D", str(cluster.home.cluster), *arguments),
            **cluster.run_options(),
            stdout=log,
            stderr=log,
        )
    return PostgresServer(cluster, port, process, socket_folder, offset)


def _open_socket_folder(cluster: PostgresCluster) -> Path:
    """Return a folder whose socket has a path short enough for the kernel."""
    longest = os.fsencode(cluster.home.socket / ".s.PGSQL.65535.lock")
    if len(longest) <= SOCKET_PATH_MAX_BYTES:
        return cluster.home.socket
    folder = Path(tempfile.mkdtemp(prefix=SOCKET_FOLDER_PREFIX))
    cluster.launch.give(folder)
    return folder


def _remove_folder(folder: Path) -> None:
    for left in folder.glob(".s.PGSQL.*"):
        left.unlink(missing_ok=True)
    if folder.exists():
        folder.rmdir()


def _find_free_port() -> int:
    # Ends soon: of 22,000 ports nearly all are free.
    while not is_free(port := draw_port()):
        continue
    return port


def _reason_in(words: list[str]) -> str:
    for line in reversed(words):
        for level in ("FATAL:", "PANIC:", "ERROR:"):
            if level in line:
                return line.partition(level)[2].strip()
    return words[-1] if words else "it wrote nothing"
