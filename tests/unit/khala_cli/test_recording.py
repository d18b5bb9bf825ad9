"""Unit tests of khala.cli.recording."""

from __future__ import annotations

import pytest

from khala.cli.recording import exit_status_of, reason_of


@pytest.mark.parametrize(
    ("returncode", "status", "reason"),
    [
        (0, 0, ""),
        (3, 3, ""),
        (128, 128, ""),
        (-15, 143, "ended by SIGTERM"),
        (-9, 137, "ended by SIGKILL"),
        (255, 255, ""),
    ],
)
def test_a_command_ends_as_a_shell_would_say(returncode: int, status: int, reason: str) -> None:
    """The status as it is; 128 + n and its name for a signal."""
    assert exit_status_of(returncode) == status
    assert reason_of(status) == reason
