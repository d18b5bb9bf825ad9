"""``khala load``: registered in the entry-point group ``khala.commands``; each command loads its module when it is asked for.

A load test drives a real system, judges what its clients got, and writes a report. It exits with 1 if a
promise was broken or a target was missed. To add one: a line in ``COMMANDS``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["load"]

# Name: where its click command is.
COMMANDS: Final[Mapping[str, str]] = {
    "cycles": "chaos.load.cycles_command:cycles_command",
    "hopping": "chaos.load.hopping_command:hopping_command",
    "slow-consumer": "chaos.load.slow_consumer_command:slow_consumer_command",
    "topics": "chaos.load.topics_command:topics_command",
}


class LoadGroup(click.Group):
    """Subcommands that are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a subcommand, None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LoadGroup)
def load() -> None:
    """Load a real system with many or unkind clients, and judge what they got."""
