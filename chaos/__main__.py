"""``python -m chaos``: what ``khala`` has of this package, by itself.

``python -m chaos list`` is ``khala drill list``, ``python -m chaos run NAME`` is ``khala drill run NAME``, and
``bench``, ``load`` and ``sim`` are themselves.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from khala.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["translated"]

_GROUPS: Final = ("bench", "drill", "load", "sim")


def translated(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of ``khala`` that do the same: whatever is no group is of the drills."""
    return list(arguments) if arguments and arguments[0] in _GROUPS else ["drill", *arguments]


if __name__ == "__main__":
    main(translated(sys.argv[1:]))
