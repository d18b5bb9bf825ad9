"""first_run.py: each thing that speaks against a start, at its limit and one beyond."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from khala.cli.failures import CommandFailed
from khala.cli.first_run import (
    BUILD_LEEWAY_S,
    CLOCK_LEEWAY_S,
    DISK_MIN_BYTES,
    NEW_DISK_MIN_BYTES,
    refuse_bad_machine,
    refuse_full_disk,
    refuse_unwritable,
    refuse_wrong_clock,
)

NOW_S = 1_800_000_000.0
Usage = namedtuple("Usage", ["total", "used", "free"])


def stamp(path: Path, time_s: float) -> Path:
    """Make a file that was written at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time_s, time_s))
    return path


def test_a_clock_before_the_last_life_is_wrong(tmp_path: Path) -> None:
    """Up to the leeway it may have been corrected; beyond it the sentence names both times, file and command."""
    built, old = stamp(tmp_path / "built", 0), stamp(tmp_path / "old", NOW_S - 1e8)
    new, missing = stamp(tmp_path / "new file", NOW_S + CLOCK_LEEWAY_S), tmp_path / "missing"
    refuse_wrong_clock(NOW_S, built=built, stamps=[old, new, missing])
    stamp(new, NOW_S + CLOCK_LEEWAY_S + 1)
    with pytest.raises(CommandFailed) as refused:
        refuse_wrong_clock(NOW_S, built=built, stamps=[old, new, missing])
    said = str(refused.value)
    assert refused.value.exit_status == 78
    assert "says 2027-01-15 08:00 UTC" in said
    assert "was written at 2027-01-15 08:05 UTC" in said
    assert "`timedatectl set-ntp true`" in said
    assert f"`touch '{new}'`" in said


def test_a_clock_before_the_installation_is_wrong(tmp_path: Path) -> None:
    """A first start has no earlier life; the program's own files are older than now."""
    built = stamp(tmp_path / "built", NOW_S + BUILD_LEEWAY_S)
    refuse_wrong_clock(NOW_S, built=built, stamps=[])
    stamp(built, NOW_S + BUILD_LEEWAY_S + 1)
    with pytest.raises(CommandFailed, match="khala was installed at 2027-01-16 10:00 UTC") as refused:
        refuse_wrong_clock(NOW_S, built=built, stamps=[])
    assert refused.value.exit_status == 78


@pytest.mark.parametrize(("has_database", "wanted"), [(False, NEW_DISK_MIN_BYTES), (True, DISK_MIN_BYTES)])
def test_room_for_a_database_or_for_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_database: bool, wanted: int
) -> None:
    """A first start takes more than another one; what is missing is said in numbers."""
    if has_database:
        (tmp_path / "postgres" / "data").mkdir(parents=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 0, wanted))
    refuse_full_disk(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 0, wanted - 1))
    with pytest.raises(
        CommandFailed, match=r"is full: .* MiB are free, \d+ MiB are needed.*`du -xh"
    ) as refused:
        refuse_full_disk(tmp_path)
    assert refused.value.exit_status == 78


def test_every_folder_must_be_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is a file, or not ours: named, with the remedy; one that is not there is made later."""
    for name in ("secrets", "logs"):
        (tmp_path / name).mkdir()
    refuse_unwritable(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "logs")
    with pytest.raises(
        CommandFailed, match=r"logs cannot be written by this user.*--data-dir DIR"
    ) as refused:
        refuse_unwritable(tmp_path)
    assert refused.value.exit_status == 78
    monkeypatch.undo()
    (tmp_path / "run").touch()
    with pytest.raises(CommandFailed, match="run cannot be written"):
        refuse_unwritable(tmp_path)


def test_a_good_machine_is_let_through(tmp_path: Path) -> None:
    """This one, with a data directory that was just made; the database's own stamp counts."""
    refuse_bad_machine(tmp_path, now_s=4e9)
    stamp(tmp_path / "postgres" / "data" / "global" / "pg_control", 5e9)
    with pytest.raises(CommandFailed, match="pg_control was written"):
        refuse_bad_machine(tmp_path, now_s=4e9)
