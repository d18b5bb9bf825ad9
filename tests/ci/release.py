"""What must hold before a version is published: history kept, wheels whole, nothing of the tests in them."""

import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tests.ci.checks import CheckContext, Problems
from tests.ci.tools import run_module
from tests.ci.tree import tree_files

# Exactly what each wheel puts on the import path.
WHEEL_PACKAGES = frozenset(
    {
        "khala_contracts",
        "khala_client",
        "khala_service",
        "fanout_drivers",
        "runtime",
        "control",
        "khala",
        "chaos",
    }
)
PAGE = "control/web_shell/dist/"
CLIENT_PACKAGES = frozenset({"khala_contracts", "khala_client"})


def find_missing_history(context: CheckContext) -> Problems:
    """The wire fixtures of this minor version are kept for later compatibility tests."""
    version = tomllib.loads((context.root / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "version"
    ]
    folder = f"proto/fixtures/{'.'.join(version.split('.')[:2])}/"
    if not any(name.startswith(folder) for name in tree_files(context.root)):
        return [f"{folder}:1: no fixtures of version {version} are kept"]
    return []


def find_wheel_problems(context: CheckContext) -> Problems:
    """Build the wheel of the root and look inside; the built live page is part of it."""
    page = [name for name in tree_files(context.root) if name.startswith(PAGE)]
    if not page:
        return [f"{PAGE}:1: the live page is not built"]
    return _build(context, ".", WHEEL_PACKAGES, files=page)


def find_client_wheel_problems(context: CheckContext) -> Problems:
    """Build the slim client wheel: contracts and client, no server package."""
    return _build(context, "khala/client", CLIENT_PACKAGES)


def _build(
    context: CheckContext, project: str, packages: frozenset[str], *, files: Sequence[str] = ()
) -> Problems:
    if not (context.root / project / "pyproject.toml").is_file():
        return [f"{project}/pyproject.toml:1: missing"]
    with tempfile.TemporaryDirectory(prefix="khala-wheel-") as folder:
        problems = run_module(
            context.root,
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            folder,
            str(context.root / project),
        )
        if problems:
            return problems
        wheels = sorted(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            return [f"{project}: built {len(wheels)} wheels"]
        with zipfile.ZipFile(wheels[0]) as wheel:
            return judge_wheel(project, wheel.namelist(), packages, files=files)


def judge_wheel(
    project: str, names: list[str], packages: frozenset[str], *, files: Sequence[str] = ()
) -> Problems:
    """Return what is missing from or strange in the list of files of a wheel; `files` must be among them."""
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    problems = [f"{project}: the wheel lacks {name}" for name in sorted(packages - tops)]
    problems += [f"{project}: the wheel contains {name}" for name in sorted(tops - packages)]
    for file_name in ("LICENSE", "NOTICE"):
        if not any(".dist-info/" in name and name.endswith(f"/licenses/{file_name}") for name in names):
            problems.append(f"{project}: the wheel lacks {file_name}")
    return problems + [f"{project}: the wheel lacks {name}" for name in sorted({*files} - {*names})]
