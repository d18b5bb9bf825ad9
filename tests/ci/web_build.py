"""Builds the live page: control/web_shell/src and the TypeScript client into control/web_shell/dist.

    python -m tests.ci.web_build             type-check, build, write dist
    python -m tests.ci.web_build --check     exit 1 if dist is not what the sources give

The built files are committed, so that nobody who runs Khala needs Node. A file below assets/ is named after its
bytes; manifest.json names every file with its hash, the build and the ranges it speaks. Plain files are compared
byte by byte; a compressed one must hold its plain file, because compressors differ and what they hold does not.
"""

import argparse
import gzip
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from control.app import PROTOCOL_RANGE, SCHEMA_RANGE
from control.core.static_files import ASSETS, HASH_CHARS
from tests.ci.checks import CheckContext, Problems
from tests.ci.node_tools import NodeTools, NodeToolsMissing, ToolFailed, open_node_tools
from tests.ci.tree import ROOT

SHELL: Final = "control/web_shell"
SOURCES: Final = f"{SHELL}/src"
DIST: Final = f"{SHELL}/dist"
CLIENT_ENTRY: Final = "khala/client/typescript/src/index.ts"
# What a browser loads before it shows anything, as it travels. Larger: somebody on a phone waits for a second.
FIRST_LOAD_MAX_BYTES: Final = 64 * 1024
_BUNDLING: Final = (
    "--bundle", "--format=esm", "--target=es2022", "--minify", "--charset=utf8", "--legal-comments=none",
    "--log-level=warning",
)  # fmt: skip
# Reads a file a line, writes its compressed form beside it: Python has no Brotli of its own.
_BROTLI: Final = """
const fs = require("node:fs"), z = require("node:zlib");
const p = { [z.constants.BROTLI_PARAM_QUALITY]: 11 };
for (const f of process.argv.slice(1)) {
  if (f.endsWith(".br")) fs.writeFileSync(f.slice(0, -3) + ".plain", z.brotliDecompressSync(fs.readFileSync(f)));
  else fs.writeFileSync(f + ".br", z.brotliCompressSync(fs.readFileSync(f), { params: p }));
}
"""


def build_files(root: Path, tools: NodeTools) -> dict[str, bytes]:
    """Return the plain files of dist by path of their URL.

    Raises:
        ToolFailed: A source does not compile.
    """
    with tempfile.TemporaryDirectory(prefix="khala-web-") as folder:
        out = Path(folder)

        def bundle(source: str) -> bytes:
            target = out / "out"
            tools.run("esbuild", source, *_BUNDLING, f"--outfile={target}", cwd=root)
            return target.read_bytes()

        assets = {
            "app": _hashed("app", "js", bundle(f"{SOURCES}/main.ts")),
            "style": _hashed("style", "css", bundle(f"{SOURCES}/style.css")),
            "icon": _hashed("icon", "svg", (root / SOURCES / "icon.svg").read_bytes()),
        }
        files = dict(assets.values())
        files["/khala-client.js"] = bundle(CLIENT_ENTRY)
        files["/sw.js"] = bundle(f"{SOURCES}/sw.ts")
    seal = hashlib.sha256(
        "".join(f"{path} {_sha256(body)}\n" for path, body in sorted(files.items())).encode()
    )
    build_id = f"web-{seal.hexdigest()[:12]}"
    page = (root / SOURCES / "index.html").read_text(encoding="utf-8")
    for name, (path, _) in assets.items():
        page = page.replace(f"%{name}%", path)
    files["/index.html"] = page.replace("%build%", build_id).encode()
    manifest = {
        "client_build_id": build_id,
        "protocol": list(PROTOCOL_RANGE),
        "schema": list(SCHEMA_RANGE),
        "files": {
            path: {"bytes": len(body), "sha256": _sha256(body)} for path, body in sorted(files.items())
        },
    }
    files["/manifest.json"] = (json.dumps(manifest, indent=1) + "\n").encode()
    return files


def _hashed(name: str, ending: str, body: bytes) -> tuple[str, bytes]:
    return f"{ASSETS}{name}.{_sha256(body)[:HASH_CHARS]}.{ending}", body


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def compress(files: Mapping[str, bytes], tools: NodeTools) -> dict[str, bytes]:
    """Return each file that gains by it also as gzip and Brotli, under its path with .gz or .br."""
    found: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="khala-web-") as folder:
        names = {path: Path(folder) / f"{number}" for number, path in enumerate(files)}
        for path, name in names.items():
            name.write_bytes(files[path])
        tools.run_node("-e", _BROTLI, *map(str, names.values()), cwd=Path(folder))
        for path, name in names.items():
            zipped = gzip.compress(files[path], 9, mtime=0)
            if len(zipped) < len(files[path]):
                found[f"{path}.gz"] = zipped
                found[f"{path}.br"] = Path(f"{name}.br").read_bytes()
    return found


