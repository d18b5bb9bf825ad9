"""Files of one JSON object a line that one process appends to while another one reads.

A line is written with one call and flushed, so what a reader finds is whole lines and at most one
unfinished one, which it leaves for its next look.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

__all__ = ["JsonLineReader", "JsonLineWriter"]


class JsonLineWriter:
    """Appends lines; every line is in the kernel when ``write`` returns."""

    def __init__(self, path: Path) -> None:
        """Append to ``path``, which is made if need be."""
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def write(self, record: Mapping[str, object]) -> None:
        """Append one object."""
        self.write_text(json.dumps(record, separators=(",", ":")))

    def write_text(self, line: str) -> None:
        """Append one object that is text already, without its line break."""
        self._file.write(line.encode() + b"\n")


class JsonLineReader:
    """Reads what has been appended since the last look; a file that does not exist yet is empty."""

    def __init__(self, path: Path) -> None:
        """Begin at the beginning of ``path``."""
        self._path = path
        self._offset = 0

    def read_new(self) -> list[dict[str, Any]]:
        """Return the objects of the lines that were completed since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
