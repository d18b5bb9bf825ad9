"""``khala doctor``: six checks, one line each, with what to do about what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
import trio
from rich.table import Table
from rich.text import Text

from khala.cli.doctor_checks import (
    Finding,
    check_clock,
    check_data_dir,
    check_ports,
    check_postgres,
    check_python,
    check_running,
)
from khala.cli.failures import EXIT_FAILED
from khala.cli.locations import data_dir_option
from khala.cli.terminal import Terminal, json_option, open_terminal
from khala.cli.up_ports import PORT_BASE
from khala.cli.up_record import living_record
from khala_service.identifiers import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["doctor_command", "examine"]

_MARKS: Final = {
    "ok": ("✓", "green"),
    "warning": ("!", "yellow"),
    "failed": ("✗", "bold red"),
    "not_applicable": ("-", "dim"),
}


@click.command("doctor")
@data_dir_option
@click.option("--port-base", type=click.IntRange(1, 65_531), default=PORT_BASE, show_default=True)
@json_option
def doctor_command(data_dir: Path, port_base: int, *, is_json: bool) -> int:
    """Check whether Khala can run here, and whether what runs is well (exit status 1 if not)."""
    terminal = open_terminal(is_json=is_json)
    findings = examine(data_dir.expanduser().absolute(), port_base)
    for finding in findings:
        terminal.data(
            {
                "type": "check",
                "check": finding.check,
                "verdict": finding.verdict,
                "detail": finding.detail,
                "advice": finding.advice,
            }
        )
    _show(terminal, findings)
    return EXIT_FAILED if any(finding.verdict == "failed" for finding in findings) else 0


def examine(data_dir: Path, port_base: int) -> list[Finding]:
    """Return the findings of all checks, in the order in which they build on each other."""
    record = living_record(data_dir)
    return [
        check_python(),
        check_postgres(data_dir),
        check_data_dir(data_dir),
        check_ports(record, port_base),
        check_clock(data_dir, record, SystemClock().now),
        trio.run(check_running, record),
    ]


def _show(terminal: Terminal, findings: list[Finding]) -> None:
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        mark, style = _MARKS[finding.verdict]
        detail = Text(finding.detail)
        if finding.advice:
            detail.append(f"\n→ {finding.advice}", style="yellow")
        table.add_row(Text(mark, style=style), Text(finding.check, style="bold"), detail)
    terminal.show(table)
