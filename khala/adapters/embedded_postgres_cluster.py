"""One PostgreSQL cluster on disk: complete or absent, and only opened by who may.

``prepare_cluster`` finds out how this cluster can be run here and ends what an earlier life left
running; ``init_cluster`` creates it. Invariants:

1. The cluster appears under its name only when initdb has finished: it is made beside its place
   and renamed.
2. A cluster of another major version or another user is refused before anything is touched.
3. The superuser's password exists before the cluster does, so there is never a cluster whose
   password was lost by a kill between the two.

The caller holds the data directory's lock for the whole time (``hold_data_dir``).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from khala.adapters.embedded_postgres_binaries import (
    Launch,
    clean_environment,
    decide_launch,
    find_binaries,
)
from khala.adapters.embedded_postgres_directory import (
    PostgresHome,
    make_data_dir,
    open_home,
    read_or_make_secret,
    write_private,
)
from khala.adapters.embedded_postgres_errors import EmbeddedPostgresFailed, EmbeddedPostgresRefused
from khala.adapters.embedded_postgres_processes import read_pid_file, stop_processes

if TYPE_CHECKING:
    from collections.abc import Iterator

SUPERUSER: Final = "postgres"
SOCKET_FOLDER_PREFIX: Final = "khala-socket-"
# 0.5 s on a quiet machine; the files are synced, so a slow disk may take a minute.
INITDB_TIMEOUT_S: Final = 120.0


@attrs.frozen
class PostgresCluster:
    """A place for a cluster, and how to run programs on it.

    Attributes:
        data_dir: The directory that holds everything of one ``khala up``.
        home: The part of it that PostgreSQL's user owns.
        launch: How PostgreSQL's programs are run here.
        password: Of the superuser; kept in ``secrets/postgres_postgres``.
    """

    data_dir: Path
    home: PostgresHome
    launch: Launch
    password: str = attrs.field(repr=False)

    @property
    def log_file(self) -> Path:
        """Where PostgreSQL writes its log."""
        return self.data_dir / "logs" / "postgres.log"

    @property
    def is_initialised(self) -> bool:
        """Whether the cluster exists; it is never half there."""
        return self.home.cluster.exists()

    def run_options(self) -> dict[str, Any]:
        """Return the arguments of ``subprocess.Popen`` that every program of ours is run with."""
        uid = self.launch.uid
        return {
            "cwd": self.home.path,
            "env": clean_environment(),
            "stdin": subprocess.DEVNULL,
            "user": uid,
            "group": uid,
            "extra_groups": None if uid is None else [],
            # Ctrl-C in a terminal reaches the whole foreground group. PostgreSQL must not hear
            # it: it would cut the services off before they have drained.
            "start_new_session": True,
        }


def secret_path(data_dir: Path, role: str) -> Path:
    """Return the file with the password of a database role."""
    return data_dir / "secrets" / f"postgres_{role}"


def prepare_cluster(data_dir: Path) -> PostgresCluster:
    """Return the cluster of a data directory, ready to be created or started.

    Ends an orphan of an earlier life (up to 9 s if it does not listen) and removes what that
    life left behind. The data directory is made if it does not exist.

    Raises:
        EmbeddedPostgresRefused: Wrong owner, wrong version, lost password, or no way to run.
    """
    data_dir = make_data_dir(data_dir)
    binaries = find_binaries()
    link = data_dir / "postgres"
    owner_uid = PostgresHome(link.resolve()).cluster_owner_uid
    if owner_uid is not None:
        _refuse_other_version(PostgresHome(link.resolve()), binaries.major)
    launch = decide_launch(
        binaries,
        cluster_owner_uid=owner_uid,
        make_copy_folder=lambda uid: open_home(data_dir, other_uid=uid).path,
    )
    home = open_home(data_dir, other_uid=launch.uid)
    if owner_uid is not None and not secret_path(data_dir, SUPERUSER).exists():
        raise EmbeddedPostgresRefused(
            f"the database in {data_dir} exists, but its password file "
            f"{secret_path(data_dir, SUPERUSER)} does not; put it back, or remove everything with `khala reset`"
        )
    _remove_remains(home)
    home.socket.mkdir(mode=0o700, exist_ok=True)
    launch.give(home.socket)
    password = read_or_make_secret(secret_path(data_dir, SUPERUSER))
    return PostgresCluster(data_dir, home, launch, password)


def init_cluster(data_dir: Path) -> PostgresCluster:
    """Return the cluster of a data directory, creating it if there is none (about 1 s).

    For callers without an event loop; the async form is ``open_embedded_postgres``.

    Raises:
        EmbeddedPostgresRefused: See ``prepare_cluster``.
        EmbeddedPostgresFailed: initdb failed.
    """
    cluster = prepare_cluster(data_dir)
    if not cluster.is_initialised:
        with _initdb(cluster) as (command, new_cluster):
            done = subprocess.run(
                command,
                **cluster.run_options(),
                capture_output=True,
                timeout=INITDB_TIMEOUT_S,
                check=False,
            )
            _finish_initdb(cluster, new_cluster, done)
    return cluster


async def create_cluster(cluster: PostgresCluster) -> None:
    """Create what ``prepare_cluster`` returned, if it does not exist yet.

    Raises:
        EmbeddedPostgresFailed: initdb failed.
    Cancellation: safe; initdb is ended and leaves nothing under the cluster's name.
    """
    if cluster.is_initialised:
        return
    with _initdb(cluster) as (command, new_cluster):
        options = {**cluster.run_options(), "stdin": b""}
        done = await trio.run_process(
            command, **options, capture_stdout=True, capture_stderr=True, check=False
        )
        _finish_initdb(cluster, new_cluster, done)


@contextmanager
def _initdb(cluster: PostgresCluster) -> Iterator[tuple[list[str], Path]]:
    """Yield the command that makes a cluster in a new folder, and that folder."""
    workspace = Path(tempfile.mkdtemp(prefix="partial-", dir=cluster.home.path))
    try:
        password_file = workspace / "password"
        write_private(password_file, cluster.password + "\n")
        cluster.launch.give(workspace)
        cluster.launch.give(password_file)
        new_cluster = workspace / "data"
        yield (
            cluster.launch.command(
                "initdb",
                f"--pgdata={new_cluster}",
                f"--username={SUPERUSER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--locale=C",
                "--encoding=UTF8",
                "--no-instructions",
            ),
            new_cluster,
        )
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _finish_initdb(
    cluster: PostgresCluster, new_cluster: Path, done: subprocess.CompletedProcess[bytes]
) -> None:
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise EmbeddedPostgresFailed(
            f"initdb failed (status {done.returncode}): {words[-1] if words else 'no message'}"
        )
    new_cluster.rename(cluster.home.cluster)


def _refuse_other_version(home: PostgresHome, major: int) -> None:
    try:
        found = (home.cluster / "PG_VERSION").read_text(encoding="ascii").strip()
    except OSError as error:
        raise EmbeddedPostgresRefused(
            f"{home.cluster} is not a PostgreSQL cluster that can be read: {error.strerror}; start another one "
            "with `khala up --data-dir DIR`"
        ) from error
    if found != str(major):
        raise EmbeddedPostgresRefused(
            f"the database in {home.cluster} was made by PostgreSQL {found}, "
            f"but PostgreSQL {major} is installed; start another one with `khala up --data-dir DIR`"
        )


def _remove_remains(home: PostgresHome) -> None:
    """End an orphaned server and remove what a killed life left in the file system."""
    pid_file = read_pid_file(home.cluster)
    stop_processes(home.cluster)
    socket_folder = Path(pid_file[4]) if len(pid_file) > 4 and pid_file[4] else None
    if socket_folder and socket_folder.name.startswith(SOCKET_FOLDER_PREFIX):
        shutil.rmtree(socket_folder, ignore_errors=True)
    for workspace in home.path.glob("partial-*"):
        shutil.rmtree(workspace, ignore_errors=True)
