"""The drills, in their short forms, by the commands of their pages; and what they say when nothing happens.

Each starts a system of its own with real processes, so these are the slowest tests of all.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from chaos.drills.catalog import DRILLS
from tests.ci.markdown import fenced_blocks
from tests.ci.tree import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PAGES: Final = ROOT / "runbooks" / "drills"


def quick_command(name: str) -> str:
    """Return what the page of a drill says to type for its short form."""
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    (command,) = (block.text.strip() for block in fenced_blocks(page) if block.language == "sh")
    return command


def run_khala(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line as it is typed, with the `khala` of this environment and nothing set."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KHALA_")}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    environment["TMPDIR"] = str(folder)
    return subprocess.run(
        ["/bin/sh", "-ec", command], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


def test_every_drill_has_a_page_and_every_page_a_drill() -> None:
    """What is not written down is not run when it is needed."""
    assert {page.stem for page in PAGES.glob("*.md")} == set(DRILLS)
    for name in DRILLS:
        assert quick_command(name) == f"khala drill run {name} --quick"


@pytest.mark.parametrize("name", DRILLS)
def test_the_short_form_keeps_every_promise(name: str, tmp_path: Path) -> None:
    """The command of the page: every fault happened, every promise was kept, nothing is left behind."""
    done = run_khala(quick_command(name), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "BROKEN" not in done.stdout
    assert done.stdout.splitlines()[-1] == f"{name}: passed"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", DRILLS)
def test_without_its_faults_a_drill_fails(name: str, tmp_path: Path) -> None:
    """A drill proves that its harm was done: with the faults disabled there is no verdict to be had."""
    done = run_khala(f"{quick_command(name)} --no-faults", tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{name}: passed" not in done.stdout
