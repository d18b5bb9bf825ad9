"""``khala sim`` as a person runs it: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path  # noqa: TC003  # pytest looks at annotations of fixtures

import pytest

pytestmark = pytest.mark.timeout(600)


def _sim(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "khala.cli", "sim", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_one_seed_says_what_it_found() -> None:
    """Exit 0 without a finding, and the hash of the trace; with --trace the way there."""
    done = _sim("--seed", "36", "--trace")
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr
    lines = done.stdout.splitlines()
    assert "0 findings" in lines[-1]
    assert any("is acknowledged" in line for line in lines)
    assert any("has converged" in line for line in lines)


def test_a_range_writes_its_page(tmp_path: Path) -> None:
    """Seeds, coverage and times, for people and for programs; two processes deal the seeds out."""
    done = _sim("--seeds", "30..33", "--jobs", "2", "--report", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "out" / "simulation.json").read_text())
    assert document["seeds"] == 4
    assert document["failed"] == []
    assert document["coverage"]
    page = (tmp_path / "out" / "simulation.md").read_text()
    assert "0 of 4 seeds showed a violation" in page
    assert "`append.batch`" in page


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--seed", "1", "--seeds", "1..2"),
        ("--seeds", "2..1"),
        ("--seeds", "1..2", "--trace"),
        ("--minutes", "1"),
    ],
)
def test_a_wrong_command(arguments: tuple[str, ...]) -> None:
    """Exit 2, and nothing is run."""
    assert _sim(*arguments).returncode == 2
