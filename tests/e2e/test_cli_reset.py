"""``khala reset``: what it removes, what it leaves, and when it refuses."""

from __future__ import annotations

import json
import os
import pty
import signal
from typing import TYPE_CHECKING

import pytest

from khala.adapters.embedded_postgres import init_cluster
from khala.adapters.embedded_postgres_directory import OPEN_PARENT, make_data_dir
from khala.adapters.embedded_postgres_processes import find_processes, process_identity, stop_processes
from khala.cli.reset import remove_database
from tests.e2e.system import KHALA, System

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A data directory; whatever runs on it at the end is ended."""
    system = System(tmp_path)
    yield system
    system.stop()
    stop_processes((system.data_dir / "postgres").resolve() / "data", fast_stop_s=2)


def reset(system: System, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Reset the system's data directory."""
    return system.run("reset", "--data-dir", str(system.data_dir), *more, check=check)


def test_a_system_is_forgotten_and_nothing_else(system: System) -> None:
    """Refused while it runs; afterwards database, secrets and profile are gone, and a new life knows nobody."""
    system.start()
    assert system.up is not None
    system.run("record", "--name", "before", "--", "true")
    profile = json.loads((system.data_dir / "profile" / "profile.json").read_text())
    token = (system.data_dir / "secrets" / "admin_token").read_text()
    mine = system.data_dir / "notes.txt"
    mine.write_text("mine")
    (system.folder / "beside").mkdir()

    refused = reset(system, "--yes", check=False)
    assert refused.returncode == 78
    assert f"(pid {system.up.pid}); end it with `khala down --data-dir {system.data_dir}`" in refused.stderr
    assert [run["name"] for run in _runs(system)] == ["before"]

    system.run("down", "--data-dir", str(system.data_dir))
    assert system.up.wait(10) == 0
    asked = reset(system, check=False)
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
    assert (system.data_dir / "postgres").exists()

    [done] = [json.loads(line) for line in reset(system, "--yes", "--json").stdout.splitlines()]
    assert done["removed"] == ["database", "secrets", "profile"]
    assert {path.name for path in system.data_dir.iterdir()} == {"up.lock", "logs", "notes.txt"}
    assert mine.read_text() == "mine"
    assert (system.folder / "beside").is_dir()
    [again] = [json.loads(line) for line in reset(system, "--yes", "--json").stdout.splitlines()]
    assert again["removed"] == []

    system.start()
    assert _runs(system) == []
    fresh = json.loads((system.data_dir / "profile" / "profile.json").read_text())
    assert fresh["user_id"] != profile["user_id"]
    assert (system.data_dir / "secrets" / "admin_token").read_text() != token


def _runs(system: System) -> list[dict[str, object]]:
    return [json.loads(line) for line in system.run("runs", "--json").stdout.splitlines()]


def test_the_orphan_of_a_killed_life_is_ended_first(system: System) -> None:
    """After kill -9 a PostgreSQL runs on; reset ends it, and removes what a split life wrote for its children."""
    system.start()
    (system.data_dir / "run").mkdir()
    (system.data_dir / "run" / "khala_control.dsn").touch()
    cluster = (system.data_dir / "postgres").resolve() / "data"
    [orphan] = find_processes(cluster).postmasters
    system.kill()
    reset(system, "--yes")
    assert process_identity(orphan) is None
    assert {path.name for path in system.data_dir.iterdir()} == {"up.lock", "logs"}


def test_a_folder_of_somebody_else_is_left_alone(system: System) -> None:
    """Without the lock file of a khala up nothing is removed, whatever it is called."""
    for name in ("secrets", "profile", "postgres"):
        (system.data_dir / name).mkdir(parents=True)
        (system.data_dir / name / "x").touch()
    assert "Nothing of khala up is in" in reset(system, "--yes").stdout
    assert sorted(path.name for path in system.data_dir.rglob("x")) == ["x", "x", "x"]


@pytest.mark.parametrize(("answer", "is_removed"), [("y", True), ("n", False), ("", False)])
def test_a_person_is_asked(system: System, answer: str, is_removed: bool) -> None:
    """On a terminal: y removes, anything else does not; the question says that it cannot be undone."""
    (make_data_dir(system.data_dir) / "up.lock").touch()
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["HOME"] = str(system.folder)
        command = [*KHALA, "reset", "--data-dir", str(system.data_dir)]
        os.execv(KHALA[0], command)  # noqa: S606 - the child of a fork
    try:
        os.write(terminal, f"{answer}\n".encode())
        said = b""
        while True:
            try:
                piece = os.read(terminal, 4096)
            except OSError:  # the other end has closed
                break
            if not piece:
                break
            said += piece
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(terminal)
    assert b"cannot be undone" in said
    assert (system.data_dir / "secrets").exists() is not is_removed
    assert status == (0 if is_removed else 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_a_database_that_had_to_live_elsewhere_goes_too(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below a private folder it is in /var/lib under a name of ours; the link and that folder go, no other."""
    program = system.folder / "unshare"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{system.folder}:{os.environ['PATH']}")
    cluster = init_cluster(system.data_dir)
    home = cluster.home.path
    assert home.parent == OPEN_PARENT
    before = set(OPEN_PARENT.iterdir())
    assert remove_database(system.data_dir)
    assert before - set(OPEN_PARENT.iterdir()) == {home}
    assert not (system.data_dir / "postgres").is_symlink()


def test_a_link_of_the_owners_stays(system: System) -> None:
    """Where he put the database on a disk of his own, the cluster goes, and his folder and link stay."""
    make_data_dir(system.data_dir)
    disk = system.folder / "disk"
    disk.mkdir()
    (disk / "letter.txt").touch()
    (system.data_dir / "postgres").symlink_to(disk)
    init_cluster(system.data_dir)
    assert (disk / "data").is_dir()
    assert remove_database(system.data_dir)
    assert {path.name for path in disk.iterdir()} <= {"letter.txt", "pginstall"}
    assert (disk / "letter.txt").exists()
    assert (system.data_dir / "postgres").is_symlink()
    assert not remove_database(system.data_dir)
