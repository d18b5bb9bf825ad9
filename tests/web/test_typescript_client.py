"""The TypeScript client: its own tests in Node, its types, its form, and that nothing in it is stale.

Needs Node (extra `test`) and the packages of its lock file, which tests/ci/node_tools.py installs once per machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import attrs
import pytest

from tests.ci.node_tools import NodeTools, ToolFailed, open_node_tools

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "khala" / "client" / "typescript"
FIXTURES = ROOT / "proto" / "fixtures"
TEST_FILES = sorted(path.name for path in (CLIENT / "tests").glob("*.test.ts"))


@attrs.frozen
class Bundles:
    """The test files, each with what it imports, as Node runs them."""

    tools: NodeTools
    folder: Path


@pytest.fixture(scope="session")
def tools() -> NodeTools:
    """Node and the packages of the lock file."""
    return open_node_tools(ROOT)


@pytest.fixture(scope="session")
def bundles(tools: NodeTools, tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Every test file, bundled once."""
    folder = tmp_path_factory.mktemp("typescript")
    tools.run(
        "esbuild",
        *(f"tests/{name}" for name in TEST_FILES),
        "--bundle",
        "--platform=node",
        "--format=esm",
        "--target=node20",
        "--out-extension:.js=.mjs",
        f"--outdir={folder}",
        f"--define:process.env.KHALA_FIXTURES={json.dumps(str(FIXTURES))}",
        f"--alias:fake-indexeddb={tools.modules / 'fake-indexeddb' / 'build' / 'esm' / 'index.js'}",
        "--log-level=warning",
        cwd=CLIENT,
    )
    return Bundles(tools, folder)


def test_there_are_test_files() -> None:
    """A renamed folder must not pass as no tests."""
    assert len(TEST_FILES) >= 7


@pytest.mark.parametrize("name", TEST_FILES)
def test_in_node(bundles: Bundles, name: str) -> None:
    """Every test of the file passes; a failing one is named."""
    bundle = bundles.folder / name.replace(".ts", ".mjs")
    reported = bundles.tools.run_node("--test", "--test-reporter=tap", str(bundle), cwd=bundles.folder)
    counts = dict(
        line[2:].split(" ", 1) for line in reported.splitlines() if line.startswith("# ") and " " in line[2:]
    )
    assert int(counts["pass"]) > 0
    assert (counts["fail"], counts["skipped"], counts["todo"]) == ("0", "0", "0")


def test_a_failing_test_fails(bundles: Bundles) -> None:
    """The runner above reports what goes wrong, by name."""
    broken = bundles.folder / "broken.mjs"
    broken.write_text(
        'import { test } from "node:test"; test("on purpose", () => { throw new Error("x"); });'
    )
    with pytest.raises(ToolFailed, match="not ok 1 - on purpose"):
        bundles.tools.run_node("--test", "--test-reporter=tap", str(broken), cwd=bundles.folder)


def test_types(tools: NodeTools, tmp_path: Path) -> None:
    """`tsc --strict` over sources and tests; the page's own check leaves the tests out."""
    config = {
        "extends": str(CLIENT / "tsconfig.json"),
        "compilerOptions": {
            "types": ["node"],
            "typeRoots": [str(tools.modules / "@types")],
            "paths": {"fake-indexeddb": [str(tools.modules / "fake-indexeddb")]},
        },
        "include": [str(CLIENT / "src"), str(CLIENT / "tests")],
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps(config))
    tools.run("tsc", "--noEmit", "--project", str(tmp_path), cwd=CLIENT)


def test_form(tools: NodeTools) -> None:
    """Prettier has nothing to change."""
    prettier = tools.modules / "prettier" / "bin" / "prettier.cjs"
    tools.run_node(str(prettier), "--check", "src", "tests", cwd=CLIENT)


def test_tables_are_what_the_contracts_give() -> None:
    """src/gen is generated: a changed proto, kind or reason code shows here."""
    done = subprocess.run(
        [sys.executable, str(CLIENT / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_one_version() -> None:
    """What the client tells servers, its package and the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    package = json.loads((CLIENT / "package.json").read_text())
    assert package["version"] == project
    assert f'VERSION = "{project}"' in (CLIENT / "src" / "version.ts").read_text()


def test_no_runtime_dependency() -> None:
    """A page loads our own code only; and the lock names no place to get the tools from."""
    package = json.loads((CLIENT / "package.json").read_text())
    assert "dependencies" not in package
    lock = json.loads((CLIENT / "package-lock.json").read_text())
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry]
    sources = list((CLIENT / "src").rglob("*.ts"))
    imports = {
        line.rpartition(" from ")[2].strip('";') for path in sources for line in path.read_text().splitlines()
        if line.startswith(("import ", "export ", "} from ")) and " from " in line
    }  # fmt: skip
    assert imports
    assert all(name.startswith(".") for name in imports)
