"""Which signals a command takes: those that whoever started it has not told it to ignore.

``nohup`` ignores SIGHUP, and a shell script ignores SIGINT for what it starts in the background. Taking
such a signal would end (or pass on the end to) what was meant to go on.
"""

from __future__ import annotations

import signal

__all__ = ["ENDING_SIGNALS", "taken_signals"]

# Ctrl-C, the usual request to end, and the closing of the terminal (which Windows does not have).
ENDING_SIGNALS = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)


def taken_signals() -> tuple[signal.Signals, ...]:
    """Return those of ENDING_SIGNALS that are not ignored now."""
    return tuple(number for number in ENDING_SIGNALS if signal.getsignal(number) != signal.SIG_IGN)
