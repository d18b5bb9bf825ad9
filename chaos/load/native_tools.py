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
    """Compile ``chaos/load/native/<name>.c`` into ``folder``; return the program.

    Raises:
        CompilerMissingError: Neither ``cc`` nor ``gcc`` is on PATH.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        msg = "no C compiler (cc or gcc) on PATH"
        raise CompilerMissingError(msg)
    source = folder / f"{name}.c"
    source.write_text(resources.files("chaos.load.native").joinpath(f"{name}.c").read_text(encoding="utf-8"))
    program = folder / name
    subprocess.run([compiler, "-O2", "-o", str(program), str(source)], check=True, timeout=60)
    return program
