"""Embedded PostgreSQL: what a killed life left running is ended, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import khala.adapters.embedded_postgres_processes as processes
from khala.adapters.embedded_postgres import PostgresServer, init_cluster, start_server, stop_server
from khala.adapters.embedded_postgres_directory import hold_data_dir, make_data_dir
from khala.adapters.embedded_postgres_processes import (
    find_processes,
    process_identity,
    stop_processes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

KILLED_LIFE = """
import sys, time
from pathlib import Path
from khala.adapters.embedded_postgres import init_cluster, start_server
from khala.adapters.embedded_postgres_directory import hold_data_dir, make_data_dir

data_dir = make_data_dir(Path(sys.argv[1]))
with hold_data_dir(data_dir):
    print(start_server(init_cluster(data_dir)).process.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory whose server, if any is left, is ended afterwards."""
    path = make_data_dir(tmp_path / "d")
    yield path
    stop_processes(cluster_of(path), fast_stop_s=1)


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that has nothing to do with PostgreSQL."""
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path) as process:
        yield process
        process.kill()


def cluster_of(data_dir: Path) -> Path:
    """Return the cluster's folder."""
    return (data_dir / "postgres").resolve() / "data"


def kill_a_life(data_dir: Path) -> int:
    """Start a server in a process, kill that process, return the pid of the orphan."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_LIFE, data_dir], stdout=subprocess.PIPE, text=True
    ) as life:
        assert life.stdout is not None
        orphan = int(life.stdout.readline())
        life.kill()
        assert life.wait(10) == -signal.SIGKILL
    assert process_identity(orphan) is not None
    return orphan


def has_ended(pid: int) -> bool:
    """Wait for the kernel to finish with a process that has been told to go."""
    deadline = time.monotonic() + 5
    while process_identity(pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)  # noqa: TID251 - the kernel sets no event
    return process_identity(pid) is None


def query(server: PostgresServer, sql: str) -> str:
    """Return what psql prints for one statement."""
    return subprocess.run(
        [server.cluster.launch.binaries.program("psql"), server.superuser_dsn(), "-XAtc", sql],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout


def test_the_orphan_of_a_killed_life_is_ended_and_replaced(data_dir: Path) -> None:
    """INV: one postmaster per cluster, also after kill -9 of the one who started it."""
    orphan = kill_a_life(data_dir)
    with hold_data_dir(data_dir):
        server = start_server(init_cluster(data_dir))
        try:
            assert has_ended(orphan)
            assert find_processes(cluster_of(data_dir)).postmasters == (server.process.pid,)
            assert query(server, "SELECT 1") == "1\n"
        finally:
            stop_server(server)


def test_an_orphan_without_a_pid_file_is_found(data_dir: Path) -> None:
    """The pid file may be lost; a second postmaster beside the orphan would destroy the data."""
    orphan = kill_a_life(data_dir)
    (cluster_of(data_dir) / "postmaster.pid").unlink()
    init_cluster(data_dir)
    assert has_ended(orphan)


def test_an_orphan_is_found_where_there_is_no_proc(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of macOS, through ps, finds the same postmaster."""
    orphan = kill_a_life(data_dir)
    monkeypatch.setattr(processes, "PROC", data_dir / "no-proc")
    assert find_processes(cluster_of(data_dir)).postmasters == (orphan,)
    identity = process_identity(orphan)
    assert identity is not None
    assert identity == process_identity(orphan)
    assert stop_processes(cluster_of(data_dir)) == 1
    assert has_ended(orphan)


def test_an_orphan_deaf_to_sigint_is_ended_by_sigquit(data_dir: Path) -> None:
    """A stopped (SIGSTOP) postmaster answers nothing: SIGQUIT and SIGKILL follow."""
    orphan = kill_a_life(data_dir)
    os.kill(orphan, signal.SIGSTOP)
    assert stop_processes(cluster_of(data_dir), fast_stop_s=0.2, quit_stop_s=0.2) == 1
    assert has_ended(orphan)


def test_children_that_outlived_their_postmaster_are_waited_for(data_dir: Path) -> None:
    """Backends of a killed postmaster still touch the files: the next start comes after them."""
    server = start_server(init_cluster(data_dir))
    children = [
        pid for pid in find_processes(cluster_of(data_dir)).children if process_identity(pid) is not None
    ]
    assert children
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    server.process.kill()
    server.process.wait(10)
    stop_processes(cluster_of(data_dir), fast_stop_s=0.2, quit_stop_s=0.2)
    assert all(has_ended(pid) for pid in children)


def test_a_stale_pid_file_that_names_a_living_stranger_harms_nobody(
    data_dir: Path, stranger: subprocess.Popen[bytes]
) -> None:
    """INV: any other pid is stale: the stranger lives on, and the server starts."""
    cluster = init_cluster(data_dir)
    (cluster.home.cluster / "postmaster.pid").write_text(
        f"{stranger.pid}\n{cluster.home.cluster}\n1700000000\n5432\n/tmp\n127.0.0.1\n 1 2\nready   \n"
    )
    server = start_server(init_cluster(data_dir))
    try:
        assert query(server, "SELECT 1") == "1\n"
        assert stranger.poll() is None
    finally:
        stop_server(server)
    assert stranger.poll() is None


def test_a_stranger_who_works_in_the_cluster_is_left_alone(data_dir: Path) -> None:
    """Someone's shell in the data folder is not PostgreSQL."""
    cluster = init_cluster(data_dir)
    with subprocess.Popen(["sleep", "60"], cwd=cluster.home.cluster) as stranger:
        (cluster.home.cluster / "postmaster.pid").write_text(f"{stranger.pid}\n")
        assert stop_processes(cluster.home.cluster) == 0
        assert stranger.poll() is None
        stranger.kill()


def test_the_postmaster_of_another_directory_is_left_alone(data_dir: Path, tmp_path: Path) -> None:
    """Two systems on one machine never end each other."""
    other_dir = make_data_dir(tmp_path / "other")
    other = start_server(init_cluster(other_dir))
    try:
        cluster = init_cluster(data_dir)
        (cluster.home.cluster / "postmaster.pid").write_text(f"{other.process.pid}\n")
        server = start_server(init_cluster(data_dir))
        stop_server(server)
        assert query(other, "SELECT 1") == "1\n"
    finally:
        stop_server(other)


def test_the_socket_folder_of_a_killed_life_is_removed(data_dir: Path) -> None:
    """A short-path socket folder in the temporary directory does not stay for ever."""
    long_dir = make_data_dir(data_dir / ("deep" * 25))
    try:
        kill_a_life(long_dir)
        folder = Path((cluster_of(long_dir) / "postmaster.pid").read_text().splitlines()[4])
        assert folder.name.startswith("khala-socket-")
        init_cluster(long_dir)
        assert not folder.exists()
    finally:
        stop_processes(cluster_of(long_dir), fast_stop_s=1)


def test_identity_is_of_a_process_and_not_of_a_number() -> None:
    """The same process has one identity; an ended one (also unreaped) has none."""
    assert process_identity(os.getpid()) == process_identity(os.getpid())
    assert process_identity(os.getpid()) != process_identity(os.getppid())
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert process_identity(ended.pid) is None
