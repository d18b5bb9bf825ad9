"""Plausible bugs, one patch each to product source (`chaos/sim/defects`), and copies of the source that have one.

A patch file begins with two lines, an empty one, then a unified diff against the tree:

    Defect: what is wrong in it
    Breaks: the invariant or the section of the contract that forbids it

They are no switches in the product or in the simulator: what is run is the product, with the bug in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

import chaos

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

__all__ = [
    "DEFECTS",
    "Defect",
    "DefectRefused",
    "all_defects",
    "apply_defect",
    "copy_source",
    "defects_of",
    "environment_of",
    "read_defect",
    "source_root",
]

DEFECTS: Final = Path(__file__).parent / "defects"
_FIELDS: Final = ("Defect", "Breaks")
# Where the packages of the tree are imported from.
_PARENTS: Final = (".", "proto", "khala/client", "khala/service")
_PACKAGES: Final = (
    "proto/khala_contracts",
    "khala",
    "fanout_drivers",
    "runtime",
    "chaos",
)
_LEFT_OUT: Final = shutil.ignore_patterns(
    "__pycache__", "node_modules", "typescript", "web_shell", "dist", "native", "defects", ".*"
)


class DefectRefused(Exception):
    """A patch, or this installation, is not what it should be; its text says what."""


@attrs.frozen
class Defect:
    """One patch. ``paths`` are the files that it changes, relative to the tree."""

    name: str
    patch: Path
    defect: str
    breaks: str
    paths: tuple[str, ...]


def read_defect(patch: Path) -> Defect:
    """Read a patch file.

    Raises:
        DefectRefused: A line of its head is missing, or it changes no file.
    """
    lines = patch.read_text(encoding="utf-8").splitlines()
    fields: list[str] = []
    for line, field in zip(lines, _FIELDS, strict=False):
        name, separator, value = line.partition(": ")
        if name != field or not separator or not value.strip():
            message = f"{patch.name}: expected a line '{field}: ...', found {line!r}"
            raise DefectRefused(message)
        fields.append(value.strip())
    paths = tuple(line.removeprefix("+++ b/").strip() for line in lines if line.startswith("+++ b/"))
    if len(fields) != len(_FIELDS) or not paths:
        message = f"{patch.name}: not a patch with a head of {len(_FIELDS)} lines"
        raise DefectRefused(message)
    return Defect(patch.stem, patch, fields[0], fields[1], paths)


def all_defects() -> list[Defect]:
    """Return every defect of the folder, by name."""
    return [read_defect(patch) for patch in sorted(DEFECTS.glob("*.patch"))]


def defects_of(day: date, count: int = 3) -> list[Defect]:
    """Return the defects of a day: over the days, each comes as often as any other."""
    defects = all_defects()
    first = day.toordinal() * count
    return [defects[(first + offset) % len(defects)] for offset in range(min(count, len(defects)))]


def source_root() -> Path:
    """Return the tree that this is run from.

    Raises:
        DefectRefused: It is installed without its source.
    """
    root = Path(chaos.__file__).resolve().parents[1]
    if not (root / "pyproject.toml").is_file():
        message = "defects are patches to the source: run this from a working copy"
        raise DefectRefused(message)
    return root


def copy_source(root: Path, target: Path) -> None:
    """Copy the packages that a simulated world is made of."""
    for package in _PACKAGES:
        shutil.copytree(root / package, target / package, ignore=_LEFT_OUT)


def apply_defect(tree: Path, defect: Defect) -> None:
    """Give a copy the defect.

    Raises:
        DefectRefused: The patch does not apply any more: the bug that it stands for is not looked for.
    """
    # Two levels up there may be a repository, which would make git leave out what it ignores.
    done = subprocess.run(
        ["git", "apply", "-C1", "--whitespace=nowarn", str(defect.patch.resolve())],
        cwd=tree,
        env={**environment_of(tree), "GIT_CEILING_DIRECTORIES": str(tree.resolve().parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        message = f"{defect.patch.name} does not apply any more; make it anew:\n{done.stderr}"
        raise DefectRefused(message)


def environment_of(tree: Path) -> Mapping[str, str]:
    """Return an environment in which a child imports our packages from ``tree``."""
    paths = [str((tree / parent).resolve()) for parent in _PARENTS]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
