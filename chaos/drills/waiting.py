"""Waiting for something that another process does: for a condition, with a deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DrillFailed", "FaultMissing", "pause", "wait_until"]

_POLL_S: Final = 0.02


class DrillFailed(Exception):
    """The drill cannot go on; the message says why."""


class FaultMissing(DrillFailed):
    """The drill's fault did not happen, so there is nothing to judge."""


def wait_until(
    is_met: Callable[[], bool], *, timeout_s: float, what: str, error: type[DrillFailed] = DrillFailed
) -> float:
    """Return the seconds after which the condition held.

    Raises:
        DrillFailed: It did not within ``timeout_s``; the message is ``what``, the type ``error``.
    """
    began = time.monotonic()
    while not is_met():
        if time.monotonic() - began > timeout_s:
            raise error(f"not within {timeout_s:g} s: {what}")
        pause(_POLL_S)
    return time.monotonic() - began


def pause(seconds: float) -> None:
    """Let real time pass: a drill is a process of its own that watches others, outside of any loop."""
    time.sleep(seconds)  # noqa: TID251
