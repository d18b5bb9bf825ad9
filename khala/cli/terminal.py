"""The two places where a command prints: data on standard output, remarks on standard error.

Colour and symbols only where a person looks (a terminal, and NO_COLOR is not set); with ``--json``
nothing but JSON objects, one a line, reaches standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import click
from rich.console import Console
from rich.text import Text

from khala.cli.wording import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Terminal", "json_line", "json_option", "open_terminal"]

F = TypeVar("F", bound=Callable[..., object])
# What a table may use where the width is unknown (a file, a pipe): wide enough not to cut ids.
PLAIN_WIDTH: Final = 240


@attrs.frozen
class Terminal:
    """Where a command prints.

    Attributes:
        out: Standard output: what was asked for.
        err: Standard error: progress and remarks.
        is_json: Whether standard output is for a script.
    """

    out: Console
    err: Console
    is_json: bool

    @property
    def is_decorated(self) -> bool:
        """Whether a person looks at standard output: symbols and layout help there."""
        return not self.is_json and self.out.is_terminal

    def show(self, *lines: RenderableType) -> None:
        """Print for a person; nothing with ``--json``."""
        if not self.is_json:
            for line in lines:
                self.out.print(line)

    def data(self, value: Mapping[str, object]) -> None:
        """Print one JSON object for a script; nothing without ``--json``."""
        if self.is_json:
            self._write(json_line(value))

    def line(self, text: str) -> None:
        """Print a line as it is, unwrapped: for pipes and variables. Nothing with ``--json``."""
        if not self.is_json:
            self._write(text + "\n")

    def _write(self, text: str) -> None:
        # Not through rich: many thousand lines into a file have no use for layout. Flushed, because
        # whoever follows a stream through a pipe wants each line when it comes.
        self.out.file.write(text)
        self.out.file.flush()

    def remark(self, text: str, *, style: str = "dim") -> None:
        """Say something on standard error that is not part of the result."""
        self.err.print(Text(printable(text), style=style))


def open_terminal(*, is_json: bool) -> Terminal:
    """Return the terminal of this process."""
    return Terminal(_console(is_error=False), _console(is_error=True), is_json)


def json_line(value: Mapping[str, object]) -> str:
    """Return a JSON object with its newline; escapes everything but ASCII, so it is always safe to print."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True) + "\n"


def json_option(command: F) -> F:
    """Add ``--json``, passed as ``is_json``."""
    option = click.option("--json", "is_json", is_flag=True, help="Print JSON objects, one a line.")
    return option(command)


def _console(*, is_error: bool) -> Console:
    stream = sys.stderr if is_error else sys.stdout
    # Texts come from agents: no markup, no emoji codes, no colouring of what looks like a number.
    return Console(
        stderr=is_error,
        markup=False,
        emoji=False,
        highlight=False,
        width=None if stream.isatty() else PLAIN_WIDTH,
        soft_wrap=not stream.isatty(),
    )
