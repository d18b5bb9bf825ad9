"""Which files the tree consists of, and how our own packages are found in it.

A working copy is asked through git (ignored files do not count); an export without git is walked. So the same
lanes run on a clone, on the index exported by the pre-commit hook, and on the small trees of the tests.
"""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE_PARENTS = (".", "proto", "khala/client", "khala/service")
PACKAGES = (
    "proto/khala_contracts",
    "khala/client/khala_client",
    "khala/service/khala_service",
    "fanout_drivers",
    "runtime",
    "control",
    "khala",
    "chaos",
    "tests",
)
GENERATED = "proto/khala_contracts/gen/"
_WALK_IGNORES = {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}


def tree_files(root: Path) -> list[str]:
    """Return the repository's files as sorted POSIX paths relative to ``root``; deleted ones are left out."""
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0")
        return sorted({name for name in listed if name and (root / name).is_file()})
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _WALK_IGNORES]
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in names]
    return sorted(found)


def python_files(root: Path) -> list[str]:
    """Return our own Python files: everything but generated code."""
    return [name for name in tree_files(root) if name.endswith(".py") and not name.startswith(GENERATED)]


def module_name(path: str) -> str:
    """Return the import name of a Python file, as the packages of this tree are installed.

    ``proto/khala_contracts/topics.py`` gives ``khala_contracts.topics``.
    """
    for parent in PACKAGE_PARENTS[1:]:
        if path.startswith(parent + "/"):
            path = path[len(parent) + 1 :]
            break
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def child_environment(root: Path, **changes: str) -> dict[str, str]:
    """Return an environment in which a child imports our packages from ``root`` and not from an installation."""
    paths = [str(root / parent) if parent != "." else str(root) for parent in PACKAGE_PARENTS]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **changes}
