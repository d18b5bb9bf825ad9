"""How a command of ``khala bench`` or ``khala load`` gives its report: JSON to the output, files if asked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from chaos.load.report import write_report

if TYPE_CHECKING:
    from chaos.load.report import Report

__all__ = ["give_report", "report_option", "say_progress"]

F = TypeVar("F", bound=Callable[..., object])


def report_option(command: F) -> F:
    """Add ``--report DIR``, which the command hands to ``give_report``."""
    option = click.option(
        "--report",
        "report_dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=None,
        callback=_check_plots,
        help="Also write <date>-<name>.json, .md and .svg there; this needs the extra `load`.",
    )
    return option(command)


def _check_plots(_context: click.Context, _parameter: click.Parameter, folder: Path | None) -> Path | None:
    """Refuse before anything is measured."""
    if folder is not None and find_spec("matplotlib") is None:
        raise click.UsageError("--report draws plots: pip install 'khala[load]'")
    return folder


def give_report(report: Report, report_dir: Path | None) -> None:
    """Print the JSON; write the files of today (UTC) if there is a directory for them."""
    click.echo(json.dumps(report.as_json(), indent=2))
    if report_dir is not None:
        for file in write_report(report, report_dir, date=time.strftime("%Y-%m-%d", time.gmtime())):
            say_progress(f"wrote {file}")


def say_progress(line: str) -> None:
    """Print beside the output."""
    click.echo(line, err=True)
