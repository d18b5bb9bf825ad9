"""Builds of clients and their order: which is the older one.

A build id is a version (``0.2.0``, ``0.2.0rc1``, ``0.2.0+abc``), or a name before it (``my-app/0.2.0``). Versions
compare by their numbers, missing ones being 0; what follows the numbers makes a version older than the same numbers
alone, unless it begins with ``+``. Pure.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["is_older_build", "parse_version"]

_VERSION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9}){0,3})(?!\.?[0-9])[A-Za-z0-9._+-]*", re.ASCII)
_PARTS_MAX: Final = 4


def parse_version(build_id: str) -> tuple[int, ...] | None:
    """Return what versions compare by; None if the build id ends in none."""
    match = _VERSION.fullmatch(build_id.rpartition("/")[2])
    if match is None:
        return None
    numbers = [int(part) for part in match[1].split(".")]
    rest = build_id.rpartition("/")[2][match.end(1) :]
    is_final = not rest or rest.startswith("+")
    return (*numbers, *[0] * (_PARTS_MAX - len(numbers)), int(is_final))


def is_older_build(build_id: str, minimum: str) -> bool:
    """Return whether a build is older than the oldest that is accepted.

    Args:
        build_id: As the client names it. What is no version is older than every minimum but 0.
        minimum: A version; 0 accepts everything.
    """
    least = parse_version(minimum)
    assert least is not None, minimum
    if not any(least[:-1]):
        return False
    version = parse_version(build_id)
    return version is None or version < least
