"""What ``khala up`` says to the person who started it: a line per step, then what to type next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from khala.cli.locations import default_data_dir, default_login_profile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from khala.cli.terminal import Terminal
    from khala.cli.up_record import UpRecord

__all__ = ["UpReport", "program_name"]


class UpReport:
    """Prints to the terminal in which ``khala up`` runs."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def step(self, text: str) -> None:
        """Say what is being done."""
        self._terminal.show(Text.assemble(("· ", "cyan"), (f"{text} ...", "dim")))

    def ready(self, data_dir: Path, record: UpRecord) -> None:
        """Say where everything is, and what to type next."""
        urls = Table.grid(padding=(0, 2))
        for name, url in (
            ("everything", record.origin),
            ("control", record.control_url),
            ("runtime", record.runtime_url),
            ("sync", record.sync_url),
            ("admin", record.admin_url),
        ):
            urls.add_row(Text(f"  {name}", style="dim"), url)
        urls.add_row(Text("  data", style="dim"), str(data_dir))
        khala = program_name()
        lines = [
            f"{khala} record --name hello -- {example_command()}",
            f"{khala} runs",
            f"{khala} tail RUN --from beginning --verify",
        ]
        # Other commands would find another one: of another directory, or of `khala login`.
        if data_dir != default_data_dir().absolute() or default_login_profile().exists():
            lines.insert(0, f"export KHALA_PROFILE={shlex.quote(record.profile)}")
        self._terminal.show(
            Text.assemble("\n", ("● ", "bold green"), ("Khala is up.", "bold")),
            urls,
            Text.assemble("\n", ("Type next, in a second terminal:", "bold")),
            *(Text(f"  {line}", style="cyan") for line in lines),
            Text("\nCtrl-C stops everything; what was acknowledged stays.", style="dim"),
        )

    def lines(self, lines: Iterable[RenderableType]) -> None:
        """Print what happens while it runs."""
        self._terminal.show(*lines)

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._terminal.show(Text.assemble("\n", ("· ", "cyan"), ("Stopping ...", "dim")))

    def stopped(self) -> None:
        """Say that nothing runs any more."""
        self._terminal.show(
            Text.assemble(("○ ", "bold"), ("Khala is down. ", "bold"), ("Nothing was lost.", "dim"))
        )


def program_name() -> str:
    """Return what a person types to run this program: ``khala``, or the path if it is not on PATH."""
    used = Path(sys.argv[0])
    if used.name != "khala":
        return "khala"
    found = shutil.which("khala")
    if found is not None and Path(found).resolve() == used.resolve():
        return "khala"
    try:
        return shlex.quote(os.path.relpath(used))
    except ValueError:
        return shlex.quote(str(used))


def example_command() -> str:
    """Return a command that exists wherever Khala does and prints for a few seconds."""
    return "python3 -m this" if shutil.which("python3") else "ls -l"
