"""Durations as people write them on a command line: ``90``, ``30m``, ``1h``, ``7d``."""

from __future__ import annotations

import re
from typing import Final

import click

__all__ = ["duration", "parse_duration"]

_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd]?)", re.ASCII)
_UNITS_S: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def parse_duration(text: str) -> int:
    """Return a duration in seconds; a number alone is seconds.

    Raises:
        ValueError: It is no duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("a number, or a number with s, m, h or d")
    return int(match[1]) * _UNITS_S[match[2]]


def duration(text: str | int) -> int:
    """Return the seconds of an option's value; the type of options that take a duration.

    Raises:
        click.BadParameter: It is no duration.
    """
    try:
        return parse_duration(str(text))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not {error}") from None
