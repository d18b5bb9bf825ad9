"""``khala runtime``: the service as a process of its own. What it does with signals: `khala_service.service_process`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from khala.cli.service_options import service_options
from runtime.__main__ import serve

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["runtime_command"]


@click.command("runtime")
@service_options
def runtime_command(config_file: Path | None, *, is_leashed: bool) -> int:
    """Run the runtime: runs, event log, journal. Sections [runtime] and [fanout]."""
    return serve(config_file, is_leashed)
