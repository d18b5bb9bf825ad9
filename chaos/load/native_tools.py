"""Compiles the C programs of the benchmarks on the spot."""

from __future__ import annotations

import shutil
import subprocess
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class CompilerMissingError(Exception):
    """No C compiler here; the benchmark is skipped with this reason."""


def compile_native(name: str, folder: Path) -> Path:
    """Compile ``chaos/load/native/<name>.c``, with the headers beside it, into ``folder``; return the program.

    Raises:
        CompilerMissingError: Neither ``cc`` nor ``gcc`` is on PATH.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        msg = "no C compiler (cc or gcc) on PATH"
        raise CompilerMissingError(msg)
    for entry in resources.files("chaos.load.native").iterdir():
        if entry.name == f"{name}.c" or entry.name.endswith(".h"):
            (folder / entry.name).write_text(entry.read_text(encoding="utf-8"))
    program = folder / name
    # Not every program uses everything that a header has.
    options = ["-O2", "-Wall", "-Wextra", "-Wno-unused-function"]
    subprocess.run(
        [compiler, *options, "-o", str(program), str(folder / f"{name}.c")], check=True, timeout=60
    )
    return program
