"""Runs one outside tool as a check: exit status 0 passes, anything else is shown.

The tool is taken from the interpreter that runs the gates, so that a fresh environment proves itself.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.ci.checks import Problems
from tests.ci.tree import child_environment

TOOL_TIMEOUT_S = 300.0  # The slowest, a cold mypy run, takes a fifth of this on two busy cores.
_SHOWN_LINES = 60


def run_module(
    root: Path, module: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> Problems:
    """Run ``python -m module arguments`` in ``root`` and return its output as problems if it fails."""
    return run_tool(root, [sys.executable, "-m", module, *arguments], environment=environment)


def run_script(root: Path, name: str, *arguments: str) -> Problems:
    """Run a console script installed beside the interpreter; see `run_module`."""
    return run_tool(root, [str(Path(sys.executable).parent / name), *arguments])


def run_tool(root: Path, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Problems:
    """Run a command in ``root``; its last lines are the problems when it fails or outlives `TOOL_TIMEOUT_S`."""
    name = " ".join([Path(command[0]).name, *command[1:4]])
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=child_environment(root, **(environment or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TOOL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"{name}: no answer in {TOOL_TIMEOUT_S:.0f} s"]
    except OSError as error:
        return [f"{name}: cannot be started: {error}"]
    if done.returncode == 0:
        return []
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return lines[-_SHOWN_LINES:] or [f"{name}: exit status {done.returncode} without a word"]
