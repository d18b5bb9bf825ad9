"""Unit tests of khala.cli.signals."""

from __future__ import annotations

import signal
import subprocess
import sys

from khala.cli.signals import ENDING_SIGNALS, taken_signals


def test_what_ends_a_command() -> None:
    """Ctrl-C, the request to end, the closing of the terminal."""
    assert ENDING_SIGNALS == (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def test_what_the_starter_ignores_is_not_taken() -> None:
    """Under nohup SIGHUP ends nothing."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert taken_signals() == (signal.SIGINT, signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_same_in_a_process_that_inherited_it() -> None:
    """An ignored signal stays ignored over exec; that is how nohup works."""
    program = (
        "from khala.cli.signals import taken_signals; print(*(number.name for number in taken_signals()))"
    )
    command = f"trap '' HUP; exec {sys.executable} -c '{program}'"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "SIGINT SIGTERM\n"
