"""Unit tests of khala.cli.run_repair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from khala.cli.failures import CommandFailed
from khala.cli.run_repair import drift_command, rebuild_command

if TYPE_CHECKING:
    from pathlib import Path

    import click

COMMANDS = (drift_command, rebuild_command)


@pytest.mark.parametrize("command", COMMANDS)
def test_half_a_deployment_is_no_deployment(command: click.Command, tmp_path: Path) -> None:
    """A URL without its token, or a token without its URL, is a mistake of the command line."""
    token = tmp_path / "token"
    token.write_text("t" * 40)
    for half in (["--runtime-url", "http://runtime"], ["--admin-token-file", str(token)]):
        result = CliRunner().invoke(command, half)
        assert (result.exit_code, "together" in result.output) == (2, True)


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_runs_there(command: click.Command, tmp_path: Path) -> None:
    """The sentence names the directory and what else could be said."""
    result = CliRunner().invoke(command, ["--data-dir", str(tmp_path)])
    assert isinstance(result.exception, CommandFailed)
    assert str(tmp_path) in str(result.exception)
    assert "--runtime-url" in str(result.exception)


def test_an_empty_token_is_not_used(tmp_path: Path) -> None:
    """Before anybody is asked."""
    token = tmp_path / "token"
    token.write_text("")
    arguments = ["--runtime-url", "http://runtime", "--admin-token-file", str(token)]
    result = CliRunner().invoke(drift_command, arguments)
    assert isinstance(result.exception, CommandFailed)
    assert "admin token" in str(result.exception)
