"""Payloads whose every byte follows from their seq, so that a receiver can tell each lost or mixed byte.

``%016x`` of the seq, then at each place i from 16 on the letter ``'a' + (seq + i) % 26``. The same rule
stands in ``native/stream.h`` (which verifies) and in the statement of ``committed_records.py`` (which
writes). Such a payload is bytes of no registered message; nodes never look into payloads.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DIGITS", "payload_of_seq"]

DIGITS: Final = 16
_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyz"


def payload_of_seq(seq: int, size_bytes: int) -> bytes:
    """Return the payload of a seq.

    Args:
        seq: From 1 on.
        size_bytes: At least ``DIGITS``.
    """
    assert size_bytes >= DIGITS, "the digits of the seq come first"
    start = (seq + DIGITS) % len(_LETTERS)
    letters = _LETTERS * (2 + size_bytes // len(_LETTERS))
    return b"%016x" % seq + letters[start : start + size_bytes - DIGITS]
