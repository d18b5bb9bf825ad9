"""The data directory of ``khala up``: one owner at a time, secrets that only he reads.

Layout: ``postgres/`` (cluster, socket, copied programs), ``secrets/``, ``profile/``, ``logs/``,
``up.lock``, ``up.json``. Invariants:

1. Whoever changes anything below the directory holds the flock on ``up.lock``, for as long as he
   lives. The kernel releases it however he dies, and his children do not inherit it: an orphaned
   postmaster never keeps the directory locked.
2. A secret is made once, complete or not at all, mode 0600, in a folder of mode 0700.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shlex
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from khala.adapters.embedded_postgres_binaries import (
    may_be_entered_by_others,
)
from khala.adapters.embedded_postgres_errors import EmbeddedPostgresRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET_BYTES: Final = 32
# Where a database goes that must run as uid 65534 while the data directory lies below a folder
# that only root may enter, such as /root.
OPEN_PARENT: Final = Path("/var/lib")


@attrs.frozen
class PostgresHome:
    """The folder that belongs to the user who runs PostgreSQL."""

    path: Path

    @property
    def cluster(self) -> Path:
        """PGDATA."""
        return self.path / "data"

    @property
    def socket(self) -> Path:
        """Folder of the Unix socket, unless its path would be too long."""
        return self.path / "socket"

    @property
    def cluster_owner_uid(self) -> int | None:
        """Owner of the cluster; None while there is no complete one."""
        try:
            return self.cluster.stat().st_uid
        except FileNotFoundError:
            return None


def make_data_dir(data_dir: Path) -> Path:
    """Create the directory with its folders if needed; return its absolute path.

    Raises:
        EmbeddedPostgresRefused: It cannot be made, entered or written by this user.
    """
    path = data_dir.expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        for private in (path / "secrets", path / "logs"):
            private.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise EmbeddedPostgresRefused(
            f"the data directory {path} cannot be used: {error.strerror}; start another one with "
            "`khala up --data-dir DIR`"
        ) from error
    return path


@contextmanager
def hold_data_dir(data_dir: Path) -> Iterator[None]:
    """Be the only owner of a data directory until the block ends or the process dies.

    Raises:
        EmbeddedPostgresRefused: Somebody else holds it.
    """
    try:
        descriptor = os.open(data_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EmbeddedPostgresRefused(
            f"the data directory {data_dir} cannot be used: {error.strerror}; start another one with "
            "`khala up --data-dir DIR`"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedPostgresRefused(
                f"another khala up is already running on {data_dir}; end it with "
                f"`khala down --data-dir {shlex.quote(str(data_dir))}`"
            ) from None
        yield
    finally:
        os.close(descriptor)


def make_token() -> str:
    """Return 256 random bits as 43 letters, digits, ``-`` and ``_``."""
    return secrets.token_urlsafe(SECRET_BYTES)


def read_or_make_secret(path: Path, make: Callable[[], str] = make_token) -> str:
    """Return the text of a secret file; on first use it is what ``make`` returns."""
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        value = make()
        write_private(path, value + "\n")
        return value


def write_private(path: Path, text: str) -> None:
    """Replace a file by ``text``: mode 0600, whole or not at all, durable."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def open_home(data_dir: Path, *, other_uid: int | None) -> PostgresHome:
    """Return the database's folder, making it if needed.

    Args:
        data_dir: What ``make_data_dir`` returned.
        other_uid: The user that the database runs as, if it is not ours. He can only pass through
            folders that everybody may enter; if the data directory is not below such folders,
            ``postgres`` becomes a link to one that is.
    """
    link = data_dir / "postgres"
    if not link.exists():
        if other_uid is not None and not may_be_entered_by_others(data_dir):
            name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
            outside = OPEN_PARENT / f"khala-{name}"
            outside.mkdir(mode=0o700, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(outside)
        else:
            link.mkdir(mode=0o700)
    home = link.resolve()
    if other_uid is not None:
        os.chown(home, other_uid, other_uid)
        if home.parent == data_dir.resolve():
            data_dir.chmod(data_dir.stat().st_mode | 0o011)
    return PostgresHome(home)
