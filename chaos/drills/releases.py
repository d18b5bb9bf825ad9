"""Releases of Khala as folders, and which of them is the current one: a deployment by symbolic link.

Each process of the system imports from ``current``, a link, when it starts. So a release is deployed by
leading the link elsewhere and restarting the processes, in whatever order. A *next* release is a copy of
this one with another version and one more migration for each plane, which older builds work with.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
from pathlib import Path
from typing import Final, Literal, TypeAlias

import attrs

__all__ = ["NEXT", "PRESENT", "Releases"]

Release: TypeAlias = Literal["present", "next"]
PRESENT: Final[Release] = "present"
NEXT: Final[Release] = "next"

_PACKAGES: Final = (
    "control", "fanout_drivers", "khala", "khala_client", "khala_contracts", "khala_service", "runtime",
)  # fmt: skip
_DISTRIBUTION: Final = "khala"
_METADATA: Final = ("METADATA", "entry_points.txt")
_NEXT_VERSION: Final = "999.0.0"
# What a next release adds to a table that is written to all the time.
_ADDED: Final = {
    "control": "ALTER TABLE control.sessions ADD COLUMN drilled_at timestamptz;",
    "runtime": "ALTER TABLE runtime.runs ADD COLUMN drilled_at timestamptz;",
}
_MIGRATIONS: Final = Path("adapters", "postgres", "migrations")
_NUMBER: Final = re.compile(r"(\d{4})_")


@attrs.define
class Releases:
    """Two releases in a folder, and the link. Made by ``make``.

    Attributes:
        versions: What the processes of each say of themselves.
        revisions: By plane: the migration that only the next one has.
    """

    folder: Path
    versions: dict[Release, str]
    revisions: dict[str, str]

    @classmethod
    def make(cls, folder: Path) -> Releases:
        """Write both releases; the present one is current."""
        folder.mkdir()
        version = importlib.metadata.version(_DISTRIBUTION)
        _copy(folder / PRESENT, version)
        _copy(folder / NEXT, _NEXT_VERSION)
        revisions = {plane: _add_migration(folder / NEXT, plane, sql) for plane, sql in _ADDED.items()}
        made = cls(folder, {PRESENT: version, NEXT: _NEXT_VERSION}, revisions)
        made.make_current(PRESENT)
        return made

    @property
    def environ(self) -> tuple[tuple[str, str], ...]:
        """Variables that let a process import from the current release, and from nowhere before it."""
        return (("PYTHONPATH", str(self.folder / "current")), ("PYTHONSAFEPATH", "1"))

    def make_current(self, release: Release) -> None:
        """Lead the link to a release, in one step."""
        link = self.folder / "current.new"
        link.symlink_to(self.folder / release)
        os.replace(link, self.folder / "current")


def _copy(folder: Path, version: str) -> None:
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        (source,) = spec.submodule_search_locations
        shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    distribution = importlib.metadata.distribution(_DISTRIBUTION)
    metadata = folder / f"{_DISTRIBUTION}-{version}.dist-info"
    metadata.mkdir()
    for file in _METADATA:
        text = distribution.read_text(file) or ""
        (metadata / file).write_text(
            re.sub(r"(?m)^Version: .*$", f"Version: {version}", text), encoding="utf-8"
        )


def _add_migration(release: Path, plane: str, sql: str) -> str:
    """Add a file after the last one, for which builds of the last one are good enough; return its name."""
    folder = release / plane / _MIGRATIONS
    last = max(int(found.group(1)) for file in folder.iterdir() if (found := _NUMBER.match(file.name)))
    name = f"{last + 1:04d}_drilled"
    (folder / f"{name}.sql").write_text(f"-- oldest build: {last:04d}\n{sql}\n", encoding="utf-8")
    return name
