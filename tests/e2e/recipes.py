"""Runs what runbooks/recipes says, as it is written there: the commands of README.md, in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.system import running_system, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.system import System

RECIPES = Path(__file__).resolve().parents[2] / "runbooks" / "recipes"
FILES = ("own_users.py", "own_users_page.html")
# As they are written in README.md.
_ORIGIN, _APPLICATION = "http://127.0.0.1:8470", "http://127.0.0.1:8480"


def free_port() -> int:
    """Return a port that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _commands() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (RECIPES / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@contextmanager
def recipe_system(folder: Path, port: int) -> Iterator[System]:
    """A system started by the first block, for an application at this port."""
    words = _commands()[0].replace(_APPLICATION, f"http://127.0.0.1:{port}").split()
    assert words[-2:] == ["khala", "up"]
    (variable,) = words[:-2]
    name, _, value = variable.partition("=")
    assert name == "KHALA_NODE_CORS_ORIGINS"
    with running_system(folder, KHALA_NODE_CORS_ORIGINS=value) as system:
        yield system


@contextmanager
def recipe_application(system: System, folder: Path, port: int) -> Iterator[str]:
    """The second block, running in a folder with the two files and nothing else; yields where it listens."""
    for name in FILES:
        shutil.copy(RECIPES / name, folder)
    script = _commands()[1].replace(_ORIGIN, system.ready["origin"])
    assert "\npython own_users.py" in script
    # The program is its key alone, and the shell becomes the program, so that ending one ends the other.
    script = script.replace("\npython", "\nunset KHALA_PROFILE\nexec python")
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "PORT": str(port),
        # The commands act as the development user of this system, whatever there is on this machine.
        "KHALA_PROFILE": system.ready["profile"],
    }
    output = folder / "log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=folder,
            env=environ,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )

    def is_listening() -> bool:
        assert process.poll() is None, output.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(is_listening, timeout_s=60, what="the application's port")
        yield f"http://127.0.0.1:{port}"
        assert process.poll() is None, output.read_text()
    finally:
        process.kill()
        process.wait(timeout=10)
