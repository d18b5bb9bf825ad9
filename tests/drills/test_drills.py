"""The drills, in their short forms, by the commands of their pages; and what they say when nothing happens.

Each needs a system of real processes, so these are the slowest tests of all. Drills that stand on the same
system are run by one command, which starts it once.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from chaos.drills.catalog import DRILLS
from chaos.drills.rolling_deploy import LEAVE, MIGRATE
from tests.ci.markdown import fenced_blocks
from tests.ci.tree import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PAGES: Final = ROOT / "runbooks" / "drills"
COMMAND: Final = "khala drill run {names} --quick"
# Promises about speed. They are judged in the long form on a quiet machine, whose report test_cadence.py demands; a
# machine that also builds something else says nothing about them.
OF_SPEED: Final = (
    "p99",
    "ms of CPU",
    "of their rate",
    "The load was",
    "No second holds",
    "All are live again within",
    "Streams go on within",
)


@attrs.frozen
class Ran:
    """What one command did: the documents of its drills by name, and what it said beside them."""

    status: int
    documents: Mapping[str, Mapping[str, Any]]
    said: str
    left: list[str]


def together(name: str) -> tuple[str, ...]:
    """Return the drills that stand on the same system as this one, itself included."""
    system = DRILLS[name].system
    if system is None:
        return (name,)
    return tuple(other.name for other in DRILLS.values() if other.system == system)


@cache
def run_together(names: tuple[str, ...], *options: str, folder: Path) -> Ran:
    """Run drills as they are typed, with the `khala` of this environment and nothing set; once for all tests."""
    command = " ".join([COMMAND.format(names=" ".join(names)), "--json", *options])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KHALA_")}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    folder = folder / "-".join([names[0], *options])
    folder.mkdir()
    environment["TMPDIR"] = str(folder)
    done = subprocess.run(
        ["/bin/sh", "-ec", command], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    return Ran(
        done.returncode,
        {document["drill"]: document for document in documents},
        done.stderr,
        [entry.name for entry in folder.iterdir()],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of this module are run."""
    return tmp_path_factory.mktemp("drills")


def test_every_drill_has_a_page_and_every_page_a_drill() -> None:
    """What is not written down is not run when it is needed; what the page says is what is run here."""
    assert {page.stem for page in PAGES.glob("*.md")} == set(DRILLS)
    for name in DRILLS:
        page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
        (command,) = (block.text.strip() for block in fenced_blocks(page) if block.language == "sh")
        assert command == COMMAND.format(names=name)


def test_the_page_of_a_deployment_says_what_the_drill_types() -> None:
    """The migration job, then one line for each service, in the order in which the drill restarts them."""
    page = (PAGES / "rolling-deploy.md").read_text(encoding="utf-8")
    typed = [MIGRATE, *(LEAVE.format(name=name) for name in ("control", "runtime", "node-1"))]
    assert "\n".join(typed) in [block.text.strip() for block in fenced_blocks(page)]


@pytest.mark.parametrize("name", DRILLS)
def test_without_its_faults_a_drill_fails(name: str, folder: Path) -> None:
    """A drill proves that its harm was done: with the faults disabled there is no verdict to be had."""
    ran = run_together(together(name), "--no-faults", folder=folder)
    assert ran.status == 1, ran.said
    assert name not in ran.documents
    assert f"Error: {name}: not within 0.3 s: proof of the fault:" in ran.said


@pytest.mark.parametrize("name", DRILLS)
def test_the_short_form_keeps_every_promise(name: str, folder: Path) -> None:
    """Every fault happened, every promise but those of speed was kept, and if all were, nothing is left behind."""
    ran = run_together(together(name), folder=folder)
    assert name in ran.documents, ran.said
    broken = [claim for claim in ran.documents[name]["claims"] if not claim["is_met"]]
    assert ran.documents[name]["is_passed"] == (not broken)
    broken = [claim for claim in broken if not any(words in claim["promise"] for words in OF_SPEED)]
    assert not broken, ran.documents[name]["violations"]
    is_passed = all(other in ran.documents and ran.documents[other]["is_passed"] for other in together(name))
    assert (ran.status, ran.left == []) == ((0, True) if is_passed else (1, False)), ran.said
