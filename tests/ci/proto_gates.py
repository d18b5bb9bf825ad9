"""The gates of the contracts: lint, breaking, generate, package. Each is runnable alone.

    python -m tests.ci proto [--only lint|breaking|generate|package]

    lint      form of the sources, and PACKAGE_MAP.md against them
    breaking  sources against the accepted contract, proto/image.binpb
    generate  two generations are identical to each other and to the repository
    package   every generated module imports in a fresh interpreter

    python -m tests.ci.proto_gates --accept
        writes proto/image.binpb anew, and refuses while the sources break the one that is there

Where ``buf`` is on PATH, its lint and breaking run too and must agree. Nothing is downloaded.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tests.ci.proto_breaking import find_breaks
from tests.ci.proto_lint import find_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

PROTO_DIR: Final = Path(__file__).resolve().parents[2] / "proto"
_TIMEOUT_S: Final = 60


@cache
def load_generator() -> ModuleType:
    """Return proto/generate.py, which lives outside every package, as a module."""
    spec = util.spec_from_file_location("proto_generate", PROTO_DIR / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_image(proto_dir: Path = PROTO_DIR) -> FileDescriptorSet:
    """Return the accepted contract."""
    return FileDescriptorSet.FromString((proto_dir / "image.binpb").read_bytes())


def compile_sources(proto_dir: Path) -> FileDescriptorSet:
    """Return what the sources say now. Raises GenerationFailed if they do not compile."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "image.binpb"
        load_generator().compile_image(proto_dir, output=output)
        return FileDescriptorSet.FromString(output.read_bytes())


def check_lint(proto_dir: Path = PROTO_DIR) -> list[str]:
    """Return breaches of form."""
    package_map = (proto_dir / "PACKAGE_MAP.md").read_text(encoding="utf-8")
    return find_faults(compile_sources(proto_dir), package_map) + _run_buf(proto_dir, "lint")


def check_breaking(proto_dir: Path = PROTO_DIR) -> list[str]:
    """Return what the sources break of the accepted contract."""
    problems = find_breaks(read_image(proto_dir), compile_sources(proto_dir))
    return problems + _run_buf(proto_dir, "breaking", "--against", "image.binpb")


def check_generate(proto_dir: Path = PROTO_DIR) -> list[str]:
    """Return differences between two generations, and between them and the repository."""
    generator = load_generator()
    with tempfile.TemporaryDirectory() as scratch:
        trees: list[dict[str, bytes]] = []
        for name in ("first", "second"):
            generator.generate(proto_dir, output_dir=Path(scratch) / name)
            trees.append(generator.read_tree(Path(scratch) / name))
    committed = generator.read_tree(proto_dir / "khala_contracts" / "gen")
    unstable = [f"generation is not deterministic: {line}" for line in generator.diff_trees(*trees)]
    stale = [f"khala_contracts/gen/{line}" for line in generator.diff_trees(trees[0], committed)]
    return unstable + stale


def check_package(proto_dir: Path = PROTO_DIR) -> list[str]:
    """Return generated modules that do not import in a fresh interpreter."""
    modules = sorted(
        ".".join(path.relative_to(proto_dir).with_suffix("").parts)
        for path in (proto_dir / "khala_contracts" / "gen").rglob("*_pb2.py")
    )
    if not modules:
        return ["khala_contracts/gen has no modules"]
    lines = [f"import sys; sys.path.insert(0, {str(proto_dir)!r})", *(f"import {name}" for name in modules)]
    done = subprocess.run(
        [sys.executable, "-I", "-c", "\n".join(lines)],
        capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    return [] if done.returncode == 0 else [f"generated package does not import: {done.stderr.strip()}"]


def _run_buf(proto_dir: Path, *arguments: str) -> list[str]:
    buf = shutil.which("buf")
    if buf is None:
        sys.stdout.write(f"buf is not installed: buf {arguments[0]} did not run\n")
        return []
    done = subprocess.run(
        [buf, *arguments], cwd=proto_dir, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    return (
        [] if done.returncode == 0 else [f"buf {arguments[0]}: {line}" for line in done.stdout.splitlines()]
    )


GATES: Final[Mapping[str, Callable[[Path], list[str]]]] = {
    "lint": check_lint,
    "breaking": check_breaking,
    "generate": check_generate,
    "package": check_package,
}


def run(only: str | None = None, *, proto_dir: Path = PROTO_DIR) -> list[str]:
    """Return the problems of one gate, or of all.

    Args:
        only: One of ``GATES``; None runs all.
        proto_dir: Where the sources are; tests pass a copy with a seeded fault.
    """
    problems: list[str] = []
    for name, gate in GATES.items():
        if only not in (None, name):
            continue
        try:
            problems += gate(proto_dir)
        except load_generator().GenerationFailed as error:
            problems.append(f"{name}: {error}")
    return problems


def accept(proto_dir: Path = PROTO_DIR) -> list[str]:
    """Make the sources the accepted contract, unless they break the one before; return the breaks."""
    image = proto_dir / "image.binpb"
    problems = find_breaks(read_image(proto_dir), compile_sources(proto_dir)) if image.is_file() else []
    if not problems:
        load_generator().compile_image(proto_dir, output=image)
    return problems


if __name__ == "__main__":
    found = accept() if sys.argv[1:] == ["--accept"] else run()
    sys.stderr.writelines(f"{line}\n" for line in found)
    sys.exit(1 if found else 0)
