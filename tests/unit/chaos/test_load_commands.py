"""``khala load``: every command of its table is there, and none is loaded before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from chaos.load.load_commands import COMMANDS, load


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_there_under_its_name(name: str) -> None:
    """The table leads to a command of that name that explains itself."""
    command = load.get_command(click.Context(load), name)
    assert command is not None
    assert (command.name, bool(command.help)) == (name, True)


def test_an_unknown_command_is_none() -> None:
    """Click says so then."""
    assert load.get_command(click.Context(load), "no-such-thing") is None


def test_listing_them_loads_none() -> None:
    """``khala load`` and its help import no system and no client."""
    code = (
        "import sys, chaos.load.load_commands as c; c.load.list_commands(None);"
        "print(sorted(m for m in sys.modules if m.startswith('chaos.load.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['chaos.load.load_commands']"
