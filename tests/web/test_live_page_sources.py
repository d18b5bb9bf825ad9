"""The live page's pure parts in Node, and the build: what is committed is what the sources give."""

from __future__ import annotations

import gzip
from pathlib import Path

import attrs
import pytest

from tests.ci.checks import CheckContext
from tests.ci.node_tools import NodeTools, open_node_tools
from tests.ci.web_build import (
    build_files,
    compress,
    find_build_differences,
    find_heavy_first_load,
    judge_dist,
    read_dist,
    write_dist,
)

ROOT = Path(__file__).resolve().parents[2]
SHELL = ROOT / "control" / "web_shell"
TEST_FILES = sorted(path.name for path in (SHELL / "tests").glob("*.test.ts"))


@attrs.frozen
class Bundles:
    """The test files, each with what it imports, as Node runs them."""

    tools: NodeTools
    folder: Path


@pytest.fixture(scope="module")
def tools() -> NodeTools:
    """Node and the packages of the lock file."""
    return open_node_tools(ROOT)


@pytest.fixture(scope="module")
def bundles(tools: NodeTools, tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Every test file, bundled once."""
    folder = tmp_path_factory.mktemp("live_page")
    sources = [str(SHELL / "tests" / name) for name in TEST_FILES]
    options = ("--bundle", "--platform=node", "--format=esm", "--target=node20", "--log-level=warning")
    tools.run("esbuild", *sources, *options, "--out-extension:.js=.mjs", f"--outdir={folder}", cwd=ROOT)
    return Bundles(tools, folder)


def test_there_are_test_files() -> None:
    """A renamed folder must not pass as no tests."""
    assert len(TEST_FILES) >= 4


@pytest.mark.parametrize("name", TEST_FILES)
def test_in_node(bundles: Bundles, name: str) -> None:
    """Every test of the file passes; a failing one is named."""
    bundle = bundles.folder / name.replace(".ts", ".mjs")
    reported = bundles.tools.run_node("--test", "--test-reporter=tap", str(bundle), cwd=bundles.folder)
    assert "\n# fail 0\n" in reported
    assert "\n# pass 0\n" not in reported


def test_form(tools: NodeTools) -> None:
    """Prettier, as the client's package.json sets it, has nothing to change."""
    prettier = tools.modules / "prettier" / "bin" / "prettier.cjs"
    config = ROOT / "khala" / "client" / "typescript" / "package.json"
    tools.run_node(str(prettier), "--config", str(config), "--check", "src", "tests", cwd=SHELL)


def test_building_twice_gives_the_same_bytes(tools: NodeTools) -> None:
    """WEB-15: no time, no path, no order of a folder enters a file."""
    assert build_files(ROOT, tools) == build_files(ROOT, tools)


def test_a_changed_byte_changes_its_own_name(tools: NodeTools, tmp_path: Path) -> None:
    """WEB-15: one asset's name, the page and the manifest that name it, and nothing else."""
    before = build_files(ROOT, tools)
    for folder in ("control/web_shell/src", "khala/client/typescript"):
        (tmp_path / folder).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / folder).symlink_to(ROOT / folder) if "client" in folder else _copy(
            ROOT / folder, tmp_path
        )
    style = tmp_path / "control/web_shell/src/style.css"
    style.write_text(style.read_text().replace("#fcfcfa", "#fcfcfb"))
    after = build_files(tmp_path, tools)
    old, new = before.keys() - after.keys(), after.keys() - before.keys()
    assert [path.split(".")[0] for path in (*old, *new)] == ["/assets/style", "/assets/style"]
    assert {path for path in before.keys() & after.keys() if before[path] != after[path]} == {
        "/index.html",
        "/manifest.json",
    }


def _copy(folder: Path, root: Path) -> None:
    for file in folder.iterdir():
        target = root / folder.relative_to(ROOT) / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())


def test_what_is_committed_is_what_the_sources_give(tools: NodeTools) -> None:
    """And each way in which it could not be is named with its file."""
    assert find_build_differences(CheckContext(ROOT)) == []
    built = build_files(ROOT, tools)
    committed = dict(read_dist(ROOT))
    script = next(path for path in built if path.startswith("/assets/app."))
    for path, body, said in (
        (script, committed[script] + b" ", "not what the sources give"),
        ("/stranger.js", b"", "of no source"),
        (f"{script}.gz", gzip.compress(b"something else"), "not what the sources give"),
        (f"{script}.br", b"broken", "not what the sources give"),
        ("/sw.js", None, "missing"),
    ):
        changed = {name: held for name, held in (committed | {path: body}).items() if held is not None}
        problems = judge_dist(built, changed, tools)
        assert any(f"{path}:1: {said}" in problem for problem in problems), problems


def test_a_heavy_page_is_named(tools: NodeTools, tmp_path: Path) -> None:
    """What a browser loads first has a bound, one byte of it included."""
    assert find_heavy_first_load(CheckContext(ROOT)) == []
    files = {"/index.html": b"", "/index.html.br": b"x", "/assets/a.js.br": b"x" * (64 * 1024 - 1)}
    (tmp_path / "control/web_shell").mkdir(parents=True)
    write_dist(tmp_path, files)
    assert find_heavy_first_load(CheckContext(tmp_path)) == []
    write_dist(tmp_path, files | {"/index.html.br": b"xx"})
    assert len(find_heavy_first_load(CheckContext(tmp_path))) == 1


def test_small_files_are_not_compressed(tools: NodeTools) -> None:
    """Where compression would make a file larger there is none."""
    assert set(compress({"/a": b"x", "/b": b"x" * 1000}, tools)) == {"/b.gz", "/b.br"}
