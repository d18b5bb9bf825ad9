"""Copies of the tree, with and without a defect, and what pytest says in them.

Every copy is made of the files of the repository alone, and imports its packages from itself; what was
really imported is asserted (`import_witness.py`). Nothing here touches the tree that it stands in.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from tests.ci.pytest_lane import read_record
from tests.ci.pytest_record import RECORD_VARIABLE
from tests.ci.tree import ROOT, child_environment, tree_files
from tests.mutants.import_witness import WITNESS_VARIABLE
from tests.mutants.mutants import Mutant

# A defect may make its test wait for what never comes; the test's own limit must end that.
TEST_TIMEOUT_S: Final = 30
_RUN_TIMEOUT_S: Final = 600


@attrs.frozen
class PytestRun:
    """What one pytest process did in a copy.

    Attributes:
        outcomes: By node id.
        imported: Files of the product's modules, relative to the copy; those from elsewhere are absolute.
    """

    outcomes: Mapping[str, str]
    imported: frozenset[str]
    output: str = attrs.field(repr=False)

    def outcome(self, test: str) -> str:
        """Return what became of a test; of one with cases, the worst that happened to any of them."""
        found = {
            outcome for name, outcome in self.outcomes.items() if name == test or name.startswith(f"{test}[")
        }
        return next((outcome for outcome in ("failed", "skipped", "passed") if outcome in found), "not run")


def copy_tree(target: Path) -> None:
    """Copy the files of the repository, those of the working copy, to a new folder."""
    for name in tree_files(ROOT):
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, destination)


def apply_patch(tree: Path, patch: Path) -> str:
    """Apply a patch to a copy; return why it does not apply, or an empty text."""
    # Two levels up there may be a repository, which would make git leave out what it ignores.
    done = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", str(patch.resolve())],
        cwd=tree,
        env={**child_environment(tree), "GIT_CEILING_DIRECTORIES": str(tree.resolve().parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr if done.returncode else ""


def run_pytest_in(tree: Path, tests: Sequence[str]) -> PytestRun:
    """Run tests in a copy of the tree."""
    record, witness = tree / "record.jsonl", tree / "witness.json"
    record.unlink(missing_ok=True)
    changes = {
        RECORD_VARIABLE: str(record),
        WITNESS_VARIABLE: str(witness),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    plugins = ["-p", "tests.ci.pytest_record", "-p", "tests.mutants.import_witness", "-p", "no:cacheprovider"]
    options = ["-q", "--hypothesis-seed=0", f"--timeout={TEST_TIMEOUT_S}", "--basetemp=basetemp"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *options, *tests],
        cwd=tree,
        env=child_environment(tree, **changes),
        capture_output=True,
        text=True,
        timeout=_RUN_TIMEOUT_S,
        check=False,
    )
    output = done.stdout + done.stderr
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    run, is_finished = read_record(lines)
    if not is_finished:
        raise AssertionError(f"pytest did not finish:\n{output}")
    files = json.loads(witness.read_text(encoding="utf-8"))
    return PytestRun(dict(run.outcomes), frozenset(_relative(files, tree.resolve())), output)


def run_mutant(mutant: Mutant, tree: Path) -> PytestRun:
    """Run the mutant's test in a new copy that has its defect.

    Raises:
        AssertionError: The patch does not apply any more.
    """
    copy_tree(tree)
    refusal = apply_patch(tree, mutant.patch)
    assert not refusal, f"{mutant.patch.name} does not apply any more; make it anew:\n{refusal}"
    return run_pytest_in(tree, [mutant.killed_by])


def _relative(files: Iterable[str], tree: Path) -> list[str]:
    return [
        path.relative_to(tree).as_posix() if (path := Path(file)).is_relative_to(tree) else file
        for file in files
    ]
