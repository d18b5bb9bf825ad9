"""What happened in a world, one line each, and the hash of all of it.

A line is ``time who what fact=value ...`` in virtual seconds. The hash covers every line, whether lines are
kept or not: two runs of a seed are the same run iff their hashes are equal.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Trace"]

_DIGEST_BYTES = 16


class Trace:
    """The lines of one world; `note` is the port of gates.py."""

    def __init__(self, *, keeps_lines: bool = False) -> None:
        """Remember lines only if asked to: a world writes tens of thousands."""
        self._hash = blake2b(digest_size=_DIGEST_BYTES)
        self._lines: list[str] | None = [] if keeps_lines else None
        self.count = 0

    def note(self, who: str, what: str, /, **facts: object) -> None:
        """Add a line; see Note."""
        line = f"{trio.current_time():.6f} {who} {what} {facts}\n"
        self._hash.update(line.encode())
        self.count += 1
        if self._lines is not None:
            said = " ".join(f"{name}={value}" for name, value in facts.items())
            self._lines.append(f"{trio.current_time():10.4f}  {who:<14} {what:<22} {said}".rstrip())

    @property
    def digest(self) -> str:
        """Return the hash of all lines so far, in hexadecimal."""
        return self._hash.hexdigest()

    @property
    def lines(self) -> Iterable[str]:
        """Return the lines for people; none unless they were kept."""
        return tuple(self._lines or ())
