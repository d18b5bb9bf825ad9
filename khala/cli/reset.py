"""``khala reset``: forget everything that a data directory's ``khala up`` has stored.

Database, secrets, profile, and what one life wrote for the next (``run/``, ``up.json``) go; logs and whatever
else lies in the directory stay. The data directory is held meanwhile, so nothing can start on it; an orphan of
a killed life is ended first. Order: database, secrets, profile. Whatever moment it is interrupted at, the next
start makes what is missing, and a password never goes before its database.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from typing import TYPE_CHECKING

import click
from rich.text import Text

from khala.adapters.embedded_postgres_directory import OPEN_PARENT, hold_data_dir
from khala.adapters.embedded_postgres_processes import stop_processes
from khala.cli.failures import EXIT_REFUSED, CommandFailed
from khala.cli.locations import data_dir_option, profile_of
from khala.cli.orphans import end_orphans
from khala.cli.terminal import json_option, open_terminal
from khala.cli.up_record import living_record, read_record, remove_record

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["remove_database", "reset_command"]


@click.command("reset")
@data_dir_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def reset_command(data_dir: Path, *, yes: bool, is_json: bool) -> None:
    """Remove database, secrets and profile of a data directory; asks first, and refuses while it runs."""
    terminal = open_terminal(is_json=is_json)
    data_dir = data_dir.expanduser().absolute()
    if not (data_dir / "up.lock").is_file():
        # Every khala up makes it first; without it this is somebody else's folder.
        terminal.show(Text.assemble(("○ ", "bold"), f"Nothing of khala up is in {data_dir}."))
        terminal.data({"type": "reset", "data_dir": str(data_dir), "removed": []})
        return
    record = living_record(data_dir)
    if record is not None:
        raise CommandFailed(
            f"khala up runs on {data_dir} (pid {record.pid}); end it with `khala down --data-dir {data_dir}`",
            exit_status=EXIT_REFUSED,
        )
    if not yes:
        _ask(data_dir)
    with hold_data_dir(data_dir):
        removed = _remove_all(data_dir)
    terminal.data({"type": "reset", "data_dir": str(data_dir), "removed": removed})
    terminal.show(
        Text.assemble(
            ("○ ", "bold"), f"{data_dir} is empty again: {', '.join(removed) or 'nothing'} removed."
        )
    )


def _ask(data_dir: Path) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here; name --yes to remove everything")
    question = f"Remove every run, every session and every key of {data_dir}? It cannot be undone."
    if not click.confirm(question, err=True):
        raise click.Abort


def _remove_all(data_dir: Path) -> list[str]:
    """Remove what there is; return the names of what was removed."""
    removed: list[str] = []
    left = read_record(data_dir)
    if left is not None and left.processes:
        end_orphans(left)
    if remove_database(data_dir):
        removed.append("database")
    for name, folder in (
        ("secrets", data_dir / "secrets"),
        ("run", data_dir / "run"),
        ("profile", profile_of(data_dir)),
    ):
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
            removed.append(name)
    remove_record(data_dir)
    return removed


def remove_database(data_dir: Path) -> bool:
    """Remove the database of a data directory that is held; False if there is none.

    ``postgres`` may be a link: to the folder that was made because another user had to reach it, or to a disk
    of the owner's choice. The first goes, of the second the cluster in it.
    """
    link = data_dir / "postgres"
    if not link.is_symlink() and not link.exists():
        return False
    home = link.resolve()
    stop_processes(home / "data")
    if not link.is_symlink():
        shutil.rmtree(link)
        return True
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    if home == OPEN_PARENT / f"khala-{name}":
        shutil.rmtree(home, ignore_errors=not home.exists())
        link.unlink()
        return True
    if not (home / "data").is_dir():
        return False
    for folder in (home / "data", home / "socket"):
        shutil.rmtree(folder, ignore_errors=not folder.exists())
    return True
