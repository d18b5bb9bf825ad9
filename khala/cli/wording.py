"""Numbers and times in the words of people. Pure."""

from __future__ import annotations

import unicodedata
from typing import Final

__all__ = ["bytes_text", "count_text", "duration_text", "printable", "relative_time"]

_MINUTE_S: Final = 60
_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB")
_KEPT_CONTROLS: Final = frozenset("\n\t")


def relative_time(then_s: float, now_s: float) -> str:
    """Return how long ago something was: ``just now``, ``5 min ago``, ``in 3 h``."""
    distance_s = now_s - then_s
    if abs(distance_s) < 2:
        return "just now"
    text = duration_text(abs(distance_s))
    return f"{text} ago" if distance_s > 0 else f"in {text}"


def duration_text(seconds: float) -> str:
    """Return a duration in its largest whole unit: ``40 ms``, ``3 s``, ``5 min``, ``2 h``, ``7 d``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit_s, name in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds:.0f} s"


def bytes_text(size: int) -> str:
    """Return a size in its largest unit: ``512 bytes``, ``1.5 MiB``."""
    value = float(size)
    for unit in _UNITS[:-1]:
        if value < 1024:
            return f"{value:.1f}".removesuffix(".0") + f" {unit}"
        value /= 1024
    return f"{value:.1f}".removesuffix(".0") + f" {_UNITS[-1]}"


def count_text(count: int, noun: str) -> str:
    """Return ``1 event``, ``12,000 events``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def printable(text: str) -> str:
    """Return the text with every character that could steer a terminal made visible.

    What agents print is untrusted: an escape sequence could rewrite lines that were printed before,
    and a right-to-left override could make a command look like another one.
    """
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n")
    return "".join(
        character
        if character in _KEPT_CONTROLS or unicodedata.category(character) not in {"Cc", "Cf", "Cs"}
        else f"\\x{ord(character):02x}"
        for character in text
    )
