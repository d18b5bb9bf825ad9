"""The log of ``khala up``: a file of JSON lines that never grows beyond two generations.

A terminal in which somebody follows what the system does is no place for a line per request.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BoundedLog"]

# Two generations of it hold days of a development system.
LOG_MAX_BYTES: Final = 16 * 1024 * 1024


class BoundedLog(io.TextIOBase, TextIO):
    """A text stream into ``path``; at ``max_bytes`` the file becomes ``<path>.1`` and begins anew.

    Invariant: the two files together hold at most ``2 * max_bytes`` and one line.
    """

    def __init__(self, path: Path, *, max_bytes: int = LOG_MAX_BYTES) -> None:
        super().__init__()
        self._path = path
        self._max_bytes = max_bytes
        self._file = path.open("a", encoding="utf-8")

    def write(self, text: str) -> int:
        """Append; each line is flushed, so that the last words of a killed process are there."""
        if self._file.tell() >= self._max_bytes:
            self._file.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._file = self._path.open("a", encoding="utf-8")
        written = self._file.write(text)
        self._file.flush()
        return written

    def flush(self) -> None:
        """Every write is flushed already."""

    def isatty(self) -> bool:
        """A file is never a terminal."""
        return False

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
