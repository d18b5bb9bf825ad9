"""Faults of the menu that no drill does, done to a running system, each alone; the rest is done by drills."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from chaos.drills.fault_menu import FAULTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

KHALA: Final = Path(sys.executable).parent / "khala"
# PostgreSQL's disk and clock, and a network that swallows bytes: one system carries them all.
NO_DRILLS: Final = ("network-drop", "disk-full", "clock-skew")


def run_khala(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing of Khala set."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KHALA_")}
    return subprocess.run(
        [KHALA, "drill", "fault", *words],
        env={**environment, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_faults_are_listed_without_being_done(tmp_path: Path) -> None:
    """The command of the page."""
    listed = run_khala(tmp_path)
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(FAULTS)


def test_each_fault_happens_and_harms_no_history(tmp_path: Path) -> None:
    """CHA-04: proved by its own counters, and every client holds what PostgreSQL holds; nothing is left behind."""
    done = run_khala(tmp_path, *NO_DRILLS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line.endswith(": passed")] == [
        f"{name}: passed" for name in NO_DRILLS
    ]
    assert list(tmp_path.iterdir()) == []
