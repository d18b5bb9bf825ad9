"""The shim inside PostgreSQL: disk full, slow disk, clock skew, without root (native/fault_shim.c)."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import sys
from importlib import resources
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["FaultShim", "ShimMissingError"]

_COMPILE_TIMEOUT_S: Final = 60.0
# What native/fault_shim.c calls ``struct control``.
_WORDS: Final = (
    "is_disk_full",
    "sync_delay_us",
    "clock_offset_us",
    "writes_refused",
    "syncs_delayed",
    "clock_reads",
)
_WORD: Final = struct.Struct("=q")


class ShimMissingError(Exception):
    """Nothing can be preloaded here; the message says why."""


@attrs.frozen(eq=False)
class FaultShim:
    """What all processes of PostgreSQL see that were started with its environment.

    Attributes:
        environment: Variables for whoever starts PostgreSQL.
    """

    environment: Mapping[str, str]
    _control: mmap.mmap = attrs.field(repr=False)

    @classmethod
    def make(cls, folder: Path) -> FaultShim:
        """Compile it into ``folder``.

        Raises:
            ShimMissingError: There is no C compiler, or this is not Linux.
        """
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None or sys.platform != "linux":
            raise ShimMissingError("disk and clock faults need Linux and a C compiler (cc or gcc) on PATH")
        source, library, control = (
            folder / name for name in ("fault_shim.c", "fault_shim.so", "fault_shim.control")
        )
        native = resources.files("chaos.faults.native") / "fault_shim.c"
        source.write_text(native.read_text(encoding="utf-8"), encoding="utf-8")
        subprocess.run(
            [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"],
            check=True,
            timeout=_COMPILE_TIMEOUT_S,
        )
        control.write_bytes(bytes(_WORD.size * len(_WORDS)))
        # PostgreSQL may run as somebody else.
        control.chmod(0o666)
        library.chmod(0o755)
        with control.open("r+b") as file:
            mapped = mmap.mmap(file.fileno(), 0)
        return cls({"LD_PRELOAD": str(library), "FAULT_SHIM_CONTROL": str(control)}, mapped)

    def set(self, word: str, value: int) -> None:
        """Let a fault begin, or end with 0."""
        _WORD.pack_into(self._control, _WORDS.index(word) * _WORD.size, value)

    def get(self, word: str) -> int:
        """Return a counter, or what was set."""
        return int(_WORD.unpack_from(self._control, _WORDS.index(word) * _WORD.size)[0])
