"""Unit tests of khala.cli.main."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import click
import pytest

import khala.cli.main as main_module
from khala.cli.failures import CommandFailed
from khala.cli.main import COMMANDS, khala, main
from khala_service.config import ConfigRefused


def run(*arguments: str) -> int:
    """Return the exit status of one command in this process."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def command_that(error: BaseException | None = None, result: object = None) -> click.Command:
    """Return a command that raises or returns."""

    def act() -> object:
        if error is not None:
            raise error
        return result

    return click.Command("x", callback=act)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> object:
    """Put a command in the place of ``khala runs``."""

    def put(made: click.Command) -> None:
        monkeypatch.setattr(main_module.KhalaGroup, "get_command", lambda *_: made)

    return put


def test_every_command_has_help_and_the_list_names_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    """What the table promises can be imported, and explains itself."""
    assert run("--help") == 0
    listed = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in listed
        assert run(name, "--help") == 0
        assert len(capsys.readouterr().out) > 100


@pytest.mark.parametrize(
    ("made", "status", "said"),
    [
        (command_that(), 0, ""),
        (command_that(result=3), 3, ""),
        (command_that(CommandFailed("no way")), 1, "khala: No way.\n"),
        (command_that(ConfigRefused(("a: x", "b: y"))), 78, "khala: a: x.\nkhala: b: y.\n"),
        (command_that(click.UsageError("wrong")), 2, "Error: wrong\n"),
        (command_that(KeyboardInterrupt()), 1, "khala: Interrupted.\n"),
        (command_that(BaseExceptionGroup("g", [KeyboardInterrupt()])), 1, "khala: Interrupted.\n"),
        (command_that(ExceptionGroup("g", [CommandFailed("no way")])), 1, "khala: No way.\n"),
    ],
)
def test_every_end_of_a_command_has_its_status(
    made: click.Command,
    status: int,
    said: str,
    command: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """0, 1, 2 and 78, and a sentence on standard error."""
    assert callable(command)
    command(made)
    assert run("x") == status
    assert capsys.readouterr().err.endswith(said)


def test_our_own_mistakes_are_not_hidden(command: object) -> None:
    """A bug ends with its stack trace."""
    assert callable(command)
    command(command_that(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["x"])


def test_commands_of_chaos_say_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the package the command names it, and the list of commands still prints."""
    missing = EntryPoint("bench", "no_such_package.commands:bench", "khala.commands")
    for entries in ([], [missing]):
        monkeypatch.setattr(main_module, "entry_points", lambda entries=entries, **_: entries)
        assert run("bench") == 1
        assert "package chaos, which is not installed" in capsys.readouterr().err
        assert run("--help") == 0
        assert "bench" not in capsys.readouterr().out
        assert run("nonsense") == 2


def test_a_plug_in_is_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What an installed distribution registers is listed and runs."""
    plugin = EntryPoint("topics2", "khala.cli.topics:topics_command", "khala.commands")
    monkeypatch.setattr(main_module, "entry_points", lambda **_: [plugin])
    assert run("--help") == 0
    assert "topics2" in capsys.readouterr().out
    assert khala.get_command(click.Context(khala), "topics2") is not None


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    """Khala topics --json | head -1."""
    command = f"{sys.executable} -m khala.cli topics --json | head -c 10; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_client_command_starts_no_server_code() -> None:
    """`khala tail` does not import the services, their HTTP server or their database driver."""
    program = (
        "import sys; from khala.cli.main import khala; import click;"
        "khala.get_command(click.Context(khala), 'tail');"
        "print([name for name in ('control', 'runtime.app', 'quart', 'asyncpg', 'hypercorn', 'khala.adapters.embedded_postgres_directory') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
