"""Mutants: one defect each, as a patch to product source, and the test that must notice.

A patch file begins with three lines, then a unified diff against the tree:

    Defect: what is wrong in it
    Breaks: the invariant or the section of the contract that forbids it
    Killed by: the pytest node id that must fail because of it
"""

from pathlib import Path
from typing import Final

import attrs

PATCHES: Final = Path(__file__).parent / "patches"
_FIELDS: Final = ("Defect", "Breaks", "Killed by")


@attrs.frozen
class Mutant:
    """One patch. ``paths`` are the files that it changes, relative to the tree."""

    name: str
    patch: Path
    defect: str
    breaks: str
    killed_by: str
    paths: tuple[str, ...]


def read_mutant(patch: Path) -> Mutant:
    """Read a patch file.

    Raises:
        ValueError: A line of its head is missing, or it changes no file.
    """
    lines = patch.read_text(encoding="utf-8").splitlines()
    fields = []
    for line, field in zip(lines, _FIELDS, strict=False):
        name, separator, value = line.partition(": ")
        if name != field or not separator or not value.strip():
            message = f"{patch.name}: expected a line '{field}: ...', found {line!r}"
            raise ValueError(message)
        fields.append(value.strip())
    paths = tuple(line.removeprefix("+++ b/") for line in lines if line.startswith("+++ b/"))
    if len(fields) != len(_FIELDS) or not paths:
        message = f"{patch.name}: not a patch with a head of {len(_FIELDS)} lines"
        raise ValueError(message)
    defect, breaks, killed_by = fields
    return Mutant(patch.stem, patch, defect, breaks, killed_by, paths)


def all_mutants() -> list[Mutant]:
    """Return every mutant of the folder, by name."""
    return [read_mutant(patch) for patch in sorted(PATCHES.glob("*.patch"))]
