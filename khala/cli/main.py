"""Entry point of ``khala``: finds the subcommand, loads only its module, reports its failure.

Subcommands of other distributions are found in the entry-point group ``khala.commands``; those of
``chaos`` are known by name, so that without it the command says what is missing.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, NoReturn

import click
from rich.console import Console

from khala.cli.failures import EXIT_FAILED, CommandFailed, describe_failure, leaves_of
from khala.cli.wording import printable
from khala_client.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.metadata import EntryPoint

__all__ = ["khala", "main"]

COMMANDS: Final[Mapping[str, str]] = {
    "up": "khala.cli.up:up_command",
    "status": "khala.cli.status:status_command",
    "down": "khala.cli.status:down_command",
    "reset": "khala.cli.reset:reset_command",
    "login": "khala.cli.login:login_command",
    "logout": "khala.cli.login:logout_command",
    "sessions": "khala.cli.sessions:sessions_command",
    "import": "khala.cli.importing:import_command",
    "record": "khala.cli.recording:record_command",
    "tail": "khala.cli.tail:tail_command",
    "publish": "khala.cli.publish:publish_command",
    "runs": "khala.cli.runs:runs_command",
    "topics": "khala.cli.topics:topics_command",
    "token": "khala.cli.keys:token_command",
    "keys": "khala.cli.keys:keys_command",
    "control": "khala.cli.control_service:control_command",
    "runtime": "khala.cli.runtime_service:runtime_command",
    "node": "khala.cli.node_service:node_command",
    "migrate": "khala.cli.services:migrate_command",
    "verify": "khala.cli.verify:verify_command",
    "explain": "khala.cli.explain:explain_command",
    "gate": "khala.cli.gate:gate_command",
    "doctor": "khala.cli.doctor:doctor_command",
    "check-config": "khala.cli.check_config:check_config_command",
}
PLUGIN_GROUP: Final = "khala.commands"
CHAOS_COMMANDS: Final = ("bench", "drill", "load", "sim")


class KhalaGroup(click.Group):
    """Subcommands that are imported when they are asked for: ``khala tail`` starts no server code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which a newcomer needs them."""
        return [*COMMANDS, *sorted(e.name for e in entry_points(group=PLUGIN_GROUP) if _is_there(e))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a subcommand, None if there is none of this name."""
        if cmd_name in COMMANDS:
            module, _, attribute = COMMANDS[cmd_name].partition(":")
            command = getattr(import_module(module), attribute)
            assert isinstance(command, click.Command)
            return command
        return _load_plugin(cmd_name)


@click.group(cls=KhalaGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="khala")
def khala() -> None:
    """Deliver the live event streams of agent runs: in order, replayable, nothing lost.

    Start with `khala up`; it says what to type next.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its status."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        # Not khala.main(): it has an opinion of its own about closed pipes and Ctrl-C.
        given = sys.argv[1:] if arguments is None else list(arguments)
        with khala.make_context("khala", given) as context:
            status = khala.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return _say_interrupted()
    except (Exception, BaseExceptionGroup, KeyboardInterrupt) as error:
        leaves = leaves_of(error)
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
            return _say_interrupted()
        if all(isinstance(leaf, BrokenPipeError) for leaf in leaves):
            # The reader of our output has seen enough. The interpreter's own flush must not fail too.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        failure = describe_failure(error)
        if failure is None:
            raise
        for sentence in failure.sentences:
            _say(sentence)
        return failure.exit_status
    return status if isinstance(status, int) else 0


def _say_interrupted() -> int:
    _say("Interrupted.")
    return EXIT_FAILED


def _say(sentence: str) -> None:
    console = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
    console.print(f"khala: {printable(sentence)}", style="red")


def _is_there(entry: EntryPoint) -> bool:
    """Return whether a plug-in's module can be found; its package may have been left out."""
    try:
        return find_spec(entry.module) is not None
    except ModuleNotFoundError:
        return False


def _load_plugin(name: str) -> click.Command | None:
    for entry in entry_points(group=PLUGIN_GROUP, name=name):
        if _is_there(entry):
            command = entry.load()
            assert isinstance(command, click.Command)
            return command
    if name in CHAOS_COMMANDS:
        raise CommandFailed(f"`khala {name}` comes with the package chaos, which is not installed here")
    return None
