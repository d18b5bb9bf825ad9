"""Embedded PostgreSQL: one life of a server, with real processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import khala.adapters.embedded_postgres as embedded_postgres
from khala.adapters.embedded_postgres import (
    EmbeddedPostgresFailed,
    PostgresServer,
    init_cluster,
    open_embedded_postgres,
    start_server,
    stop_server,
)
from khala.adapters.embedded_postgres_directory import hold_data_dir, make_data_dir
from khala.adapters.embedded_postgres_errors import EmbeddedPostgresRefused
from khala.adapters.embedded_postgres_processes import find_processes, stop_processes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory whose server, if any is left, is ended afterwards."""
    path = make_data_dir(tmp_path / "d")
    yield path
    stop_processes((path / "postgres").resolve() / "data", fast_stop_s=1)


def psql(
    server: PostgresServer, sql: str, *, password: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one statement as superuser."""
    dsn = server.dsn(user="postgres", password=password or server.cluster.password, database="postgres")
    return subprocess.run(
        [server.cluster.launch.binaries.program("psql"), dsn, "-XAtc", sql],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_first_life_serves_durably_and_only_to_who_knows_the_password(data_dir: Path) -> None:
    """INV: fsync on, 127.0.0.1 only, SCRAM for everybody, the password file readable by one user."""
    server = start_server(init_cluster(data_dir))
    try:
        settings = psql(server, "SELECT current_setting('fsync'), current_setting('listen_addresses')").stdout
        assert settings == "on|127.0.0.1\n"
        rules = psql(server, "SELECT DISTINCT auth_method FROM pg_hba_file_rules").stdout
        assert rules == "scram-sha-256\n"
        assert "password authentication failed" in psql(server, "SELECT 1", password="wrong").stderr
        password_file = data_dir / "secrets" / "postgres_postgres"
        assert password_file.stat().st_mode & 0o777 == 0o600
        assert password_file.parent.stat().st_mode & 0o777 == 0o700
        assert server.cluster.password not in repr(server)
    finally:
        stop_server(server)
    assert find_processes(server.cluster.home.cluster).is_empty
    assert not (server.cluster.home.cluster / "postmaster.pid").exists()


def test_what_was_written_is_there_in_the_next_life(data_dir: Path) -> None:
    """A second start keeps the cluster and its password."""
    server = start_server(init_cluster(data_dir))
    psql(server, "CREATE TABLE kept AS SELECT 1 AS one")
    stop_server(server)
    server = start_server(init_cluster(data_dir))
    try:
        assert psql(server, "SELECT one FROM kept").stdout == "1\n"
    finally:
        stop_server(server)


def test_an_unfinished_initdb_leaves_nothing_in_the_way(data_dir: Path) -> None:
    """INV: a cluster is complete or absent; the folder of a killed initdb is removed."""
    remains = data_dir / "postgres" / "partial-killed" / "data"
    remains.mkdir(parents=True)
    (remains / "PG_VERSION").write_text("18\n")
    server = start_server(init_cluster(data_dir))
    stop_server(server)
    assert not remains.parent.exists()


def test_a_second_owner_of_the_directory_is_refused_until_the_first_has_ended(data_dir: Path) -> None:
    """INV: at most one owner; the lock ends with its holder and is not inherited by PostgreSQL."""
    with hold_data_dir(data_dir):
        server = start_server(init_cluster(data_dir))
        with pytest.raises(EmbeddedPostgresRefused, match="already running"), hold_data_dir(data_dir):
            pytest.fail("held twice")
    try:
        with hold_data_dir(data_dir):
            assert server.is_ready
    finally:
        stop_server(server)


def test_a_path_too_long_for_a_socket_gets_a_short_socket_folder(data_dir: Path) -> None:
    """A data directory of any length works; its socket folder is removed at the end."""
    long_dir = make_data_dir(data_dir / ("deep" * 25))
    server = start_server(init_cluster(long_dir))
    try:
        assert server.socket_folder.parent == Path(tempfile.gettempdir())
        assert (server.socket_folder / f".s.PGSQL.{server.port}").is_socket()
        assert psql(server, "SELECT 1").stdout == "1\n"
    finally:
        stop_server(server)
    assert not server.socket_folder.exists()


def test_a_folder_with_commas_and_quotes_in_its_name_works() -> None:
    """The socket folder is one folder, whatever its name holds."""
    with tempfile.TemporaryDirectory(prefix="a, 'b' \"c\"") as folder:
        server = start_server(init_cluster(Path(folder)))
        try:
            assert server.socket_folder == server.cluster.home.socket
            assert (server.socket_folder / f".s.PGSQL.{server.port}").is_socket()
        finally:
            stop_server(server)


def test_a_taken_port_is_named_or_another_one_is_taken(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that was asked for is refused in words; a port of our choice is chosen again."""
    cluster = init_cluster(data_dir)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port: int = taken.getsockname()[1]
        with pytest.raises(EmbeddedPostgresFailed, match="could not create any TCP/IP sockets"):
            start_server(cluster, port=port)
        find_free_port = embedded_postgres._find_free_port
        answers = iter([port])
        monkeypatch.setattr(
            embedded_postgres, "_find_free_port", lambda: next(answers, None) or find_free_port()
        )
        server = start_server(cluster)
        stop_server(server)
        assert server.port != port


def test_another_major_version_is_refused_and_not_touched(data_dir: Path) -> None:
    """A cluster of PostgreSQL 16 is named with both versions."""
    cluster = data_dir / "postgres" / "data"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedPostgresRefused, match=r"made by PostgreSQL 16, but PostgreSQL \d+ is"):
        init_cluster(data_dir)
    assert os.listdir(cluster) == ["PG_VERSION"]


