"""Compiles the C programs of the benchmarks on the spot."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path


class CompilerMissingError(Exception):
    """No C compiler here; the benchmark is skipped with this reason."""


def compile_native(name: str, folder: Path) -> Path:
    """Put ``chaos/load/native/<name>.c``, with the headers beside it, into ``folder``, compiled; return the program.

    A process compiles each program once.

    Raises:
        CompilerMissingError: Neither ``cc`` nor ``gcc`` is on PATH.
    """
    compiled = _compile(name)
    program = folder / name
    # What runs from there cannot be written to.
    program.unlink(missing_ok=True)
    program.write_bytes(compiled)
    program.chmod(0o700)
    return program


@functools.cache
def _compile(name: str) -> bytes:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        msg = "no C compiler (cc or gcc) on PATH"
        raise CompilerMissingError(msg)
    with tempfile.TemporaryDirectory(prefix="khala-native-") as made:
        folder = Path(made)
        for entry in resources.files("chaos.load.native").iterdir():
            if entry.name == f"{name}.c" or entry.name.endswith(".h"):
                (folder / entry.name).write_text(entry.read_text(encoding="utf-8"))
        # Not every program uses everything that a header has.
        options = ["-O2", "-Wall", "-Wextra", "-Wno-unused-function"]
        subprocess.run(
            [compiler, *options, "-o", str(folder / name), str(folder / f"{name}.c")], check=True, timeout=60
        )
        return (folder / name).read_bytes()
