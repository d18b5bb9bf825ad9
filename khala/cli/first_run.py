"""What would make a start of ``khala up`` fail later and badly, looked at first: disk, rights, clock.

Each refusal is one sentence that names one command, and exit status 78: a person has to change something.
``khala doctor`` looks at more, and changes nothing either.
"""

from __future__ import annotations

import datetime
import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from khala.cli.failures import EXIT_REFUSED, CommandFailed
from khala.cli.wording import bytes_text

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["refuse_bad_machine", "refuse_full_disk", "refuse_unwritable", "refuse_wrong_clock"]

# An empty cluster is 40 MiB, and its log may grow before anything is recycled.
NEW_DISK_MIN_BYTES: Final = 256 * 1024 * 1024
# PostgreSQL stops everything when it cannot write the next 16 MiB of its log.
DISK_MIN_BYTES: Final = 48 * 1024 * 1024
# Clocks are stepped by seconds. Shorter: a machine that was corrected does not start. Longer: tokens
# and sessions of the last life, made in what is now the future, are refused for that long.
CLOCK_LEEWAY_S: Final = 300.0
# Unpacking may keep times of another zone.
BUILD_LEEWAY_S: Final = 26 * 3_600.0
# Folders of the data directory that this user writes; the database's own may belong to another uid.
_FOLDERS: Final = (".", "secrets", "logs", "profile", "run")
# Written in every life, the last of them shortly before its end.
_STAMPS: Final = ("up.json", "up.lock", "logs/khala.log", "logs/postgres.log", "profile/profile.json")
_DATABASE_STAMP: Final = "postgres/data/global/pg_control"


def refuse_bad_machine(data_dir: Path, *, now_s: float) -> None:
    """Return if nothing known speaks against a start on this data directory, which exists and is held.

    Raises:
        CommandFailed: One sentence, exit status 78.
    """
    refuse_unwritable(data_dir)
    refuse_full_disk(data_dir)
    refuse_wrong_clock(
        now_s, built=Path(__file__), stamps=[data_dir / name for name in (*_STAMPS, _DATABASE_STAMP)]
    )


def refuse_unwritable(data_dir: Path) -> None:
    """Return if every folder of the data directory that exists can be written.

    Raises:
        CommandFailed: Naming the first that cannot.
    """
    for folder in (data_dir / name for name in _FOLDERS):
        if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise _refused(
                f"{folder.resolve()} cannot be written by this user (uid {os.geteuid()}); start another one with "
                "`khala up --data-dir DIR`"
            )


def refuse_full_disk(data_dir: Path) -> None:
    """Return if there is room for a database, or for the log of the one that is there.

    Raises:
        CommandFailed: With how much there is, and how much it takes.
    """
    home = (data_dir / "postgres").resolve()
    # Not Path.exists, which fails where another user's folder may not be entered; that has a sentence of its own.
    is_new = not os.path.exists(home / "data")
    folder = home if os.path.exists(home) else data_dir
    wanted = NEW_DISK_MIN_BYTES if is_new else DISK_MIN_BYTES
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise _refused(
            f"the disk of {folder} is full: {bytes_text(free)} are free, {bytes_text(wanted)} are needed; see what "
            f"takes the room with `du -xh --max-depth=2 {shlex.quote(str(folder))}`, or start on another disk with "
            "--data-dir"
        )


def refuse_wrong_clock(now_s: float, *, built: Path, stamps: Iterable[Path]) -> None:
    """Return if the clock is not before what is known to have happened.

    That it is too late cannot be known: a file may be as old as it likes.

    Args:
        now_s: Unix time as this machine has it.
        built: A file that was there since this build was installed.
        stamps: Files that were written in earlier lives; those that exist count.

    Raises:
        CommandFailed: Naming the file that is younger than the clock says.
    """
    written = {path: path.stat().st_mtime for path in stamps if os.access(path, os.F_OK)}
    newest = max(written, key=written.__getitem__, default=None)
    if newest is not None and written[newest] > now_s + CLOCK_LEEWAY_S:
        raise _refused(
            f"the clock of this machine says {_time_text(now_s)}, but {newest} was written at "
            f"{_time_text(written[newest])}; set the clock with `timedatectl set-ntp true` (if it is right, "
            f"`touch {shlex.quote(str(newest))}`)"
        )
    built_s = built.stat().st_mtime
    if built_s > now_s + BUILD_LEEWAY_S:
        raise _refused(
            f"the clock of this machine says {_time_text(now_s)}, but khala was installed at {_time_text(built_s)}; "
            "set the clock with `timedatectl set-ntp true`"
        )


def _refused(sentence: str) -> CommandFailed:
    return CommandFailed(sentence, exit_status=EXIT_REFUSED)


def _time_text(time_s: float) -> str:
    return f"{datetime.datetime.fromtimestamp(time_s, datetime.UTC):%Y-%m-%d %H:%M} UTC"
