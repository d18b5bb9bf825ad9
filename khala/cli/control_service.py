"""``khala control``: the service as a process of its own. What it does with signals: `khala_service.service_process`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from control.__main__ import serve
from khala.cli.service_options import service_options

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["control_command"]


@click.command("control")
@service_options
def control_command(config_file: Path | None, *, is_leashed: bool) -> int:
    """Run control: identities, sessions, sync tokens. Sections [control] and [fanout]."""
    return serve(config_file, is_leashed)