def test_a_folder_that_is_no_cluster_is_refused(data_dir: Path) -> None:
    """Somebody's files under the cluster's name are not overwritten."""
    cluster = data_dir / "postgres" / "data"
    cluster.mkdir(parents=True)
    (cluster / "thesis.txt").write_text("kept")
    with pytest.raises(EmbeddedPostgresRefused, match="not a PostgreSQL cluster"):
        init_cluster(data_dir)
    assert (cluster / "thesis.txt").read_text() == "kept"


def test_a_lost_password_is_said_before_anything_starts(data_dir: Path) -> None:
    """Without its password the cluster would start and then refuse us: say so first."""
    init_cluster(data_dir)
    (data_dir / "secrets" / "postgres_postgres").unlink()
    with pytest.raises(EmbeddedPostgresRefused, match="password file"):
        init_cluster(data_dir)


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file in the way is one sentence, not a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedPostgresRefused, match="cannot be used: Not a directory"):
        make_data_dir(tmp_path / "file" / "d")


async def test_the_async_form_notices_the_end_of_the_server(data_dir: Path) -> None:
    """A supervisor that waits for the server learns that it was killed."""
    async with open_embedded_postgres(data_dir) as server:
        assert psql(server, "SELECT 1").stdout == "1\n"
        os.kill(server.process.pid, signal.SIGKILL)
        await server.wait_ended()
    assert find_processes(server.cluster.home.cluster).is_empty


LIFE = """
import signal, sys, trio
from pathlib import Path
from khala.adapters.embedded_postgres import open_embedded_postgres
from khala.adapters.embedded_postgres_directory import hold_data_dir, make_data_dir

async def main():
    data_dir = make_data_dir(Path(sys.argv[1]))
    with hold_data_dir(data_dir):
        async with open_embedded_postgres(data_dir) as server:
            with trio.open_signal_receiver(signal.SIGTERM) as stop:
                print(server.process.pid, flush=True)
                async for _ in stop:
                    break

try:
    trio.run(main)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_within_five_seconds(data_dir: Path, number: signal.Signals) -> None:
    """Ctrl-C reaches us, not PostgreSQL, and we stop it."""
    with subprocess.Popen([sys.executable, "-c", LIFE, data_dir], stdout=subprocess.PIPE, text=True) as life:
        assert life.stdout is not None
        postmaster = int(life.stdout.readline())
        assert os.getsid(postmaster) != os.getsid(0)
        started = time.monotonic()
        life.send_signal(number)
        assert life.wait(5) == (130 if number == signal.SIGINT else 0)
        assert time.monotonic() - started < 5
    assert find_processes(data_dir / "postgres" / "data").is_empty
    shutil.rmtree(data_dir / "postgres")