def expand(files: Mapping[str, bytes], tools: NodeTools) -> dict[str, bytes]:
    """Return what the compressed files hold, by their own path; one that is broken holds nothing."""
    held = {path: _gunzip(body) for path, body in files.items() if path.endswith(".gz")}
    brotli = [path for path in files if path.endswith(".br")]
    with tempfile.TemporaryDirectory(prefix="khala-web-") as folder:
        for number, path in enumerate(brotli):
            name = Path(folder) / f"{number}"
            Path(f"{name}.br").write_bytes(files[path])
            try:
                tools.run_node("-e", _BROTLI, f"{name}.br", cwd=Path(folder))
            except ToolFailed:
                held[path] = b""
            else:
                held[path] = Path(f"{name}.plain").read_bytes()
    return held


def _gunzip(body: bytes) -> bytes:
    try:
        return gzip.decompress(body)
    except (OSError, EOFError):
        return b""


def read_dist(root: Path) -> dict[str, bytes]:
    """Return the committed files by path of their URL."""
    dist = root / DIST
    return {
        f"/{file.relative_to(dist).as_posix()}": file.read_bytes()
        for file in dist.rglob("*")
        if file.is_file()
    }


def write_dist(root: Path, files: Mapping[str, bytes]) -> None:
    """Replace dist: a control that starts meanwhile finds the old build or the new one."""
    dist = root / DIST
    with tempfile.TemporaryDirectory(dir=dist.parent, prefix=".dist-") as folder:
        made = Path(folder) / "made"
        for path, body in files.items():
            file = made / path.removeprefix("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)
        if dist.exists():
            dist.rename(Path(folder) / "old")
        made.rename(dist)


def find_type_errors(context: CheckContext) -> Problems:
    """`tsc --strict` on the page and on the client that it uses."""
    return _with_tools(context, _type_errors)


def _type_errors(root: Path, tools: NodeTools) -> Problems:
    try:
        tools.run("tsc", "--project", f"{SHELL}/tsconfig.json", cwd=root)
    except ToolFailed as error:
        return str(error).splitlines()
    return []


def find_build_differences(context: CheckContext) -> Problems:
    """The committed page is what its sources give, byte by byte."""
    return _with_tools(context, _differences)


def _differences(root: Path, tools: NodeTools) -> Problems:
    try:
        built = build_files(root, tools)
    except ToolFailed as error:
        return str(error).splitlines()
    return judge_dist(built, read_dist(root), tools)


def judge_dist(built: Mapping[str, bytes], committed: Mapping[str, bytes], tools: NodeTools) -> Problems:
    """Return where the committed files are not those of a build."""
    again = "run python -m tests.ci.web_build"
    expected = dict(built)
    for path in committed:
        plain = path.removesuffix(".gz").removesuffix(".br")
        if plain != path and plain in built:
            expected[path] = built[plain]
    held = dict(committed) | expand(committed, tools)
    problems = [f"{DIST}{path}:1: missing; {again}" for path in sorted(expected.keys() - held.keys())]
    problems += [f"{DIST}{path}:1: of no source; {again}" for path in sorted(held.keys() - expected.keys())]
    problems += [
        f"{DIST}{path}:1: not what the sources give; {again}"
        for path in sorted(expected.keys() & held.keys())
        if expected[path] != held[path]
    ]
    return problems


def find_heavy_first_load(context: CheckContext) -> Problems:
    """What a browser loads before the first sight stays small."""
    files = read_dist(context.root)
    first = [
        path
        for path in files
        if path == "/index.html.br" or (path.startswith(ASSETS) and path.endswith(".br"))
    ]
    size = sum(len(files[path]) for path in first)
    if size > FIRST_LOAD_MAX_BYTES or not first:
        return [f"{DIST}:1: {size} bytes before the first sight; at most {FIRST_LOAD_MAX_BYTES}"]
    return []


def _with_tools(context: CheckContext, judge: Callable[[Path, NodeTools], Problems]) -> Problems:
    try:
        return judge(context.root, open_node_tools(context.root))
    except NodeToolsMissing as missing:
        return [str(missing)]


def main(arguments: list[str] | None = None) -> int:
    """Build, or check; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.ci.web_build", description="Builds the live page.")
    parser.add_argument("--check", action="store_true", help="compare with what is committed, write nothing")
    options = parser.parse_args(arguments)
    context = CheckContext(ROOT)
    problems = find_type_errors(context)
    if options.check:
        problems += find_build_differences(context) + find_heavy_first_load(context)
    elif not problems:
        tools = open_node_tools(ROOT)
        files = build_files(ROOT, tools)
        write_dist(ROOT, files | compress(files, tools))
        print(f"{DIST}: {len(files)} files, {json.loads(files['/manifest.json'])['client_build_id']}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
