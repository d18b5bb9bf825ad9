"""``python -m chaos.checker`` as a drill calls it: a process that judges files, with exit status 0, 1, 2."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.unit.chaos.histories import acks_of, history, write_acks, write_lines

if TYPE_CHECKING:
    from pathlib import Path

LINES = history()


def judge(folder: Path) -> subprocess.CompletedProcess[str]:
    """Judge the files of a folder."""
    arguments = ["--journal", "journal", "--history", "history", "--acks", "acks", "--complete"]
    return subprocess.run(
        [sys.executable, "-m", "chaos.checker", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_each_exit_status(tmp_path: Path) -> None:
    """Kept; a lost tail and a lost acknowledgement; a file that was cut."""
    write_lines(tmp_path / "journal", LINES)
    write_lines(tmp_path / "history", LINES)
    write_acks(tmp_path / "acks", acks_of(LINES))
    kept = judge(tmp_path)
    assert (kept.returncode, kept.stderr) == (0, "")
    assert kept.stdout.startswith("0 violations; 5 events, 1 topics")

    write_lines(tmp_path / "journal", LINES[:-1])
    write_lines(tmp_path / "history", LINES[:-2])
    broken = judge(tmp_path)
    assert (broken.returncode, broken.stderr) == (1, "")
    assert [line.split(":")[0] for line in broken.stdout.splitlines()] == ["loss", "lost_ack", "2 violations; 4 events, 1 topics, 1 histories, 1 acknowledgement files"]  # fmt: skip

    path = tmp_path / "acks"
    path.write_bytes(path.read_bytes()[:-30])
    cut = judge(tmp_path)
    assert (cut.returncode, cut.stdout) == (2, "")
    assert cut.stderr.startswith("cannot judge: acks:5: ")


@pytest.mark.slow
def test_the_checker_needs_nothing_of_the_product_but_the_contracts() -> None:
    """It judges the rest, so it must not be made of it."""
    program = (
        "import sys, chaos.checker; "
        "print(sorted({n.split('.')[0] for n in sys.modules} & "
        "{'khala', 'khala_client', 'khala_service', 'runtime', 'control', 'fanout_drivers', 'trio'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
