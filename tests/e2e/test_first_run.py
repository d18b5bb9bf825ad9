"""First-run manners: each planted failure ends the real ``khala up`` with one sentence, one command and status 78."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from khala.adapters.embedded_postgres import init_cluster, start_server, stop_server
from khala.adapters.embedded_postgres_directory import hold_data_dir, make_data_dir
from khala.adapters.embedded_postgres_processes import find_processes, stop_processes
from tests.e2e.system import KHALA, System

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="plants what only root can")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")

FAR_FUTURE_S = 30 * 86_400


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A data directory on which nothing runs yet."""
    system = System(tmp_path)
    yield system
    system.stop()
    stop_processes((system.data_dir / "postgres").resolve() / "data", fast_stop_s=2)


def up(system: System, *more: str) -> subprocess.CompletedProcess[str]:
    """Try to start it."""
    return system.run("up", "--data-dir", str(system.data_dir), "--port-base", "0", *more, check=False)


def judge(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """One sentence on standard error, in it what is wrong and a command to type, and 78."""
    assert done.returncode == 78, (done.stdout, done.stderr)
    assert done.stderr.startswith("khala: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.count("`") >= 2, "a command"
    for words in said:
        assert words in done.stderr, done.stderr


def make_database(system: System) -> Path:
    """Let an earlier life have been; return the cluster."""
    server = start_server(init_cluster(system.data_dir))
    stop_server(server)
    return server.cluster.home.cluster


def test_a_port_that_is_taken(system: System) -> None:
    """The port and who wants it; nothing was made."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = system.run("up", "--data-dir", str(system.data_dir), "--port-base", str(port), check=False)
    judge(done, str(port), "`khala up --port-base 0`")
    assert not (system.data_dir / "postgres").exists()


def test_a_second_khala_up(system: System) -> None:
    """Whoever holds the directory is not disturbed."""
    with hold_data_dir(make_data_dir(system.data_dir)):
        judge(up(system), "already running on", f"`khala down --data-dir {system.data_dir}`")


def test_a_data_directory_of_another_postgresql(system: System) -> None:
    """Both versions are named, and nothing is touched."""
    cluster = make_database(system)
    (cluster / "PG_VERSION").write_text("11\n")
    judge(up(system), "made by PostgreSQL 11", "`khala up --data-dir DIR`")
    assert (cluster / "PG_VERSION").read_text() == "11\n"


def test_a_data_directory_of_a_newer_khala(system: System) -> None:
    """A schema that this build does not know is not used, and not changed."""
    system.start()
    assert system.up is not None
    system.run("down", "--data-dir", str(system.data_dir))
    assert system.up.wait(10) == 0
    server = start_server(init_cluster(system.data_dir))
    try:
        sql = (
            "INSERT INTO control.schema_migrations SELECT (jsonb_populate_record(m, '{\"version\": 9999}')).* "
            "FROM control.schema_migrations AS m ORDER BY version DESC LIMIT 1"
        )
        subprocess.run(
            [server.cluster.launch.binaries.program("psql"), server.superuser_dsn("khala"), "-c", sql],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
    finally:
        stop_server(server)
    judge(up(system), "schema of control is not one of this build", "`pip install --upgrade khala`")


@as_root
def test_a_data_directory_of_another_user(system: System) -> None:
    """Of a third user's database root is told the owner; a user is told that a folder is not his."""
    cluster = make_database(system)
    os.chown(cluster, 12345, 12345)
    judge(up(system), "belongs to another user (uid 12345)", "`khala up --data-dir DIR`")


@as_root
@linux_only
def test_an_ordinary_user_in_a_folder_of_root() -> None:
    """The folder cannot be written; also where only one of its parts cannot."""
    parent = Path(tempfile.mkdtemp(prefix="khala-test-"))
    try:
        parent.chmod(0o777)
        theirs = parent / "theirs"
        make_data_dir(theirs)
        for data_dir in (theirs, parent / "theirs" / "below"):
            done = subprocess.run(
                [sys.executable, "-c", AS_NOBODY, str(data_dir)],
                capture_output=True, text=True, timeout=60, check=False, cwd="/", env=plain_environment(parent),
            )  # fmt: skip
            judge(done, "cannot be used: Permission denied", "`khala up --data-dir DIR`")
        own = parent / "own"
        make_data_dir(own)
        os.chown(own, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(own)],
            capture_output=True, text=True, timeout=60, check=False, cwd="/", env=plain_environment(parent),
        )  # fmt: skip
        judge(done, "secrets cannot be written by this user (uid 65534)", "`khala up --data-dir DIR`")
    finally:
        shutil.rmtree(parent)


# After the imports: the interpreter may lie below a private folder.
AS_NOBODY = """
import os, sys
import khala.cli.up
from khala.cli.main import main
os.setgroups([]); os.setgid(65534); os.setuid(65534)
main(["up", "--data-dir", sys.argv[1], "--port-base", "0"])
"""


def plain_environment(home: Path) -> dict[str, str]:
    """Return an environment in which nothing of ours is set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KHALA_")}
    return {**kept, "HOME": str(home)}


@as_root
@linux_only
def test_no_user_namespaces(system: System) -> None:
    """Where root may make none, and uid 65534 is unknown, both reasons and the way out are said."""
    inside = ["unshare", "--user", "--map-root-user", "--"]
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine forbids the namespace that the test needs")
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    done = subprocess.run(
        [*inside, "sh", "-c", forbid, "sh", *KHALA, "up", "--data-dir", str(system.data_dir), "--port-base", "0"],
        capture_output=True, text=True, timeout=60, check=False, env=plain_environment(system.folder),
    )  # fmt: skip
    judge(done, "a user namespace cannot be made", "`runuser -u NAME -- khala up`")


@pytest.mark.parametrize("name", ["up.lock", "logs/khala.log", "postgres/data/global/pg_control"])
def test_a_clock_that_is_behind(system: System, name: str) -> None:
    """The data directory was written in what is the future to this machine; nothing is started."""
    cluster = make_database(system)
    with hold_data_dir(system.data_dir):
        pass
    later_s = time.time() + FAR_FUTURE_S
    stamp = system.data_dir / name
    stamp.touch()
    os.utime(stamp, (later_s, later_s))
    judge(up(system), str(stamp), "`timedatectl set-ntp true`")
    assert find_processes(cluster).is_empty
    stamp.touch()
    system.start()


@pytest.mark.parametrize("place", ["a file", "below a file"])
def test_a_data_directory_that_cannot_be_one(system: System, place: str) -> None:
    """A file where the directory should be, or above it."""
    (system.folder / "x").touch()
    path = system.folder / "x" if place == "a file" else system.folder / "x" / "data"
    done = system.run("up", "--data-dir", str(path), "--port-base", "0", check=False)
    if place == "below a file":
        judge(done, "cannot be used: Not a directory", "`khala up --data-dir DIR`")
    else:
        # A wrong option, as any path that is no directory.
        assert (done.returncode, "is a file" in done.stderr) == (2, True)


@as_root
@linux_only
def test_a_full_disk(system: System) -> None:
    """A disk of 64 MiB takes no database: said before anything of it is made."""
    script = 'mount -t tmpfs -o size=64m none "$1" && shift && exec "$@"'
    system.data_dir.mkdir()
    command = ["unshare", "--mount", "--", "sh", "-c", script, "sh", str(system.data_dir)]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount")
    done = subprocess.run(
        [*command, *KHALA, "up", "--data-dir", str(system.data_dir), "--port-base", "0"],
        capture_output=True, text=True, timeout=60, check=False, env=plain_environment(system.folder),
    )  # fmt: skip
    judge(done, "is full: ", "256 MiB are needed", "`du -xh")


@as_root
@linux_only
def test_a_disk_that_may_only_be_read(system: System) -> None:
    """Also root cannot write there."""
    make_data_dir(system.data_dir)
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    command = ["unshare", "--mount", "--", "sh", "-c", script, "sh", str(system.data_dir)]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount")
    done = subprocess.run(
        [*command, *KHALA, "up", "--data-dir", str(system.data_dir), "--port-base", "0"],
        capture_output=True, text=True, timeout=60, check=False, env=plain_environment(system.folder),
    )  # fmt: skip
    judge(done, "cannot be used: Read-only file system", "`khala up --data-dir DIR`")


# Brings up loopback in a network that has nothing else, then becomes the command.
WITHOUT_INTERNET = """
import fcntl, os, socket, struct, sys
with socket.socket() as s:
    name = struct.pack("16sH14s", b"lo", 0, b"")
    flags = struct.unpack("16sH14s", fcntl.ioctl(s, 0x8913, name))[1]
    fcntl.ioctl(s, 0x8914, struct.pack("16sH14s", b"lo", flags | 1, b""))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@as_root
@linux_only
def test_no_internet(system: System) -> None:
    """In a network with loopback alone everything starts, signs in, and records a run: nothing is fetched."""
    apart = ["unshare", "--net", "--", sys.executable, "-c", WITHOUT_INTERNET]
    if subprocess.run([*apart, "-c", "pass"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine forbids the namespace that the test needs")
    ready = system.folder / "ready.json"
    script = f"""
import subprocess, sys, time, pathlib
khala = [sys.executable, "-m", "khala.cli"]
up = subprocess.Popen([*khala, "up", "--data-dir", {str(system.data_dir)!r}, "--port-base", "0",
                       "--ready-file", {str(ready)!r}])
try:
    deadline = time.monotonic() + 90
    while not pathlib.Path({str(ready)!r}).exists():
        assert up.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    subprocess.run([*khala, "record", "--name", "alone", "--", "true"], check=True)
    subprocess.run([*khala, "runs", "--json"], check=True)
finally:
    up.terminate()
    up.wait(20)
"""
    environ = {**plain_environment(system.folder), "KHALA_PROFILE": str(system.data_dir / "profile")}
    done = subprocess.run(
        [*apart, "-c", script], capture_output=True, text=True, timeout=180, check=False, env=environ
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert '"name":"alone"' in done.stdout
