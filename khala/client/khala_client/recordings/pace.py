"""Pauses for recordings that have no times of their own. Pure; seconds.

Stated defaults, so that an import at real speed looks like the run did: text that a model wrote
takes as long as a model writes it, output of a tool as long as it takes to print it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["reading_pause_s", "writing_pause_s"]

# About 50 tokens of 4 characters a second.
_WRITTEN_CHARS_PER_S: Final = 200.0
_WRITING_MIN_S: Final = 0.2
_WRITING_MAX_S: Final = 5.0
_PRINTED_CHARS_PER_S: Final = 5_000.0
_PRINTING_MIN_S: Final = 0.1
_PRINTING_MAX_S: Final = 2.0


def writing_pause_s(text: str) -> float:
    """Return how long a model takes to write ``text``: 0.2 to 5 s."""
    return min(max(len(text) / _WRITTEN_CHARS_PER_S, _WRITING_MIN_S), _WRITING_MAX_S)


def reading_pause_s(text: str) -> float:
    """Return how long a tool takes to print ``text``: 0.1 to 2 s."""
    return min(max(len(text) / _PRINTED_CHARS_PER_S, _PRINTING_MIN_S), _PRINTING_MAX_S)
