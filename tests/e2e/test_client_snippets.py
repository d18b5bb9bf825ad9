"""The client's guide, typed by a reader: every block of it runs, on both event loops where it is for both."""

from __future__ import annotations

import ast
import builtins
import io
import json
import os
import subprocess
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import pytest

from khala_client.blocking import Khala as BlockingKhala
from khala_contracts.topics import format_app
from tests.actors.khala_client.loops import LOOPS, LoopKind
from tests.ci.markdown import Block, fenced_blocks
from tests.ci.tree import ROOT

if TYPE_CHECKING:
    from tests.e2e.system import System

pytestmark = pytest.mark.slow

GUIDE = "runbooks/client.md"
BLOCKS = fenced_blocks((ROOT / GUIDE).read_text(encoding="utf-8"))
PROGRAMS = [block for block in BLOCKS if block.language == "python"]
COMMANDS = [block for block in BLOCKS if block.language == "sh"]
ASYNCIO_IMPORT, TRIO_IMPORT = "from khala_client import Khala", "from khala_client.trio import Khala"
ON_BOTH = [block for block in PROGRAMS if ASYNCIO_IMPORT in block.text]
BLOCKING = [block for block in PROGRAMS if "khala_client.blocking" in block.text]


@pytest.fixture(scope="module")
def key(system: System) -> dict[str, str]:
    """A service key of the development user's org."""
    made = system.run("keys", "create", "--name", "guide", "--can", "publish,work,read,mint", "--json")
    document: dict[str, str] = json.loads(made.stdout)
    return document


@pytest.fixture
def environment(system: System, key: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One URL and one key, as the guide says."""
    for name in [name for name in os.environ if name.startswith("KHALA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KHALA_URL", system.ready["origin"])
    monkeypatch.setenv("KHALA_KEY", key["secret"])
    monkeypatch.setenv("TOPIC", format_app(key["org_id"], "orders"))
    return monkeypatch


def place(block: Block) -> str:
    """Name a block by its line."""
    return f"{GUIDE}:{block.line}"


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.name)
@pytest.mark.parametrize("block", ON_BOTH, ids=place)
def test_a_block_for_event_loops(environment: pytest.MonkeyPatch, block: Block, loop: LoopKind) -> None:
    """Word for word on asyncio; with the import that it names, on trio. It prints what it should, then is cancelled."""
    text = block.text if loop.name == "asyncio" else block.text.replace(ASYNCIO_IMPORT, TRIO_IMPORT)
    if loop.name == "trio":
        # Names of runs are unique per owner, and the owner has run this on asyncio.
        text = text.replace("fix-1867", "fix-1867-trio")
    printed: list[tuple[Any, ...]] = []
    code = compile(text, place(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    follows = "subscribe" in text
    names = {"print": lambda *words: printed.append(words), "__builtins__": builtins}

    async def main() -> None:
        if follows:
            await loop.cancel(lambda: eval(code, names), when=lambda: len(printed) == 4)  # noqa: S307 - our guide
        else:
            await eval(code, names)  # noqa: S307 - our guide

    loop.run(main, real_time=True)
    if follows:
        assert [(seq, kind) for seq, kind, _ in printed] == [
            (1, "run.started"), (2, "thought"), (3, "action"), (4, "run.finished"),
        ]  # fmt: skip
        assert printed[1][2]["text"] == "Look at the failing test first."
    else:
        ((sync_url, expires_at_s),) = printed
        assert str(sync_url).endswith("/sync/v1/ws")
        assert expires_at_s > 0


@pytest.mark.parametrize("block", BLOCKING, ids=place)
def test_a_block_for_scripts(environment: pytest.MonkeyPatch, block: Block) -> None:
    """Word for word, to its end."""
    output = io.StringIO()
    with redirect_stdout(output):
        exec(compile(block.text, place(block), "exec"), {"__name__": "__main__"})  # noqa: S102 - our guide
    lines = output.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["run.started", "thought", "run.finished"]


@pytest.mark.parametrize("block", COMMANDS, ids=place)
def test_a_command_without_a_client(environment: pytest.MonkeyPatch, block: Block) -> None:
    """An append by curl, with ``data`` as an object."""
    with BlockingKhala.from_env() as khala, khala.run() as run:
        environment.setenv("RUN", run.id)
        done = subprocess.run(
            ["bash", "-euc", block.text], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        (ack,) = json.loads(done.stdout)["acks"]
        assert (ack["topic"], ack["seq"]) == (run.topic, "2")
        with khala.subscribe(run.topic, after=1) as events:
            assert next(events).data["text"] == "hi"


def test_the_guide_has_them_all() -> None:
    """A block that is not run here would be a promise nobody keeps."""
    assert (len(ON_BOTH), len(BLOCKING), len(COMMANDS)) == (2, 1, 1)
    assert {*map(id, ON_BOTH), *map(id, BLOCKING)} == {*map(id, PROGRAMS)}
