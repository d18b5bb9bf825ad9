"""The hook of `.githooks/pre-commit`, in a clone of its own: what breaks the contracts cannot be committed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ci.tree import ROOT, tree_files

FRAMES = "proto/openagents/sync/v1/frames.proto"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a repository with the files of this tree, one commit and the hook switched on."""
    for name in tree_files(ROOT):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "as it is")
    git(tmp_path, "config", "core.hooksPath", ".githooks")
    return tmp_path


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in a folder, as nobody in particular; the hook gets the interpreter of this test."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {
        "KHALA_PYTHON": sys.executable,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_commit_that_breaks_the_contracts_is_refused(clone: Path) -> None:
    """A deleted field is refused by name, and nothing is committed."""
    path = clone / FRAMES
    before = path.read_text(encoding="utf-8")
    field = next(line for line in before.splitlines(keepends=True) if "schema_version" in line)
    path.write_text(before.replace(field, ""), encoding="utf-8")
    git(clone, "add", FRAMES)
    refused = git(clone, "commit", "--message", "drop a field")
    assert refused.returncode != 0
    assert "schema_version" in refused.stdout + refused.stderr
    assert git(clone, "rev-list", "--count", "HEAD").stdout.strip() == "1"


def test_what_is_staged_is_judged_and_nothing_else(clone: Path) -> None:
    """A badly formatted file is refused when it is staged; beside the index it disturbs nobody."""
    (clone / "tests/unit/untidy.py").write_text('"""Untidy."""\nx=1\n', encoding="utf-8")
    (clone / "runbooks/note.md").write_text("A note.\n", encoding="utf-8")
    git(clone, "add", "runbooks/note.md")
    accepted = git(clone, "commit", "--message", "a note")
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    git(clone, "add", "tests/unit/untidy.py")
    refused = git(clone, "commit", "--message", "untidy")
    assert refused.returncode != 0
    assert "untidy.py" in refused.stdout + refused.stderr
